//! Reading chunks back from the store, for the commands that look at whole images. Workers
//! read through the tiers of the `cache` package instead.
//!
//! Invariant: nothing leaves here but verified chunks and their plaintext.

use futures_util::stream::{self, Stream, StreamExt};
use image_format::chunk::{Mismatch, PlainChunk, SealedChunk, VerifiedChunk};
use image_format::ids::{ChunkId, RootId};
use image_format::manifest::{Entry, Manifest};
use image_format::names::ObjectName;
use image_format::seal::{OpenError, Opener};
use origin::store::{ErrorKind, Origin, OriginError};
use std::cell::RefCell;
use std::sync::Arc;

/// Chunks fetched at the same time: enough to fill a link at tens of milliseconds to the
/// first byte, at most 16 MiB of memory.
pub const PARALLEL_FETCHES: usize = 32;

/// Why a chunk could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store has no such object.
    #[error("chunk {id} is missing from the store; push the image again to restore it")]
    Missing {
        /// Which chunk.
        id: ChunkId,
    },
    /// The object is another length than the manifest says, or other bytes.
    #[error(
        "chunk {id} in the store is corrupt; delete object {object} and push the image again to restore it"
    )]
    Corrupt {
        /// Which chunk.
        id: ChunkId,
        /// Its object name.
        object: ObjectName,
        /// What the bytes are, where they were read whole.
        source: Option<Mismatch>,
    },
    /// The chunk is right and the manifest's key or codec is not.
    #[error("chunk {id} does not open with the manifest's key")]
    Open {
        /// Which chunk.
        id: ChunkId,
        /// Why.
        source: OpenError,
    },
    /// The store failed otherwise.
    #[error("chunk {id} could not be fetched")]
    Origin {
        /// Which chunk.
        id: ChunkId,
        /// Why.
        source: OriginError,
    },
}

impl FetchError {
    /// What the failure means.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } | Self::Open { .. } => ErrorKind::Corrupt,
            Self::Origin { source, .. } => source.kind(),
        }
    }
}

/// Fetches and verifies the chunk of an entry. Cancel-safe.
///
/// # Errors
/// [`FetchError`] says whether it is missing, corrupt, or cannot be had now.
pub async fn chunk(origin: &dyn Origin, root: &RootId, entry: &Entry) -> Result<VerifiedChunk, FetchError> {
    let (id, object) = (entry.id, ObjectName::chunk(root, entry.id));
    let bytes = match origin.get(&object, entry.stored_len as usize).await {
        Ok(bytes) => bytes,
        Err(error) => {
            return Err(match error.kind() {
                ErrorKind::NotFound => FetchError::Missing { id },
                ErrorKind::Corrupt => FetchError::Corrupt { id, object, source: None },
                _ => FetchError::Origin { id, source: error },
            });
        }
    };
    SealedChunk::new(bytes).verify(&id).map_err(|mismatch| FetchError::Corrupt {
        id,
        object,
        source: Some(mismatch),
    })
}

/// Opens a verified chunk with the manifest's key, on the calling thread.
///
/// # Errors
/// [`FetchError::Open`] if the manifest and the chunk disagree.
pub fn open(manifest: &Manifest, position: usize, verified: VerifiedChunk) -> Result<PlainChunk, FetchError> {
    thread_local! {
        static OPENER: RefCell<Opener> = RefCell::new(Opener::new());
    }
    let (id, codec) = (*verified.id(), manifest.entries()[position].codec);
    OPENER
        .with_borrow_mut(|opener| {
            opener.open(verified, manifest.key(position), codec, manifest.head().chunk_size)
        })
        .map_err(|source| FetchError::Open { id, source })
}

/// Fetches, verifies and opens the chunks at these positions of a manifest's entries, up to
/// [`PARALLEL_FETCHES`] at a time, and hands each to `consume` on a blocking thread. Yields
/// what `consume` returned, in the order in which the chunks arrived.
pub fn each<T: Send + 'static>(
    origin: Arc<dyn Origin>,
    manifest: Arc<Manifest>,
    positions: Vec<usize>,
    consume: impl Fn(usize, &PlainChunk) -> T + Send + Sync + 'static,
) -> impl Stream<Item = (usize, Result<T, FetchError>)> {
    let consume = Arc::new(consume);
    stream::iter(positions)
        .map(move |position| {
            let (origin, manifest) = (Arc::clone(&origin), Arc::clone(&manifest));
            let consume = Arc::clone(&consume);
            async move {
                let entry = manifest.entries()[position];
                let verified = match chunk(&*origin, &manifest.head().root, &entry).await {
                    Ok(verified) => verified,
                    Err(error) => return (position, Err(error)),
                };
                let opened = tokio::task::spawn_blocking(move || {
                    open(&manifest, position, verified).map(|plain| consume(position, &plain))
                });
                (position, opened.await.expect("opening returns errors and does not panic"))
            }
        })
        .buffer_unordered(PARALLEL_FETCHES)
}
