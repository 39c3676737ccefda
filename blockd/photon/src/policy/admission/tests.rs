//! The rules by example, the laws by property, and a day of overload in simulated time.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const GIB: u64 = 1 << 30;

fn view(waiting: usize, sandboxes: &[SandboxView]) -> View<'_> {
    View {
        waiting,
        sandboxes,
        limit: 4,
        starts_under_way: sandboxes.iter().filter(|s| s.phase == Phase::Starting).count(),
        most_starts: 8,
        sandboxes_on_host: sandboxes.len(),
        most_sandboxes: 100,
        memory_bytes: 64 * GIB,
        sandbox_bytes: GIB,
        most_waiting: 10,
    }
}

fn sandbox(phase: Phase, in_flight: usize, limit: usize) -> SandboxView {
    SandboxView { phase, in_flight, limit }
}

fn start(count: usize) -> Decision {
    Decision::Start(NonZeroUsize::new(count).expect("not zero"))
}

#[test]
fn the_fullest_with_room_is_joined() {
    let sandboxes = [
        sandbox(Phase::Serving, 1, 4),
        sandbox(Phase::Serving, 3, 4),
        sandbox(Phase::Serving, 4, 4),
        sandbox(Phase::Closing, 3, 9),
        sandbox(Phase::Serving, 3, 4),
    ];
    assert_eq!(decide(&view(1, &sandboxes)), Decision::Join { sandbox: 1 });
    assert_eq!(decide(&view(0, &sandboxes)), Decision::Wait);
}

#[test]
fn starts_are_for_the_excess_and_within_every_bound() {
    let full = [sandbox(Phase::Serving, 4, 4)];
    assert_eq!(decide(&view(1, &[])), start(1));
    assert_eq!(decide(&view(4, &[])), start(1));
    assert_eq!(decide(&view(5, &full)), start(2));
    assert_eq!(decide(&view(1000, &[])), start(8));
    let memory = View { memory_bytes: 3 * GIB + 1, ..view(1000, &[]) };
    assert_eq!(decide(&memory), start(3));
    let number = View { most_sandboxes: 2, ..view(1000, &full) };
    assert_eq!(decide(&number), start(1));
    let starting = [sandbox(Phase::Starting, 0, 4)];
    assert_eq!(decide(&view(4, &starting)), Decision::Wait);
    assert_eq!(decide(&view(5, &starting)), start(1));
}

#[test]
fn with_nothing_to_serve_the_obstacle_is_named_at_once() {
    let closing = [sandbox(Phase::Closing, 2, 4)];
    let starts = View { starts_under_way: 8, ..view(1, &closing) };
    assert_eq!(decide(&starts), Decision::Refuse(Refusal::Starts { most_starts: 8 }));
    let memory = View { memory_bytes: GIB - 1, ..view(1, &[]) };
    assert_eq!(decide(&memory), Decision::Refuse(Refusal::Memory { needed: GIB, available: GIB - 1 }));
    let number = View { sandboxes_on_host: 100, ..view(1, &[]) };
    assert_eq!(decide(&number), Decision::Refuse(Refusal::Sandboxes { most_sandboxes: 100 }));
}

#[test]
fn a_bounded_number_waits_for_a_full_sandbox() {
    let full = [sandbox(Phase::Serving, 4, 4)];
    let at_bound = View { starts_under_way: 8, ..view(10, &full) };
    assert_eq!(decide(&at_bound), Decision::Wait);
    let over = View { waiting: 11, ..at_bound };
    assert_eq!(decide(&over), Decision::Refuse(Refusal::Queue { most_waiting: 10 }));
    // those with a slot on its way do not count
    let starting = [sandbox(Phase::Serving, 4, 4), sandbox(Phase::Starting, 0, 40)];
    assert_eq!(decide(&View { starts_under_way: 8, ..view(50, &starting) }), Decision::Wait);
}

