//! SIEVE (Zhang et al., NSDI'24): one queue in order of insertion and a hand that walks it
//! from the oldest to the newest. A hit sets a mark; the hand clears marks and evicts the
//! first key without one. Survivors stay where they are, so new keys are judged soon.
//!
//! Invariants: the list from `newest` over `older` holds exactly the keys of `places`; the
//! hand is a place of the list or none. Every operation is O(1), eviction amortised: each
//! step of the hand clears a mark that a hit has set.

use super::Policy;
use image_format::ids::ChunkId;
use std::collections::HashMap;

#[derive(Debug)]
struct Entry {
    key: ChunkId,
    weight: u64,
    visited: bool,
    newer: Option<usize>,
    older: Option<usize>,
}

/// SIEVE.
#[derive(Debug, Default)]
pub struct Sieve {
    weight: u64,
    places: HashMap<ChunkId, usize>,
    /// Linked by position; unlinked entries are listed in `free` and used again.
    entries: Vec<Entry>,
    free: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    hand: Option<usize>,
}

impl Sieve {
    /// An empty policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn link(&mut self, key: ChunkId, weight: u64) {
        let entry = Entry { key, weight, visited: false, newer: None, older: self.newest };
        let place = if let Some(place) = self.free.pop() {
            self.entries[place] = entry;
            place
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        match self.newest {
            Some(before) => self.entries[before].newer = Some(place),
            None => self.oldest = Some(place),
        }
        self.newest = Some(place);
        self.places.insert(key, place);
        self.weight += weight;
    }

    /// Takes an entry out; a hand that stood on it moves on to the next newer one.
    fn unlink(&mut self, place: usize) -> (ChunkId, u64) {
        let Entry { key, weight, newer, older, .. } = self.entries[place];
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.oldest = newer,
        }
        if self.hand == Some(place) {
            self.hand = newer;
        }
        self.places.remove(&key);
        self.free.push(place);
        self.weight -= weight;
        (key, weight)
    }
}

impl Policy for Sieve {
    fn insert(&mut self, key: ChunkId, weight: u64) {
        self.remove(&key);
        self.link(key, weight);
    }

    fn touch(&mut self, key: &ChunkId) {
        if let Some(&place) = self.places.get(key) {
            self.entries[place].visited = true;
        }
    }

    fn remove(&mut self, key: &ChunkId) -> Option<u64> {
        let place = *self.places.get(key)?;
        Some(self.unlink(place).1)
    }

    fn evict(&mut self) -> Option<(ChunkId, u64)> {
        let mut place = self.hand.or(self.oldest)?;
        // ends within one round: behind the hand no mark is left
        while std::mem::take(&mut self.entries[place].visited) {
            place = self.entries[place].newer.or(self.oldest)?;
        }
        self.hand = Some(place);
        Some(self.unlink(place))
    }

    fn contains(&self, key: &ChunkId) -> bool {
        self.places.contains_key(key)
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn len(&self) -> usize {
        self.places.len()
    }
}
