//! A cache of the simulation: one of the real policies under a byte budget, without bytes.

use crate::policy::{Policy, PolicyKind};
use image_format::ids::ChunkId;

/// A cache.
#[derive(Debug)]
pub(super) struct Tier {
    kind: PolicyKind,
    capacity: u64,
    policy: Box<dyn Policy>,
}

impl Tier {
    pub(super) fn new(kind: PolicyKind, capacity: u64) -> Self {
        Self { kind, capacity, policy: kind.build(capacity) }
    }

    /// Whether the chunk is held; notes the hit.
    pub(super) fn touch(&mut self, id: &ChunkId) -> bool {
        let held = self.policy.contains(id);
        if held {
            self.policy.touch(id);
        }
        held
    }

    pub(super) fn contains(&self, id: &ChunkId) -> bool {
        self.policy.contains(id)
    }

    /// Holds a chunk, forgetting others until it fits; not at all if it never would.
    pub(super) fn insert(&mut self, id: &ChunkId, bytes: u64) {
        if bytes > self.capacity || self.policy.contains(id) {
            return;
        }
        while self.policy.weight() + bytes > self.capacity {
            if self.policy.evict().is_none() {
                return;
            }
        }
        self.policy.insert(*id, bytes);
    }

    /// Forgets everything, the policy's memory of what was evicted too.
    pub(super) fn clear(&mut self) {
        self.policy = self.kind.build(self.capacity);
    }

    pub(super) fn weight(&self) -> u64 {
        self.policy.weight()
    }
}
