//! The order of eviction by example, and what it frees by property.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// Now, with some past before it.
fn present() -> (Instant, Instant) {
    let begun = Instant::now();
    (begun, begun + Duration::from_secs(10_000))
}

fn idle(since: Instant, mib: u64, start_ms: u64) -> IdleSandbox {
    IdleSandbox { idle_since: since, memory_bytes: mib * MIB, start: Duration::from_millis(start_ms) }
}

#[test]
fn fixed_is_the_same_for_all() {
    let function = FunctionKey { tenant: "t".into(), name: "f".into() };
    let mut policy = FixedKeepAlive::default();
    let now = Instant::now();
    policy.invoked(&function, now);
    let windows = policy.idle(&function, now);
    assert_eq!(windows, Windows { keep: Duration::from_secs(600), prewarm: None });
    policy.forget(&function);
    let mut other: Box<dyn KeepAlive> = Box::new(FixedKeepAlive::new(Duration::from_secs(1200)));
    assert_eq!(other.idle(&function, now).keep, Duration::from_secs(1200));
}

#[test]
fn what_wastes_most_goes_first() {
    let (begun, now) = present();
    let ago = |seconds| now - Duration::from_secs(seconds);
    // all else equal: the oldest, the largest, the cheapest to start
    let by_age = [idle(ago(10), 100, 300), idle(ago(30), 100, 300), idle(ago(20), 100, 300)];
    assert_eq!(evict(&by_age, 150 * MIB, now), [1, 2]);
    let by_size = [idle(ago(10), 100, 300), idle(ago(10), 300, 300)];
    assert_eq!(evict(&by_size, 1, now), [1]);
    let by_start = [idle(ago(10), 100, 5000), idle(ago(10), 100, 300)];
    assert_eq!(evict(&by_start, 1, now), [1]);
    // a model that takes long to load outlives an empty runtime of half its idle time
    let weighed = [idle(ago(60), 250, 8000), idle(ago(30), 50, 300)];
    assert_eq!(evict(&weighed, 1, now), [1]);
    // but not for ever
    let stale = [idle(ago(600), 250, 8000), idle(ago(30), 50, 300)];
    assert_eq!(evict(&stale, 1, now), [0]);
    // equal in all: the first
    assert_eq!(evict(&[idle(begun, 1, 1); 3], 1, now), [0]);
}

#[test]
fn small_ones_are_spared_where_a_large_one_must_go_anyway() {
    let (_, now) = present();
    let ago = |seconds| now - Duration::from_secs(seconds);
    let candidates = [idle(ago(5000), 10, 300), idle(ago(10), 1000, 300)];
    assert_eq!(evict(&candidates, 900 * MIB, now), [1]);
    assert_eq!(evict(&candidates, 1001 * MIB, now), [0, 1]);
    assert_eq!(evict(&candidates, 5000 * MIB, now), [0, 1], "all there is");
    assert!(evict(&candidates, 0, now).is_empty());
    assert!(evict(&[idle(ago(9), 0, 1)], 1, now).is_empty(), "would free nothing");
}

#[test]
fn an_idle_time_in_the_future_is_none() {
    let (begun, now) = present();
    let candidates = [idle(now, 100, 300), idle(begun, 100, 300)];
    assert_eq!(evict(&candidates, 1, begun), [1]);
}

fn some_candidates(begun: Instant) -> impl Strategy<Value = Vec<IdleSandbox>> {
    let one = (0u64..10_000, 0u64..500, 0u64..9000);
    prop::collection::vec(
        one.prop_map(move |(since, mib, start)| idle(begun + Duration::from_secs(since), mib, start)),
        0..30,
    )
}

proptest! {
    #[test]
    fn enough_is_freed_and_nothing_needlessly(
        candidates in some_candidates(present().0), needed_mib in 0u64..4000,
    ) {
        let now = candidates.iter().map(|c| c.idle_since).max().unwrap_or_else(Instant::now);
        let needed = needed_mib * MIB;
        let going = evict(&candidates, needed, now);
        let bytes = |all: &[usize]| all.iter().map(|index| candidates[*index].memory_bytes).sum::<u64>();
        let held: u64 = candidates.iter().map(|c| c.memory_bytes).sum();
        prop_assert!(bytes(&going) >= needed.min(held));
        for index in &going {
            let without = bytes(&going) - candidates[*index].memory_bytes;
            prop_assert!(without < needed, "{} could have stayed", index);
        }
        let mut unique = going.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(unique.len(), going.len());
    }

    #[test]
    fn enough_go_of_both_and_each_once(
        candidates in some_candidates(present().0), needed_mib in 0u64..4000, sandboxes in 0usize..30,
    ) {
        let now = candidates.iter().map(|c| c.idle_since).max().unwrap_or_else(Instant::now);
        let going = make_room(&candidates, needed_mib * MIB, sandboxes, now);
        let bytes: u64 = going.iter().map(|index| candidates[*index].memory_bytes).sum();
        let held: u64 = candidates.iter().map(|c| c.memory_bytes).sum();
        prop_assert!(bytes >= held.min(needed_mib * MIB));
        prop_assert!(going.len() >= sandboxes.min(candidates.len()));
        let by_memory = evict(&candidates, needed_mib * MIB, now).len();
        prop_assert_eq!(going.len(), by_memory.max(sandboxes.min(candidates.len())));
        let unique: std::collections::BTreeSet<_> = going.iter().collect();
        prop_assert_eq!(unique.len(), going.len());
    }
}
