//! The store stage of a push: chunks are rendered, sealed, compared with what the store has
//! and uploaded, in bounded stages that overlap.
//!
//! ```text
//! N render+seal threads ──(bounded channel)──▶ one collector ──▶ up to M uploads in flight
//! ```
//!
//! Invariants: when [`store_chunks`] returns `Ok`, every chunk it lists is in the store;
//! memory is bounded by threads + queue + uploads, whatever the image size; the entries it
//! returns depend only on the chunks' contents, never on timing.

use bytes::Bytes;
use fleet::client::Fleet;
use image_format::chunk::VerifiedChunk;
use image_format::ids::{ChunkId, RootId};
use image_format::manifest::Entry;
use image_format::names::ObjectName;
use image_format::seal::{ChunkKey, Compression, LevelError, Salt, SealedOutput, Sealer};
use image_format::units::{CHUNK_SIZE, ChunkIndex};
use origin::store::{ErrorKind, Origin, OriginError, PutOutcome};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How the store stage works. All sizes are bounds on memory: each thread and each upload
/// holds at most two chunks.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Threads that render and seal.
    pub threads: usize,
    /// Uploads in flight.
    pub uploads: usize,
    /// What separates this dedup domain.
    pub salt: Salt,
    /// Whether payloads are compressed.
    pub compression: Compression,
    /// The root that new chunks go to.
    pub root: RootId,
    /// The remote cache to write all chunks of the image to as well, so that its first start
    /// finds them there.
    pub prime: Option<Fleet>,
}

/// Renders the plaintext of the chunk at an index into a buffer of one chunk. Called from
/// several threads at once.
pub type Render = dyn Fn(ChunkIndex, &mut [u8]) -> Result<(), RenderFailed> + Send + Sync;

/// A chunk could not be rendered: the file bytes could not be read back.
#[derive(Debug, thiserror::Error)]
#[error("chunk {index} of the image could not be rendered")]
pub struct RenderFailed {
    /// Which chunk.
    pub index: ChunkIndex,
    /// Why.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why the store stage stopped. What was uploaded before is garbage at worst.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Rendering failed.
    #[error(transparent)]
    Render(#[from] RenderFailed),
    /// The store failed.
    #[error("a chunk could not be stored")]
    Origin(#[from] OriginError),
    /// The compression level does not exist.
    #[error(transparent)]
    Level(#[from] LevelError),
}

impl StoreError {
    /// What the failure means to whoever asked.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            // the layers were checked and lie in files of ours: their disk, or a fault
            Self::Render(failed) => {
                let io = failed.source.downcast_ref::<std::io::Error>();
                io.map_or(ErrorKind::Internal, |_| ErrorKind::Unavailable)
            }
            Self::Origin(error) => error.kind(),
            Self::Level(_) => ErrorKind::Invalid,
        }
    }
}

/// What became of the chunks of one push. Each stored object is counted once, in the first
/// place where it was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Tally {
    /// Chunks of the image that are not all zeros.
    pub chunks: u64,
    /// Objects written by this push.
    pub new_chunks: u64,
    /// Bytes of those objects.
    pub new_bytes: u64,
    /// Objects that the store had already.
    pub shared_chunks: u64,
    /// Bytes of those objects.
    pub shared_bytes: u64,
    /// Further places of the image where one of its own chunks occurs again.
    pub repeated_chunks: u64,
    /// Plaintext bytes of all chunks, trailing zeros left out.
    pub payload_bytes: u64,
    /// Chunks that the remote cache took.
    pub primed_chunks: u64,
}

/// The stored chunks of an image in ascending order, with their keys.
#[derive(Debug, Default)]
pub struct Stored {
    /// Manifest entries.
    pub entries: Vec<Entry>,
    /// Their keys, in the same order.
    pub keys: Vec<ChunkKey>,
    /// What was new and what was shared.
    pub tally: Tally,
}

/// A chunk on its way from a sealing thread to the collector.
struct Sealed {
    index: ChunkIndex,
    output: SealedOutput,
}

/// Renders, seals and stores the chunks at `indices` (ascending). Chunks in `known` are in
/// the store already and are not asked for again. `progress` is called with each chunk done.
///
/// Not cancel-safe in one respect: sealing threads end only with their current chunk.
///
/// # Errors
/// [`StoreError`]; the first failure stops all stages.
pub async fn store_chunks(
    settings: &StoreSettings,
    origin: &Arc<dyn Origin>,
    indices: Vec<ChunkIndex>,
    render: Arc<Render>,
    known: &HashSet<ChunkId>,
    progress: impl Fn(u64),
) -> Result<Stored, StoreError> {
    let (sender, mut receiver) = mpsc::channel(settings.threads * 2);
    let indices: Arc<[ChunkIndex]> = indices.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut sealers = JoinSet::new();
    for _ in 0..settings.threads.max(1) {
        let sealer = Sealer::new(settings.salt.clone(), settings.compression)?;
        let (indices, next) = (Arc::clone(&indices), Arc::clone(&next));
        let (render, sender) = (Arc::clone(&render), sender.clone());
        sealers.spawn_blocking(move || seal_chunks(&indices, &next, &*render, sealer, &sender));
    }
    drop(sender);

    let mut collector = Collector::new(settings, origin, known);
    let mut done = 0;
    while let Some(sealed) = receiver.recv().await {
        collector.accept(sealed?).await?;
        done += 1;
        progress(done);
    }
    collector.finish().await
}

