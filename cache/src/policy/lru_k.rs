//! LRU-2 (O'Neil et al. 1993): the key whose last but one reference lies furthest back goes
//! first. Keys referenced once go before all others, the oldest first, so a scan passes
//! through without disturbing what is used again. The history of evicted keys is kept for
//! a while, so that a key that comes back is recognised.

use super::Policy;
use image_format::ids::ChunkId;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// References closer together than this many others count as one: a start reads a chunk in
/// many small pieces, which says nothing of its future.
const CORRELATED: u64 = 16;

/// History entries kept per key that would fit the tier at this size in bytes.
const HISTORY_GRAIN: u64 = 128 * 1024;

#[derive(Debug, Clone, Copy, Default)]
struct References {
    last: u64,
    /// 0 while there was only one.
    last_but_one: u64,
}

impl References {
    fn again(&mut self, tick: u64) {
        if tick - self.last > CORRELATED {
            self.last_but_one = self.last;
        }
        self.last = tick;
    }
}

/// LRU-2.
#[derive(Debug)]
pub struct LruK {
    tick: u64,
    weight: u64,
    held: HashMap<ChunkId, (References, u64)>,
    order: BTreeSet<(u64, u64, ChunkId)>,
    history: HashMap<ChunkId, References>,
    forgotten: VecDeque<ChunkId>,
    history_limit: usize,
}

impl LruK {
    /// A policy for a tier of `capacity` bytes; the capacity bounds the history.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            tick: 0,
            weight: 0,
            held: HashMap::new(),
            order: BTreeSet::new(),
            history: HashMap::new(),
            forgotten: VecDeque::new(),
            history_limit: usize::try_from(capacity / HISTORY_GRAIN).unwrap_or(usize::MAX).clamp(64, 1 << 20),
        }
    }

    fn rank(key: ChunkId, references: References) -> (u64, u64, ChunkId) {
        (references.last_but_one, references.last, key)
    }
}

impl Policy for LruK {
    fn insert(&mut self, key: ChunkId, weight: u64) {
        self.remove(&key);
        self.tick += 1;
        let mut references = self.history.remove(&key).unwrap_or_default();
        if references.last == 0 {
            references.last = self.tick;
        } else {
            references.again(self.tick);
        }
        self.order.insert(Self::rank(key, references));
        self.held.insert(key, (references, weight));
        self.weight += weight;
    }

    fn touch(&mut self, key: &ChunkId) {
        if let Some((references, _)) = self.held.get_mut(key) {
            self.tick += 1;
            self.order.remove(&Self::rank(*key, *references));
            references.again(self.tick);
            self.order.insert(Self::rank(*key, *references));
        }
    }

    fn remove(&mut self, key: &ChunkId) -> Option<u64> {
        let (references, weight) = self.held.remove(key)?;
        self.order.remove(&Self::rank(*key, references));
        self.weight -= weight;
        Some(weight)
    }

    fn evict(&mut self) -> Option<(ChunkId, u64)> {
        let &(_, _, key) = self.order.first()?;
        let references = self.held.get(&key)?.0;
        if self.history.insert(key, references).is_none() {
            self.forgotten.push_back(key);
        }
        while self.forgotten.len() > self.history_limit {
            if let Some(oldest) = self.forgotten.pop_front() {
                self.history.remove(&oldest);
            }
        }
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