#[test]
fn room_is_asked_for_what_is_missing_and_nothing_else() {
    let full = [sandbox(Phase::Serving, 4, 4)];
    let crowded = View { sandboxes_on_host: 100, most_sandboxes: 100, ..view(1, &full) };
    assert_eq!(blocked_by(&crowded), Some(Refusal::Sandboxes { most_sandboxes: 100 }));
    let tight = View { memory_bytes: 1, sandbox_bytes: 7, ..view(1, &[]) };
    assert_eq!(blocked_by(&tight), Some(Refusal::Memory { needed: 7, available: 1 }));
    // a slot is there or on its way, or idle sandboxes are not what is in the way
    let coming = [sandbox(Phase::Starting, 0, 1)];
    assert_eq!(blocked_by(&View { sandboxes: &coming, ..crowded }), None);
    let starts = View { starts_under_way: 8, most_starts: 8, ..view(1, &[]) };
    assert_eq!((blocked_by(&starts), blocked_by(&view(1, &[]))), (None, None));
}

/// Follows decisions until nothing is left to do. Returns sandboxes started and refused.
fn settle(view: &View<'_>) -> (usize, usize, Vec<SandboxView>, usize) {
    let mut sandboxes = view.sandboxes.to_vec();
    let (mut waiting, mut started, mut refused) = (view.waiting, 0, 0);
    loop {
        let now = View {
            waiting,
            sandboxes: &sandboxes,
            starts_under_way: view.starts_under_way + started,
            sandboxes_on_host: view.sandboxes_on_host + started,
            memory_bytes: view.memory_bytes - view.sandbox_bytes * u64::try_from(started).expect("small"),
            ..*view
        };
        match decide(&now) {
            Decision::Join { sandbox } => {
                sandboxes[sandbox].in_flight += 1;
                waiting -= 1;
            }
            Decision::Start(count) => {
                started += count.get();
                let new = SandboxView { phase: Phase::Starting, in_flight: 0, limit: view.limit.max(1) };
                sandboxes.extend(std::iter::repeat_n(new, count.get()));
            }
            Decision::Refuse(_) => {
                refused += 1;
                waiting -= 1;
            }
            Decision::Wait => return (started, refused, sandboxes, waiting),
        }
    }
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Starting), Just(Phase::Serving), Just(Phase::Closing)]
}

