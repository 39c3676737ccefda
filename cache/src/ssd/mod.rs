//! The second tier: sealed chunks on local SSD. Layout and recovery: docs/ssd-tier.md.
//!
//! One file per chunk, named by its id; nothing on disk needs to be trusted, because every
//! read is verified by that id.

mod disk;
mod files;
mod writer;

pub use disk::Contents;
pub use files::{SsdError, SsdFiles, SsdSettings, SsdStats};

use crate::tier::{ChunkTier, TierError, Usage};
use async_trait::async_trait;
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;

/// Sealed chunks on local SSD. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct SsdTier(SsdFiles);

impl SsdTier {
    /// Opens the tier and finds what earlier processes left. Blocks as [`SsdFiles::open`].
    ///
    /// # Errors
    /// [`SsdError`] if another process has it or the directory cannot be used.
    pub fn open(settings: SsdSettings) -> Result<Self, SsdError> {
        SsdFiles::open(settings).map(Self)
    }

    /// Counters of what the tier did by itself.
    #[must_use]
    pub fn stats(&self) -> SsdStats {
        self.0.stats()
    }

    /// Waits until everything queued so far is on disk (not synced: losing it is harmless).
    pub async fn settle(&self) {
        self.0.settle().await;
    }
}

fn failed(id: &ChunkId, message: &str, source: std::io::Error) -> TierError {
    TierError { tier: "ssd", id: *id, message: message.into(), source: Some(source) }
}

#[async_trait]
impl ChunkTier for SsdTier {
    fn name(&self) -> &'static str {
        "ssd"
    }

    async fn get(&self, id: &ChunkId) -> Result<Option<SealedChunk>, TierError> {
        if !self.0.touch(id) {
            return Ok(None);
        }
        let read = self.0.read(id).await;
        let read = read.map_err(|source| failed(id, "the chunk's file could not be read", source))?;
        Ok(read.map(SealedChunk::new))
    }

    async fn put(&self, chunk: VerifiedChunk) -> Result<(), TierError> {
        if !self.0.contains(chunk.id()) {
            // a full queue drops the chunk and counts it
            let _ = self.0.offer(*chunk.id(), chunk.sealed_bytes().clone());
        }
        Ok(())
    }

    async fn remove(&self, id: &ChunkId) -> Result<(), TierError> {
        let removed = self.0.remove(id).await;
        removed.map_err(|source| failed(id, "the corrupt file could not be removed", source))
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

#[cfg(test)]
mod tests;
