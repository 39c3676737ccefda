//! Which chunk a full tier forgets: pure data structures, weighted by bytes, no clock.
//!
//! Invariants of every [`Policy`]: it holds each key at most once; [`Policy::weight`] is the
//! sum of the weights of the keys it holds; [`Policy::evict`] takes a held key and returns
//! `None` only when it holds none, so eviction always makes progress and always ends.

mod lru;
mod lru_k;
mod s3_fifo;
mod sieve;

pub use lru::Lru;
pub use lru_k::LruK;
pub use s3_fifo::S3Fifo;
pub use sieve::Sieve;

use image_format::ids::ChunkId;
use serde::{Deserialize, Serialize};

/// A replacement policy over chunks.
pub trait Policy: Send + std::fmt::Debug {
    /// Takes in a key that is not held. Weight in bytes.
    fn insert(&mut self, key: ChunkId, weight: u64);

    /// Notes a hit on a held key; ignores others.
    fn touch(&mut self, key: &ChunkId);

    /// Drops a held key for another reason than space; ignores others. Returns its weight.
    fn remove(&mut self, key: &ChunkId) -> Option<u64>;

    /// Chooses a key to forget and drops it. Returns it with its weight.
    fn evict(&mut self) -> Option<(ChunkId, u64)>;

    /// Whether the key is held.
    fn contains(&self, key: &ChunkId) -> bool;

    /// Sum of the weights of the held keys.
    fn weight(&self) -> u64;

    /// Number of held keys.
    fn len(&self) -> usize;

    /// Whether no key is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which policy a tier uses. The default is decided in docs/decisions/0005-eviction.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// Least recently used: the baseline that scans defeat.
    Lru,
    /// LRU-2: evicts by the last but one reference (O'Neil et al. 1993), as ATC'23.
    LruK,
    /// S3-FIFO: a small queue filters one-hit wonders (SOSP'23).
    #[default]
    S3Fifo,
    /// SIEVE: one queue and a hand that spares what was hit (NSDI'24).
    Sieve,
}

impl PolicyKind {
    /// Every kind, in the order of their age.
    pub const ALL: [Self; 4] = [Self::Lru, Self::LruK, Self::S3Fifo, Self::Sieve];

    /// A policy of this kind for a tier of `capacity` bytes.
    #[must_use]
    pub fn build(self, capacity: u64) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new()),
            Self::LruK => Box::new(LruK::new(capacity)),
            Self::S3Fifo => Box::new(S3Fifo::new(capacity)),
            Self::Sieve => Box::new(Sieve::new()),
        }
    }
}

#[cfg(test)]
mod tests;