fn some_sandboxes() -> impl Strategy<Value = Vec<SandboxView>> {
    prop::collection::vec((phases(), 0usize..6, 0usize..8), 0..8).prop_map(|all| {
        all.into_iter()
            .map(|(phase, in_flight, limit)| {
                let in_flight = if phase == Phase::Starting { 0 } else { in_flight };
                sandbox(phase, in_flight, limit)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn n_cold_invocations_start_n_over_c(
        portions in prop::collection::vec(1usize..40, 1..20),
        limit in 1usize..70,
    ) {
        let mut sandboxes: Vec<SandboxView> = Vec::new();
        let mut waiting = 0;
        for portion in &portions {
            waiting += portion;
            let now = View { limit, most_starts: 10_000, most_sandboxes: 10_000, memory_bytes: u64::MAX,
                ..view(waiting, &sandboxes) };
            let (_, refused, after, still) = settle(&now);
            prop_assert_eq!(refused, 0);
            prop_assert_eq!(still, waiting);
            sandboxes = after;
        }
        prop_assert_eq!(sandboxes.len(), waiting.div_ceil(limit));
    }

    #[test]
    fn no_sandbox_too_many_and_no_slot_unused(
        sandboxes in some_sandboxes(), waiting in 0usize..60, limit in 1usize..9,
        starts in 0usize..20, most_starts in 0usize..20, memory_gib in 0u64..20, most_waiting in 0usize..40,
    ) {
        let base = View { limit, starts_under_way: starts, most_starts, memory_bytes: memory_gib * GIB,
            most_waiting, ..view(waiting, &sandboxes) };
        let (started, refused, after, still) = settle(&base);
        prop_assert!(started <= most_starts.saturating_sub(starts));
        prop_assert!(u64::try_from(started).expect("small") <= memory_gib);
        prop_assert!(after.iter().all(|s| s.phase != Phase::Serving || s.in_flight <= s.limit.max(6)));
        let on_their_way = slots(&after, Phase::Starting);
        if started > 0 {
            prop_assert!(on_their_way < waiting + limit, "one sandbox fewer would have done");
        }
        if still > 0 {
            prop_assert_eq!(slots(&after, Phase::Serving), 0, "somebody waits beside a free slot");
            prop_assert!(after.iter().any(|s| s.phase != Phase::Closing), "somebody waits for nothing");
            prop_assert!(still <= on_their_way + most_waiting);
        }
        if refused > 0 {
            prop_assert!(still >= on_their_way.min(waiting), "refused though a slot was on its way");
        }
    }

    #[test]
    fn more_means_are_never_worse(
        sandboxes in some_sandboxes(), waiting in 1usize..60, starts in 0usize..10,
        memory_gib in 0u64..12, most_waiting in 0usize..40, more in 1usize..10,
    ) {
        let less = View { starts_under_way: starts, memory_bytes: memory_gib * GIB, most_waiting,
            ..view(waiting, &sandboxes) };
        let (_, refused, ..) = settle(&less);
        let wide = u64::try_from(more).expect("small");
        for better in [
            View { memory_bytes: less.memory_bytes + wide * GIB, ..less },
            View { most_starts: less.most_starts + more, ..less },
            View { most_waiting: most_waiting + more, ..less },
            View { limit: less.limit + more, ..less },
        ] {
            prop_assert!(settle(&better).1 <= refused);
        }
        let (started, ..) = settle(&less);
        let (started_more, ..) = settle(&View { waiting: waiting + more, ..less });
        prop_assert!(started_more >= started);
    }
}

/// Open-loop arrivals, one each `gap` microseconds, to a host for `most_sandboxes` sandboxes
/// of four slots; an invocation takes 100 ms, a start 300 ms. Returns what was done per
/// second after the first two seconds and the longest time from arrival to answer.
fn simulate(gap: u64, most_waiting: usize) -> (u64, u64, u64) {
    const WORK: u64 = 100_000;
    const START: u64 = 300_000;
    const END: u64 = 12_000_000;
    const COUNTED_FROM: u64 = 2_000_000;
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Done { sandbox: usize, arrived: u64 },
        Ready { sandbox: usize },
        Arrival,
    }
    let mut events = BinaryHeap::from([Reverse((0, Event::Arrival))]);
    let mut sandboxes: Vec<SandboxView> = Vec::new();
    let mut queue: VecDeque<u64> = VecDeque::new();
    let (mut done, mut refused, mut slowest) = (0, 0, 0);
    while let Some(Reverse((now, event))) = events.pop() {
        if now > END {
            break;
        }
        match event {
            Event::Arrival => {
                queue.push_back(now);
                events.push(Reverse((now + gap, Event::Arrival)));
            }
            Event::Ready { sandbox } => sandboxes[sandbox].phase = Phase::Serving,
            Event::Done { sandbox, arrived } => {
                sandboxes[sandbox].in_flight -= 1;
                if now >= COUNTED_FROM {
                    done += 1;
                    slowest = slowest.max(now - arrived);
                }
            }
        }
        loop {
            let state =
                View { most_sandboxes: 5, most_starts: 2, most_waiting, ..view(queue.len(), &sandboxes) };
            match decide(&state) {
                Decision::Wait => break,
                Decision::Join { sandbox } => {
                    sandboxes[sandbox].in_flight += 1;
                    let arrived = queue.pop_front().expect("a join is for one who waits");
                    events.push(Reverse((now + WORK, Event::Done { sandbox, arrived })));
                }
                Decision::Start(count) => {
                    for _ in 0..count.get() {
                        events.push(Reverse((now + START, Event::Ready { sandbox: sandboxes.len() })));
                        sandboxes.push(sandbox(Phase::Starting, 0, 4));
                    }
                }
                Decision::Refuse(_) => {
                    // in the very call of its arrival: no time has passed
                    assert_eq!(queue.pop_back(), Some(now), "only the newest is refused, and at once");
                    refused += 1;
                }
            }
        }
    }
    (done / ((END - COUNTED_FROM) / 1_000_000), slowest, refused)
}

#[test]
fn goodput_is_flat_at_twice_the_capacity() {
    // five sandboxes of four slots at 100 ms each: 200 invocations a second
    let (full, _, none) = simulate(5_000, 20);
    let (twice, slowest, refused) = simulate(2_500, 20);
    let (tenfold, slowest_tenfold, _) = simulate(500, 20);
    assert!((198..=201).contains(&full), "{full}");
    assert!(none < 200, "at capacity only the start-up is refused: {none}");
    assert!((198..=201).contains(&twice), "{twice}");
    assert!((198..=201).contains(&tenfold), "{tenfold}");
    assert!((2350..=2600).contains(&refused), "{refused}");
    // twenty wait for twenty slots: one round of waiting, one of work
    assert!(slowest <= 210_000 && slowest_tenfold <= 210_000, "{slowest} {slowest_tenfold}");
}
