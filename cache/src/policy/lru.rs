//! Least recently used, by a logical clock and an ordered set of last uses.

use super::Policy;
use image_format::ids::ChunkId;
use std::collections::{BTreeMap, HashMap};

/// Least recently used.
#[derive(Debug, Default)]
pub struct Lru {
    tick: u64,
    weight: u64,
    held: HashMap<ChunkId, (u64, u64)>,
    order: BTreeMap<u64, ChunkId>,
}

impl Lru {
    /// An empty policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Policy for Lru {
    fn insert(&mut self, key: ChunkId, weight: u64) {
        self.remove(&key);
        self.tick += 1;
        self.held.insert(key, (self.tick, weight));
        self.order.insert(self.tick, key);
        self.weight += weight;
    }

    fn touch(&mut self, key: &ChunkId) {
        if let Some((at, _)) = self.held.get_mut(key) {
            self.tick += 1;
            self.order.remove(at);
            *at = self.tick;
            self.order.insert(self.tick, *key);
        }
    }

    fn remove(&mut self, key: &ChunkId) -> Option<u64> {
        let (at, weight) = self.held.remove(key)?;
        self.order.remove(&at);
        self.weight -= weight;
        Some(weight)
    }

    fn evict(&mut self) -> Option<(ChunkId, u64)> {
        let (_, &key) = self.order.first_key_value()?;
        self.remove(&key).map(|weight| (key, weight))
    }

    fn contains(&self, key: &ChunkId) -> bool {
        self.held.contains_key(key)
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn len(&self) -> usize {
        self.held.len()
    }
}
