//! S3-FIFO (Yang et al., SOSP'23): new keys wait in a small queue; only those hit again
//! there, or remembered from before, reach the main queue. What a scan brings leaves
//! through the small queue.

use super::Policy;
use image_format::ids::ChunkId;
use std::collections::{HashMap, HashSet, VecDeque};

/// The small queue's share of the capacity: a tenth, as published.
const SMALL_DIVISOR: u64 = 10;
/// Hits counted per key at most, as published.
const MAX_HITS: u8 = 3;
/// Ghost entries per key that would fit the tier at this size in bytes.
const GHOST_GRAIN: u64 = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
}

#[derive(Debug)]
struct Held {
    weight: u64,
    hits: u8,
    queue: Queue,
    /// Tells the key's place in a queue from stale ones left by removals.
    ticket: u64,
}

/// S3-FIFO.
#[derive(Debug)]
pub struct S3Fifo {
    small_target: u64,
    small_weight: u64,
    main_weight: u64,
    ticket: u64,
    held: HashMap<ChunkId, Held>,
    small: VecDeque<(ChunkId, u64)>,
    main: VecDeque<(ChunkId, u64)>,
    ghost: HashSet<ChunkId>,
    ghost_order: VecDeque<ChunkId>,
    ghost_limit: usize,
}

impl S3Fifo {
    /// A policy for a tier of `capacity` bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            small_target: capacity / SMALL_DIVISOR,
            small_weight: 0,
            main_weight: 0,
            ticket: 0,
            held: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: HashSet::new(),
            ghost_order: VecDeque::new(),
            ghost_limit: usize::try_from(capacity / GHOST_GRAIN).unwrap_or(usize::MAX).clamp(64, 1 << 20),
        }
    }

    fn push(&mut self, key: ChunkId, weight: u64, queue: Queue, hits: u8) {
        self.ticket += 1;
        self.held.insert(key, Held { weight, hits, queue, ticket: self.ticket });
        match queue {
            Queue::Small => {
                self.small_weight += weight;
                self.small.push_back((key, self.ticket));
            }
            Queue::Main => {
                self.main_weight += weight;
                self.main.push_back((key, self.ticket));
            }
        }
    }

    /// The oldest key of a queue, taken out of everything; stale places are passed over.
    fn pop(&mut self, queue: Queue) -> Option<(ChunkId, Held)> {
        loop {
            let (key, ticket) = match queue {
                Queue::Small => self.small.pop_front()?,
                Queue::Main => self.main.pop_front()?,
            };
            if self.held.get(&key).is_some_and(|held| held.ticket == ticket) {
                return self.take(&key).map(|held| (key, held));
            }
        }
    }

    fn take(&mut self, key: &ChunkId) -> Option<Held> {
        let held = self.held.remove(key)?;
        match held.queue {
            Queue::Small => self.small_weight -= held.weight,
            Queue::Main => self.main_weight -= held.weight,
        }
        Some(held)
    }

    fn remember(&mut self, key: ChunkId) {
        if self.ghost.insert(key) {
            self.ghost_order.push_back(key);
        }
        while self.ghost_order.len() > self.ghost_limit {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghost.remove(&oldest);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn insert(&mut self, key: ChunkId, weight: u64) {
        self.remove(&key);
        let queue = if self.ghost.contains(&key) { Queue::Main } else { Queue::Small };
        self.push(key, weight, queue, 0);
        // removals leave stale places behind; their number stays below that of held keys
        if self.small.len() + self.main.len() > 2 * self.held.len() + 64 {
            let held = &self.held;
            let alive = |&(key, ticket): &(ChunkId, u64)| held.get(&key).is_some_and(|h| h.ticket == ticket);
            self.small.retain(alive);
            self.main.retain(alive);
        }
    }

    fn touch(&mut self, key: &ChunkId) {
        if let Some(held) = self.held.get_mut(key) {
            held.hits = (held.hits + 1).min(MAX_HITS);
        }
    }

    fn remove(&mut self, key: &ChunkId) -> Option<u64> {
        self.take(key).map(|held| held.weight)
    }

    fn evict(&mut self) -> Option<(ChunkId, u64)> {
        loop {
            if self.small_weight > self.small_target || self.main_weight == 0 {
                if let Some((key, held)) = self.pop(Queue::Small) {
                    if held.hits > 0 {
                        self.push(key, held.weight, Queue::Main, 0);
                        continue;
                    }
                    self.remember(key);
                    return Some((key, held.weight));
                }
                if self.main_weight == 0 && self.held.is_empty() {
                    return None;
                }
            }
            let (key, held) = self.pop(Queue::Main).or_else(|| self.pop(Queue::Small))?;
            if held.hits > 0 {
                self.push(key, held.weight, Queue::Main, held.hits - 1);
                continue;
            }
            return Some((key, held.weight));
        }
    }

    fn contains(&self, key: &ChunkId) -> bool {
        self.held.contains_key(key)
    }

    fn weight(&self) -> u64 {
        self.small_weight + self.main_weight
    }

    fn len(&self) -> usize {
        self.held.len()
    }
}
