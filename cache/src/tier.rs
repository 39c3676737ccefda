//! The seam between the read path and a cache level that holds sealed chunks (local SSD,
//! later the remote fleet).
//!
//! # Contract of every [`ChunkTier`]
//! - A tier may forget any chunk at any time and may return wrong bytes: the reader
//!   verifies. It must never block a read on its own housekeeping.
//! - `get` of a chunk that is not held is `Ok(None)`; an error means that the tier itself
//!   is ill and is counted, after which the reader goes on to the next tier.
//! - `put` is best effort and bounded: a full or ill tier drops the chunk and says so in
//!   its counters; readers go on.
//! - Cancel safety: every future may be dropped; a cancelled `put` leaves the chunk held
//!   whole or not at all.

use async_trait::async_trait;
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How full a tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Chunks held.
    pub chunks: u64,
    /// Bytes held, counted as the tier's budget counts them.
    pub bytes: u64,
    /// The budget in bytes.
    pub capacity_bytes: u64,
}

/// A tier that could not answer.
#[derive(Debug, thiserror::Error)]
#[error("{tier} tier, chunk {id}: {message}")]
pub struct TierError {
    /// Which tier.
    pub tier: &'static str,
    /// Which chunk.
    pub id: ChunkId,
    /// What happened.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<std::io::Error>,
}

/// A cache level of sealed chunks. See the module's contract.
#[async_trait]
pub trait ChunkTier: Send + Sync + fmt::Debug + 'static {
    /// Name in metrics and errors: `ssd`, `l2`.
    fn name(&self) -> &'static str;

    /// The chunk's bytes, unverified, if held.
    async fn get(&self, id: &ChunkId) -> Result<Option<SealedChunk>, TierError>;

    /// Offers a chunk to be held.
    async fn put(&self, chunk: VerifiedChunk) -> Result<(), TierError>;

    /// Drops a chunk, because its copy proved corrupt.
    async fn remove(&self, id: &ChunkId) -> Result<(), TierError>;

    /// How full the tier is.
    fn usage(&self) -> Usage;
}