/// Takes indices until there are none, or until the collector has gone.
fn seal_chunks(
    indices: &[ChunkIndex],
    next: &AtomicUsize,
    render: &Render,
    mut sealer: Sealer,
    sender: &mpsc::Sender<Result<Option<Sealed>, RenderFailed>>,
) {
    let mut buffer = vec![0; CHUNK_SIZE.as_usize()];
    while let Some(&index) = indices.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sealed =
            render(index, &mut buffer).map(|()| sealer.seal(&buffer).map(|output| Sealed { index, output }));
        let failed = sealed.is_err();
        if sender.blocking_send(sealed).is_err() || failed {
            return;
        }
    }
}

struct Collector<'a> {
    settings: &'a StoreSettings,
    origin: &'a Arc<dyn Origin>,
    known: &'a HashSet<ChunkId>,
    met: HashSet<ChunkId>,
    chunks: Vec<(Entry, ChunkKey)>,
    uploads: JoinSet<Result<(PutOutcome, u64), OriginError>>,
    /// Chunks on their way to the remote cache; whether it took them.
    primes: JoinSet<bool>,
    tally: Tally,
}

impl<'a> Collector<'a> {
    fn new(settings: &'a StoreSettings, origin: &'a Arc<dyn Origin>, known: &'a HashSet<ChunkId>) -> Self {
        Self {
            settings,
            origin,
            known,
            met: HashSet::new(),
            chunks: Vec::new(),
            uploads: JoinSet::new(),
            primes: JoinSet::new(),
            tally: Tally::default(),
        }
    }

    async fn accept(&mut self, sealed: Option<Sealed>) -> Result<(), StoreError> {
        let Some(Sealed { index, output }) = sealed else { return Ok(()) };
        if !self.met.contains(&output.id) {
            self.prime(&output).await;
        }
        let SealedOutput { id, key, codec, bytes, payload_len } = output;
        let stored_len = u32::try_from(bytes.len()).expect("a sealed chunk is at most a chunk long");
        self.tally.chunks += 1;
        self.tally.payload_bytes += u64::from(payload_len);
        self.chunks.push((Entry { index, id, stored_len, codec }, key));
        if !self.met.insert(id) {
            self.tally.repeated_chunks += 1;
        } else if self.known.contains(&id) {
            self.count(PutOutcome::Existed, u64::from(stored_len));
        } else {
            while self.uploads.len() >= self.settings.uploads.max(1) {
                self.join_one().await?;
            }
            let name = ObjectName::chunk(&self.settings.root, id);
            self.uploads.spawn(upload(Arc::clone(self.origin), name, bytes));
        }
        Ok(())
    }

    /// Writes a chunk to the remote cache. What it does not take is fetched later, as always.
    async fn prime(&mut self, output: &SealedOutput) {
        let Some(fleet) = self.settings.prime.clone() else { return };
        while self.primes.len() >= self.settings.uploads.max(1) {
            self.join_prime().await;
        }
        let chunk = VerifiedChunk::from(output);
        self.primes.spawn(async move { fleet.put(&chunk).await.readable(fleet.code()) });
    }

    async fn join_prime(&mut self) {
        if let Some(joined) = self.primes.join_next().await {
            let taken = joined.expect("primes return errors and do not panic");
            self.tally.primed_chunks += u64::from(taken);
        }
    }

    async fn join_one(&mut self) -> Result<(), StoreError> {
        if let Some(joined) = self.uploads.join_next().await {
            let (outcome, length) = joined.expect("uploads return errors and do not panic")?;
            self.count(outcome, length);
        }
        Ok(())
    }

    const fn count(&mut self, outcome: PutOutcome, length: u64) {
        match outcome {
            PutOutcome::Created => {
                self.tally.new_chunks += 1;
                self.tally.new_bytes += length;
            }
            PutOutcome::Existed => {
                self.tally.shared_chunks += 1;
                self.tally.shared_bytes += length;
            }
        }
    }

    async fn finish(mut self) -> Result<Stored, StoreError> {
        while !self.uploads.is_empty() {
            self.join_one().await?;
        }
        while !self.primes.is_empty() {
            self.join_prime().await;
        }
        self.chunks.sort_unstable_by_key(|(entry, _)| entry.index);
        let (entries, keys) = self.chunks.into_iter().unzip();
        Ok(Stored { entries, keys, tally: self.tally })
    }
}

/// Uploads a chunk unless the store has it. Asking first costs a small request and saves
/// sending the bytes of the many chunks that are shared.
async fn upload(
    origin: Arc<dyn Origin>,
    name: ObjectName,
    bytes: Bytes,
) -> Result<(PutOutcome, u64), OriginError> {
    let length = bytes.len() as u64;
    if let Some(info) = origin.head(&name).await?
        && info.size == length
    {
        return Ok((PutOutcome::Existed, length));
    }
    Ok((origin.put_if_absent(&name, bytes).await?, length))
}
