//! The policies against slow, obvious oracles, and what all of them promise.

use super::*;
use proptest::prelude::*;

fn key(n: u16) -> ChunkId {
    ChunkId::of(&n.to_le_bytes())
}

/// What a test does to a policy.
#[derive(Debug, Clone)]
enum Op {
    Insert(u16, u64),
    Touch(u16),
    Remove(u16),
    Evict,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0u16..30, 0u64..50).prop_map(|(k, w)| Op::Insert(k, w)),
        3 => (0u16..30).prop_map(Op::Touch),
        1 => (0u16..30).prop_map(Op::Remove),
        1 => Just(Op::Evict),
    ];
    proptest::collection::vec(op, 0..200)
}

/// A list in order of use.
#[derive(Default)]
struct ObviousLru(Vec<(ChunkId, u64)>);

impl ObviousLru {
    fn apply(&mut self, op: &Op) -> Option<(ChunkId, u64)> {
        match *op {
            Op::Insert(k, w) => {
                self.0.retain(|&(held, _)| held != key(k));
                self.0.push((key(k), w));
            }
            Op::Touch(k) => {
                if let Some(at) = self.0.iter().position(|&(held, _)| held == key(k)) {
                    let entry = self.0.remove(at);
                    self.0.push(entry);
                }
            }
            Op::Remove(k) => self.0.retain(|&(held, _)| held != key(k)),
            Op::Evict if !self.0.is_empty() => return Some(self.0.remove(0)),
            Op::Evict => {}
        }
        None
    }
}

/// SIEVE as its paper writes it: a list, newest first, and a hand that walks to its head.
#[derive(Default)]
struct ObviousSieve {
    list: Vec<(ChunkId, u64, bool)>,
    /// The key the hand points at.
    hand: Option<ChunkId>,
}

impl ObviousSieve {
    fn at(&self, key: ChunkId) -> Option<usize> {
        self.list.iter().position(|&(held, _, _)| held == key)
    }

    fn remove(&mut self, key: ChunkId) -> Option<(ChunkId, u64)> {
        let at = self.at(key)?;
        if self.hand == Some(key) {
            self.hand = at.checked_sub(1).map(|newer| self.list[newer].0);
        }
        let (key, weight, _) = self.list.remove(at);
        Some((key, weight))
    }

    fn apply(&mut self, op: &Op) -> Option<(ChunkId, u64)> {
        match *op {
            Op::Insert(k, w) => {
                self.remove(key(k));
                self.list.insert(0, (key(k), w, false));
            }
            Op::Touch(k) => {
                if let Some(at) = self.at(key(k)) {
                    self.list[at].2 = true;
                }
            }
            Op::Remove(k) => drop(self.remove(key(k))),
            Op::Evict => {
                let mut at = self.hand.and_then(|hand| self.at(hand)).or(self.list.len().checked_sub(1))?;
                while self.list[at].2 {
                    self.list[at].2 = false;
                    at = at.checked_sub(1).unwrap_or(self.list.len() - 1);
                }
                self.hand = Some(self.list[at].0);
                return self.remove(self.list[at].0);
            }
        }
        None
    }
}

fn apply(policy: &mut dyn Policy, op: &Op) -> Option<(ChunkId, u64)> {
    match *op {
        Op::Insert(k, w) => policy.insert(key(k), w),
        Op::Touch(k) => policy.touch(&key(k)),
        Op::Remove(k) => drop(policy.remove(&key(k))),
        Op::Evict => return policy.evict(),
    }
    None
}

/// Hit ratio of a tier of `capacity` unit chunks on a trace, over the keys that `counts`.
fn hit_ratio(kind: PolicyKind, capacity: u64, trace: &[u16], counts: impl Fn(u16) -> bool) -> f64 {
    const CHUNK: u64 = 512 * 1024;
    let mut policy = kind.build(capacity * CHUNK);
    let (mut hits, mut total) = (0_u32, 0_u32);
    for &k in trace {
        let hit = policy.contains(&key(k));
        if counts(k) {
            total += 1;
            hits += u32::from(hit);
        }
        if hit {
            policy.touch(&key(k));
            continue;
        }
        while policy.weight() + CHUNK > capacity * CHUNK {
            policy.evict().expect("a full policy holds something");
        }
        policy.insert(key(k), CHUNK);
    }
    f64::from(hits) / f64::from(total)
}

/// A hot set in use all the time, and now and then a scan over keys seen once.
fn storm() -> Vec<u16> {
    let mut trace = Vec::new();
    let mut cold = 1000;
    for round in 0..200_u16 {
        trace.extend((0..40).map(|i| (i * 7 + round) % 40));
        if round % 5 == 4 {
            trace.extend(cold..cold + 150);
            cold += 150;
        }
    }
    trace
}

#[test]
fn scans_hurt_lru_and_spare_the_others() {
    let hot = |kind| hit_ratio(kind, 60, &storm(), |k| k < 40);
    assert!(hot(PolicyKind::Lru) < 0.85, "lru {}", hot(PolicyKind::Lru));
    assert!(hot(PolicyKind::LruK) > 0.95, "lru-k {}", hot(PolicyKind::LruK));
    assert!(hot(PolicyKind::S3Fifo) > 0.95, "s3-fifo {}", hot(PolicyKind::S3Fifo));
}

proptest! {
    #[test]
    fn lru_is_the_obvious_one(ops in ops()) {
        let (mut policy, mut oracle) = (Lru::new(), ObviousLru::default());
        for op in &ops {
            prop_assert_eq!(apply(&mut policy, op), oracle.apply(op));
            prop_assert_eq!(policy.len(), oracle.0.len());
        }
    }

    #[test]
    fn sieve_is_the_obvious_one(ops in ops()) {
        let (mut policy, mut oracle) = (Sieve::new(), ObviousSieve::default());
        for op in &ops {
            prop_assert_eq!(apply(&mut policy, op), oracle.apply(op));
            prop_assert_eq!(policy.len(), oracle.list.len());
        }
    }

    #[test]
    fn every_policy_keeps_its_promises(ops in ops()) {
        for kind in PolicyKind::ALL {
            let mut policy = kind.build(1000);
            let mut held = std::collections::HashMap::new();
            for op in &ops {
                let evicted = apply(&mut *policy, op);
                match *op {
                    Op::Insert(k, w) => drop(held.insert(key(k), w)),
                    Op::Remove(k) => drop(held.remove(&key(k))),
                    Op::Touch(_) => {}
                    Op::Evict => {
                        prop_assert_eq!(evicted.is_none(), held.is_empty());
                        if let Some((k, w)) = evicted {
                            prop_assert_eq!(held.remove(&k), Some(w));
                        }
                    }
                }
                prop_assert_eq!(policy.len(), held.len());
                prop_assert_eq!(policy.weight(), held.values().sum::<u64>());
            }
            while policy.evict().is_some() {}
            prop_assert!(policy.is_empty());
        }
    }
}
