//! The manifest in memory. Parsed, not validated: a [`Manifest`] that exists is right.

use crate::ids::{ChunkId, ImageDigest, ImageId, RootId, TenantId};
use crate::seal::{ChunkKey, Codec};
use crate::units::{ChunkIndex, ChunkSize};

/// What a manifest says of the whole image, readable without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Digest of the OCI image manifest that was flattened.
    pub image: ImageDigest,
    /// Which layout policy placed the files.
    pub layout_policy: u16,
    /// Chunk size of this image.
    pub chunk_size: ChunkSize,
    /// Length of the device in bytes, a multiple of the chunk size.
    pub device_len: u64,
    /// The root that keeps the chunks alive.
    pub root: RootId,
    /// Whose image it is.
    pub tenant: TenantId,
}

impl ManifestHead {
    /// The id under which the manifest is stored.
    #[must_use]
    pub fn image_id(&self) -> ImageId {
        ImageId::of(&self.image, self.layout_policy, self.chunk_size)
    }
}

/// One stored chunk of an image. Chunks without an entry are all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies in the device.
    pub index: ChunkIndex,
    /// Its name in the store.
    pub id: ChunkId,
    /// Length of the sealed object in bytes: 1 to the chunk size.
    pub stored_len: u32,
    /// How its payload is encoded.
    pub codec: Codec,
}

/// A manifest with its keys: what a worker needs to serve the image.
#[derive(Debug, Clone)]
pub struct Manifest {
    head: ManifestHead,
    entries: Vec<Entry>,
    keys: Vec<ChunkKey>,
    config: Vec<u8>,
}

/// Parts that do not make a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// The device length is not a positive multiple of the chunk size, or too long.
    #[error("device length of {0} bytes is not a positive multiple of the chunk size below 2^32 chunks")]
    DeviceLength(u64),
    /// Entries are out of order, doubled, or outside the device.
    #[error("entry {position} (chunk {index}) is out of order or outside the device")]
    Index {
        /// Which entry.
        position: usize,
        /// Its chunk index.
        index: ChunkIndex,
    },
    /// A stored length of 0 or above the chunk size.
    #[error("entry {position} has a stored length of {stored_len} bytes; 1 to {limit} are possible")]
    StoredLength {
        /// Which entry.
        position: usize,
        /// What it says.
        stored_len: u32,
        /// The chunk size.
        limit: u32,
    },
    /// Not one key per entry.
    #[error("{keys} keys for {entries} entries")]
    KeyCount {
        /// How many keys.
        keys: usize,
        /// How many entries.
        entries: usize,
    },
}

pub(super) fn check_entries(head: &ManifestHead, entries: &[Entry]) -> Result<(), InvalidManifest> {
    let size = u64::from(head.chunk_size.bytes());
    let chunks = head.device_len / size;
    if head.device_len == 0 || !head.device_len.is_multiple_of(size) || u32::try_from(chunks).is_err() {
        return Err(InvalidManifest::DeviceLength(head.device_len));
    }
    let mut next = 0_u64;
    for (position, entry) in entries.iter().enumerate() {
        let index = u64::from(entry.index.0);
        if index < next || index >= chunks {
            return Err(InvalidManifest::Index { position, index: entry.index });
        }
        next = index + 1;
        let limit = head.chunk_size.bytes();
        if entry.stored_len == 0 || entry.stored_len > limit {
            return Err(InvalidManifest::StoredLength { position, stored_len: entry.stored_len, limit });
        }
    }
    Ok(())
}

impl Manifest {
    /// Puts a manifest together. `config` is the image's OCI configuration, verbatim.
    ///
    /// # Errors
    /// [`InvalidManifest`] names the first thing that does not fit.
    pub fn new(
        head: ManifestHead,
        entries: Vec<Entry>,
        keys: Vec<ChunkKey>,
        config: Vec<u8>,
    ) -> Result<Self, InvalidManifest> {
        check_entries(&head, &entries)?;
        if keys.len() != entries.len() {
            return Err(InvalidManifest::KeyCount { keys: keys.len(), entries: entries.len() });
        }
        Ok(Self { head, entries, keys, config })
    }

    /// What it says of the whole image.
    #[must_use]
    pub const fn head(&self) -> &ManifestHead {
        &self.head
    }

    /// The stored chunks, ascending by index.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The key of the entry at this position of [`Self::entries`].
    ///
    /// # Panics
    /// If the position is not below the number of entries.
    #[must_use]
    pub fn key(&self, position: usize) -> &ChunkKey {
        &self.keys[position]
    }

    pub(super) fn keys(&self) -> &[ChunkKey] {
        &self.keys
    }

    /// Position in [`Self::entries`] of the chunk at `index`; `None` where it is all zeros.
    #[must_use]
    pub fn position(&self, index: ChunkIndex) -> Option<usize> {
        self.entries.binary_search_by_key(&index, |entry| entry.index).ok()
    }

    /// The image's OCI configuration, verbatim JSON.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Total bytes of the stored chunks, each counted as often as it is mentioned.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.stored_len)).sum()
    }
}
