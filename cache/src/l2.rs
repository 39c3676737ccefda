//! The third tier: the remote fleet. What it gives was verified when its stripe was decoded.

use crate::tier::{ChunkTier, TierError, Usage};
use async_trait::async_trait;
use fleet::client::{Fleet, FleetSnapshot};
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;

/// The fleet as a tier of a worker.
#[derive(Debug)]
pub struct L2Tier(Fleet);

impl L2Tier {
    /// The tier of this fleet.
    #[must_use]
    pub const fn new(fleet: Fleet) -> Self {
        Self(fleet)
    }

    /// Waits until no repair is under way.
    pub async fn settle(&self) {
        self.0.settle().await;
    }

    /// What the fleet's client did so far.
    #[must_use]
    pub fn stats(&self) -> FleetSnapshot {
        self.0.metrics()
    }
}

#[async_trait]
impl ChunkTier for L2Tier {
    fn name(&self) -> &'static str {
        "l2"
    }

    async fn get(&self, id: &ChunkId) -> Result<Option<SealedChunk>, TierError> {
        match self.0.get(id).await {
            Ok(chunk) => Ok(chunk.map(SealedChunk::from)),
            Err(error) => Err(TierError { tier: "l2", id: *id, message: error.reason, source: None }),
        }
    }

    async fn put(&self, chunk: VerifiedChunk) -> Result<(), TierError> {
        let stored = self.0.put(&chunk).await;
        if stored.readable(self.0.code()) {
            return Ok(());
        }
        let message = format!("{} of {} shards were stored", stored.shards, stored.width);
        Err(TierError { tier: "l2", id: *chunk.id(), message, source: None })
    }

    async fn remove(&self, id: &ChunkId) -> Result<(), TierError> {
        self.0.remove(id).await;
        Ok(())
    }

    /// Nothing: what the nodes hold is theirs to say.
    fn usage(&self) -> Usage {
        Usage::default()
    }
}
