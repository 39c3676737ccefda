//! The first tier: plaintext chunks in memory, under a byte budget.
//!
//! Invariants: never more than the budget; a hit needs the key and codec with which the
//! chunk was opened, so a manifest that merely names a foreign chunk's id reads nothing;
//! the lock is held for map operations only, never while bytes are copied.

use crate::policy::{Policy, PolicyKind};
use crate::tier::Usage;
use image_format::chunk::PlainChunk;
use image_format::ids::ChunkId;
use image_format::seal::{ChunkKey, Codec};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that an entry costs besides its content: map, policy, reference counts.
const ENTRY_OVERHEAD: u64 = 256;

/// Plaintext chunks in memory.
#[derive(Debug)]
pub struct MemoryTier {
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chunks: HashMap<ChunkId, Held>,
    policy: Box<dyn Policy>,
}

#[derive(Debug)]
struct Held {
    key: ChunkKey,
    codec: Codec,
    plain: PlainChunk,
}

impl MemoryTier {
    /// A tier of at most `capacity` bytes.
    #[must_use]
    pub fn new(capacity: u64, policy: PolicyKind) -> Self {
        let state = State { chunks: HashMap::new(), policy: policy.build(capacity) };
        Self { capacity, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // map and policy change together without a panic in between
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunk, if it is held and was opened with this key and codec.
    #[must_use]
    pub fn get(&self, id: &ChunkId, key: &ChunkKey, codec: Codec) -> Option<PlainChunk> {
        let mut state = self.state();
        let held = state.chunks.get(id)?;
        // a short-cut comparison tells an attacker nothing: ids are public and keys are
        // compared only by who holds a manifest, at most once per fetch
        if held.key != *key || held.codec != codec {
            return None;
        }
        let plain = held.plain.clone();
        state.policy.touch(id);
        Some(plain)
    }

    /// Holds a chunk, forgetting others until it fits; not at all if it never would.
    pub fn insert(&self, id: ChunkId, key: ChunkKey, codec: Codec, plain: PlainChunk) {
        let weight = plain.held_len() as u64 + ENTRY_OVERHEAD;
        if weight > self.capacity {
            return;
        }
        let mut state = self.state();
        state.policy.remove(&id);
        while state.policy.weight() + weight > self.capacity {
            let Some((evicted, _)) = state.policy.evict() else { return };
            state.chunks.remove(&evicted);
        }
        state.policy.insert(id, weight);
        state.chunks.insert(id, Held { key, codec, plain });
    }

    /// How full the tier is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.state();
        Usage {
            chunks: state.policy.len() as u64,
            bytes: state.policy.weight(),
            capacity_bytes: self.capacity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_format::chunk::SealedChunk;
    use image_format::seal::{Compression, Opener, Salt, Sealer};
    use image_format::units::CHUNK_SIZE;

    fn chunk(n: u32, len: usize) -> (ChunkId, ChunkKey, PlainChunk) {
        let mut plain = vec![7; len];
        plain[..4].copy_from_slice(&n.to_le_bytes());
        let salt = Salt::derive(&"r1".parse().unwrap(), &[0; 32]);
        let sealed = Sealer::new(salt, Compression::Off).unwrap().seal(&plain).unwrap();
        let verified = SealedChunk::new(sealed.bytes.clone()).verify(&sealed.id).unwrap();
        let opened = Opener::new().open(verified, &sealed.key, sealed.codec, CHUNK_SIZE).unwrap();
        (sealed.id, sealed.key, opened)
    }

    #[test]
    fn a_foreign_key_reads_nothing() {
        let tier = MemoryTier::new(1 << 20, PolicyKind::default());
        let (id, key, plain) = chunk(1, 1000);
        tier.insert(id, key.clone(), Codec::Plain, plain);
        assert!(tier.get(&id, &key, Codec::Plain).is_some());
        assert!(tier.get(&id, &ChunkKey::from_bytes([1; 32]), Codec::Plain).is_none());
        assert!(tier.get(&id, &key, Codec::Zstd).is_none());
    }

    #[test]
    fn the_budget_holds() {
        let tier = MemoryTier::new(100_000, PolicyKind::default());
        for n in 0..50 {
            let (id, key, plain) = chunk(n, 10_000);
            tier.insert(id, key, Codec::Plain, plain);
            assert!(tier.usage().bytes <= 100_000);
        }
        assert!(tier.usage().chunks >= 8);
        let (id, key, plain) = chunk(99, 200_000);
        tier.insert(id, key.clone(), Codec::Plain, plain);
        assert!(tier.get(&id, &key, Codec::Plain).is_none());
        assert!(tier.usage().chunks >= 8, "a chunk that never fits evicts nothing");
    }
}
