//! The estimator against synthetic functions: the five of the paper (table 1), with noise,
//! drift, leaks and nonsense; the guard against functions that bear neighbours well or badly.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// A function as it would be.
#[derive(Debug, Clone, Copy)]
struct Workload {
    base: f64,
    increment: f64,
    cpu: f64,
}

/// Sleep, REST, Hash, Classify, Video: MB without invocations, MB of each, CPUs of each.
const PAPER: [Workload; 5] = [
    Workload { base: 49.0, increment: 1.0, cpu: 0.1 },
    Workload { base: 56.0, increment: 1.5, cpu: 0.1 },
    Workload { base: 127.0, increment: 3.5, cpu: 0.2 },
    Workload { base: 248.0, increment: 29.0, cpu: 0.7 },
    Workload { base: 160.0, increment: 120.0, cpu: 1.0 },
];

/// Chance from a seed: xorshift, uniform in 0..1.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 40).expect("24 bits")) / f64::from(1u32 << 24)
    }
}

fn mib(value: f64) -> u64 {
    whole_mib(value * 1_048_576.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn whole_mib(bytes: f64) -> u64 {
    bytes.max(1.0) as u64
}

/// Runs `sandboxes` of a workload one after the other, each up and down to `most` invocations
/// with samples each second, which are low by up to `noise` of the part that invocations add.
fn run(
    estimator: &mut Estimator,
    workload: Workload,
    sandboxes: u64,
    most: usize,
    shrinks: bool,
    noise: f64,
    begun: Instant,
) -> Instant {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut now = begun;
    for sandbox in 0..sandboxes {
        let mut peak: f64 = 0.0;
        for step in 0..=2 * most {
            let in_flight = if step <= most { step } else { 2 * most - step };
            for _ in 0..5 {
                now += Duration::from_secs(1);
                let load = f64::from(u32::try_from(in_flight).expect("small"));
                let need = workload.base + workload.increment * load * (1.0 - noise * chance.next());
                peak = peak.max(need);
                let seen = if shrinks { need } else { peak };
                estimator.observe_memory(sandbox, in_flight, mib(seen), now);
            }
        }
        estimator.forget_sandbox(sandbox);
    }
    now
}

fn invocation(cpu: f64, wall: f64, in_flight: usize) -> InvocationSample {
    InvocationSample {
        cpu: Duration::from_secs_f64(cpu),
        wall: Duration::from_secs_f64(wall),
        in_flight_at_start: in_flight,
        in_flight_at_end: in_flight,
        host_saturated: false,
    }
}

#[track_caller]
fn close(found: u64, expected: f64, error: f64, what: &str) {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let found = found as f64 / 1_048_576.0;
    assert!((found - expected).abs() <= error, "{what}: {found:.2} MiB, not {expected:.2} ± {error:.2}");
}

#[test]
fn the_papers_workloads_are_found_with_and_without_noise() {
    for workload in PAPER {
        for shrinks in [true, false] {
            for noise in [0.0, 0.3] {
                let mut estimator = Estimator::new(Settings::default());
                run(&mut estimator, workload, 3, 8, shrinks, noise, Instant::now());
                let estimate = estimator.estimate();
                assert_eq!((estimate.confidence, estimate.highest_in_flight), (Confidence::Good, 8));
                // an increment within 15 % (with its noise of up to 30 %), a base within 5 % and
                // one increment
                close(
                    estimate.increment_bytes,
                    workload.increment,
                    0.15 * workload.increment + 0.01,
                    "increment",
                );
                close(estimate.base_bytes, workload.base, 0.05 * workload.base + workload.increment, "base");
                // what the limit rests on: eight invocations, and twice as many as ever seen
                for in_flight in [8u32, 16] {
                    let need = workload.base + workload.increment * f64::from(in_flight);
                    let in_flight = usize::try_from(in_flight).expect("small");
                    close(estimate.bytes_with(in_flight), need, 0.1 * need, "need");
                }
            }
        }
    }
}

#[test]
fn memory_limits_are_what_the_paper_computes() {
    let limits = PAPER.map(|workload| {
        let mut estimator = Estimator::new(Settings { most: 1000, first_guess: 1000, ..Settings::default() });
        run(&mut estimator, workload, 2, 8, true, 0.0, Instant::now());
        estimator.limit(&Budget { memory_bytes: Some(1024 * MIB), ..Budget::default() })
    });
    // (921.6 - base) / increment
    for (limit, expected) in limits.into_iter().zip([872, 577, 227, 23, 6]) {
        assert!(limit.abs_diff(expected) <= 1 + expected / 50, "{limits:?}: {limit}, not {expected}");
    }
    let mut video = Estimator::new(Settings::default());
    run(&mut video, PAPER[4], 2, 3, true, 0.0, Instant::now());
    let small = Budget { memory_bytes: Some(64 * MIB), ..Budget::default() };
    assert_eq!(video.limit(&small), 1, "never below one");
}

#[test]
fn only_a_sandboxs_own_cpu_limit_counts() {
    for (workload, carried) in PAPER.iter().zip([20, 20, 10, 2, 2]) {
        let mut estimator = Estimator::new(Settings::default());
        let now = Instant::now();
        let own = Budget { declared: Some(50), cpu_millis: Some(2000), ..Budget::default() };
        assert_eq!(estimator.limit(&own), 50, "nothing measured");
        for _ in 0..20 {
            estimator.observe_invocation(&invocation(workload.cpu, 1.0, 1), now);
        }
        assert_eq!(estimator.limit(&own), carried);
        assert_eq!(estimator.limit(&Budget { cpu_millis: None, ..own }), 50);
        let estimate = estimator.estimate();
        assert!((estimate.busy_fraction - workload.cpu).abs() < 1e-9);
        assert_eq!(estimate.cpu_per_invocation, Duration::from_secs_f64(workload.cpu));
    }
    // throttled among many, it looks idle; the few say how busy it really is
    let mut estimator = Estimator::new(Settings::default());
    for _ in 0..20 {
        estimator.observe_invocation(&invocation(1.0, 1.0, 1), Instant::now());
        estimator.observe_invocation(&invocation(1.0, 8.0, 16), Instant::now());
    }
    assert!((estimator.estimate().busy_fraction - 1.0).abs() < 1e-9);
}

#[test]
fn the_first_limit_is_the_declared_one_or_the_guess() {
    let mut estimator = Estimator::new(Settings::default());
    let limited = Budget { memory_bytes: Some(128 * MIB), cpu_millis: Some(100), ..Budget::default() };
    assert_eq!(estimator.limit(&limited), 8);
    assert_eq!(estimator.limit(&Budget { declared: Some(40), ..limited }), 40);
    assert_eq!(estimator.limit(&Budget { declared: Some(1), ..limited }), 1);
    assert_eq!(estimator.limit(&Budget { declared: Some(0), ..limited }), 1);
    // an empty sandbox says nothing about what an invocation adds
    estimator.observe_memory(1, 0, 100 * MIB, Instant::now());
    assert_eq!(estimator.limit(&Budget { declared: Some(40), ..limited }), 40);
    assert_eq!(estimator.estimate().confidence, Confidence::Low);
}

#[test]
fn an_empty_and_a_full_sandbox_are_enough_for_a_line() {
    let mut estimator = Estimator::new(Settings::default());
    let now = Instant::now();
    estimator.observe_memory(1, 0, 50 * MIB, now);
    estimator.observe_memory(1, 16, 82 * MIB, now + Duration::from_secs(1));
    let estimate = estimator.estimate();
    close(estimate.base_bytes, 50.0, 0.1, "base");
    close(estimate.increment_bytes, 2.0, 0.1, "increment");
    assert_eq!(estimate.confidence, Confidence::Low);
}

#[test]
fn what_fitted_once_is_not_computed_away() {
    let mut estimator = Estimator::new(Settings::default());
    let now = Instant::now();
    // one number of invocations only: the increment is a bound that is far too high
    for second in 0..20 {
        estimator.observe_memory(1, 32, 200 * MIB, now + Duration::from_secs(second));
    }
    let budget = Budget { declared: Some(64), memory_bytes: Some(256 * MIB), ..Budget::default() };
    assert!(estimator.limit(&budget) >= 32);
}

#[test]
fn a_bound_from_one_number_is_not_held_against_an_owners_word() {
    let mut estimator = Estimator::new(Settings::default());
    let now = Instant::now();
    let undeclared = Budget { memory_bytes: Some(256 * MIB), ..Budget::default() };
    let declared = Budget { declared: Some(64), ..undeclared };
    // is it the sandbox or the invocation that needs this much?
    estimator.observe_memory(1, 1, 200 * MIB, now);
    assert_eq!((estimator.limit(&declared), estimator.limit(&undeclared)), (64, 1));
    estimator.observe_memory(2, 0, 190 * MIB, now);
    assert!((3..5).contains(&estimator.limit(&declared)), "the invocation needs 10 MiB");
    estimator.forget_memory();
    assert_eq!(estimator.limit(&declared), 64);
}

#[test]
fn a_change_of_the_function_is_followed() {
    let mut estimator = Estimator::new(Settings::default());
    let small = Workload { base: 50.0, increment: 2.0, cpu: 0.1 };
    let large = Workload { base: 80.0, increment: 10.0, cpu: 0.1 };
    let now = run(&mut estimator, small, 10, 8, true, 0.1, Instant::now());
    let now = run(&mut estimator, large, 10, 8, true, 0.1, now);
    close(estimator.estimate().increment_bytes, 10.0, 2.0, "grown");
    run(&mut estimator, small, 10, 8, true, 0.1, now);
    close(estimator.estimate().increment_bytes, 2.0, 0.5, "shrunk");
    // also within the life of one sandbox
    let mut estimator = Estimator::new(Settings::default());
    let mut now = Instant::now();
    for (increment, rounds) in [(10.0, 30), (2.0, 300)] {
        for round in 0..rounds {
            now += Duration::from_secs(5);
            let in_flight: u32 = [0, 4, 8, 8][round % 4];
            let bytes = mib(50.0 + increment * f64::from(in_flight));
            estimator.observe_memory(7, usize::try_from(in_flight).expect("small"), bytes, now);
        }
    }
    close(estimator.estimate().bytes_with(8), 66.0, 7.0, "need");
}

#[test]
fn a_leak_is_told_and_not_learned() {
    let mut estimator = Estimator::new(Settings::default());
    let workload = Workload { base: 100.0, increment: 5.0, cpu: 0.1 };
    let mut now = run(&mut estimator, workload, 4, 8, true, 0.0, Instant::now());
    let before = estimator.estimate();
    assert_eq!(before.leak_bytes_per_s, 0);
    for second in 0..3600u32 {
        now += Duration::from_secs(1);
        let in_flight = 8 - usize::try_from(second / 7 % 5).expect("small");
        let load = f64::from(u32::try_from(in_flight).expect("small"));
        estimator.observe_memory(99, in_flight, mib(100.0 + 5.0 * load + 0.1 * f64::from(second)), now);
    }
    let after = estimator.estimate();
    close(after.leak_bytes_per_s, 0.1, 0.01, "leak");
    close(after.bytes_with(8), 140.0, 14.0, "need of eight");
    estimator.forget_sandbox(99);
    assert_eq!(estimator.estimate().leak_bytes_per_s, 0);
}

#[test]
fn a_heap_that_grows_for_a_while_and_stops_is_learned() {
    let mut estimator = Estimator::new(Settings::default());
    let begun = Instant::now();
    for second in 0..3000u32 {
        let heap = 100.0 + 0.5 * f64::from(second.min(600));
        estimator.observe_memory(1, 4, mib(heap), begun + Duration::from_secs(second.into()));
    }
    assert_eq!(estimator.estimate().leak_bytes_per_s, 0);
    close(estimator.estimate().bytes_with(4), 400.0, 1.0, "plateau");
}

#[test]
fn an_estimate_that_breathes_does_not_move_the_limit() {
    let mut estimator = Estimator::new(Settings { first_guess: 500, most: 500, ..Settings::default() });
    let budget = Budget { memory_bytes: Some(512 * MIB), ..Budget::default() };
    let mut now = run(&mut estimator, PAPER[2], 8, 8, true, 0.05, Instant::now());
    let mut limits = vec![estimator.limit(&budget)];
    for _ in 0..20 {
        now = run(&mut estimator, PAPER[2], 1, 8, true, 0.05, now);
        limits.push(estimator.limit(&budget));
    }
    let (least, most) = (limits.iter().min().expect("some"), limits.iter().max().expect("some"));
    assert!(most - least <= least / 10, "{limits:?}");
}

/// Feeds rounds of invocations at loads from 1 to the limit in force, whose time grows by
/// `slope` with each neighbour; returns the limit after each round.
fn guarded(
    estimator: &mut Estimator,
    budget: &Budget,
    rounds: usize,
    slope: f64,
    begun: Instant,
) -> Vec<usize> {
    let mut chance = Chance(42);
    let mut now = begun;
    let mut limits = Vec::new();
    for _ in 0..rounds {
        let limit = estimator.limit(budget);
        for load in [1, limit] {
            for _ in 0..20 {
                now += Duration::from_millis(100);
                let neighbours = f64::from(u32::try_from(load - 1).expect("small"));
                let wall = 0.050 * (1.0 + slope * neighbours) * (0.95 + 0.1 * chance.next());
                estimator.observe_invocation(&invocation(0.001, wall, load), now);
            }
        }
        limits.push(estimator.limit(budget));
    }
    limits
}

#[test]
fn undeclared_limits_double_while_nothing_speaks_against_them() {
    let mut estimator = Estimator::new(Settings::default());
    let limits = guarded(&mut estimator, &Budget::default(), 10, 0.0, Instant::now());
    assert_eq!(limits.last(), Some(&64));
    assert!(limits.windows(2).all(|pair| pair[1] >= pair[0] && pair[1] <= 2 * pair[0]), "{limits:?}");
    let slowdown = estimator.estimate().slowdown.expect("both were seen");
    assert!((0.9..1.1).contains(&slowdown), "{slowdown}");
}

#[test]
fn neighbours_that_slow_each_other_down_are_separated() {
    let mut estimator = Estimator::new(Settings::default());
    let budget = Budget { declared: Some(32), ..Budget::default() };
    let begun = Instant::now();
    // 2 % for each neighbour: 25 % at 13 or 14
    let limits = guarded(&mut estimator, &budget, 60, 0.02, begun);
    let settled = &limits[20..];
    assert!(settled.iter().all(|limit| (6..=16).contains(limit)), "{limits:?}");
    // no more than one cut or one step at a time, and none to and fro
    let turns =
        settled.windows(3).filter(|w| w[1] < w[0] && w[2] > w[1] || w[1] > w[0] && w[2] < w[1]).count();
    assert!(turns <= 2, "{limits:?}");
    // each neighbour doubles the time: nothing but alone will do
    let mut estimator = Estimator::new(Settings::default());
    let limits = guarded(&mut estimator, &budget, 60, 1.0, begun);
    assert_eq!(limits.last(), Some(&1), "{limits:?}");
    // and once neighbours are borne again, so is the limit
    let limits = guarded(&mut estimator, &budget, 400, 0.0, begun + Duration::from_secs(4000));
    assert_eq!(limits.last(), Some(&32), "{limits:?}");
}

#[test]
fn a_saturated_host_and_a_millisecond_are_no_reason() {
    let begun = Instant::now();
    let budget = Budget { declared: Some(32), ..Budget::default() };
    let mut saturated = Estimator::new(Settings::default());
    let mut quick = Estimator::new(Settings::default());
    for round in 0..500 {
        let now = begun + Duration::from_millis(10 * round);
        saturated.observe_invocation(&invocation(0.01, 0.01, 1), now);
        let busy = InvocationSample { host_saturated: true, ..invocation(0.01, 0.3, 32) };
        saturated.observe_invocation(&busy, now);
        quick.observe_invocation(&invocation(0.0001, 0.0002, 1), now);
        quick.observe_invocation(&invocation(0.0001, 0.0010, 32), now);
    }
    assert_eq!(saturated.limit(&budget), 32);
    assert_eq!(quick.limit(&budget), 32);
}

#[test]
fn waiting_for_the_hosts_processors_is_no_reason_and_waiting_for_neighbours_is() {
    let begun = Instant::now();
    let budget = Budget { declared: Some(32), ..Budget::default() };
    let settings = Settings { host_cpus: 2, ..Settings::default() };
    let (mut queued, mut locked) = (Estimator::new(settings), Estimator::new(settings));
    for round in 0..500 {
        let now = begun + Duration::from_millis(10 * round);
        for estimator in [&mut queued, &mut locked] {
            estimator.observe_invocation(&invocation(0.002, 0.0025, 1), now);
        }
        // sixteen of 2 ms on two processors take 16 ms wherever they run
        queued.observe_invocation(&invocation(0.002, 0.0165, 16), now);
        locked.observe_invocation(&invocation(0.002, 0.032, 16), now);
    }
    let mut apart = Estimator::new(Settings { apart: true, ..settings });
    for round in 0..500 {
        let now = begun + Duration::from_millis(10 * round);
        apart.observe_invocation(&invocation(0.002, 0.0025, 1), now);
        apart.observe_invocation(&invocation(0.002, 1.0, 8), now);
    }
    assert_eq!(apart.limit(&budget), 32, "processes share the host only");
    assert_eq!(
        apart.limit(&Budget::default()),
        16,
        "eight were seen, and nothing speaks against twice as many"
    );
    assert_eq!(queued.limit(&budget), 32);
    assert!(locked.limit(&budget) < 16, "one lock for all: {}", locked.limit(&budget));
}

#[test]
fn nonsense_changes_nothing() {
    let mut estimator = Estimator::new(Settings::default());
    let past = Instant::now();
    let now = run(&mut estimator, PAPER[3], 3, 8, true, 0.0, past);
    let before = estimator.estimate();
    for (in_flight, bytes) in [(1, 0), (1, u64::MAX), (usize::MAX, 100 * MIB), (0, 1 << 60)] {
        estimator.observe_memory(1, in_flight, bytes, now);
    }
    estimator.observe_invocation(&invocation(1.0, 0.0, 1), now);
    estimator.observe_invocation(&invocation(1.0, 1.0, 0), now);
    assert_eq!(estimator.estimate(), before);
    // from the past: taken as it is
    estimator.observe_memory(1, 8, mib(480.0), past);
    close(estimator.estimate().bytes_with(8), 480.0, 20.0, "need");
}

#[test]
fn a_busy_worker_costs_bounded_memory() {
    let mut estimator = Estimator::new(Settings::default());
    let begun = Instant::now();
    for sandbox in 0..20_000u64 {
        let in_flight = usize::try_from(sandbox * 7 % 5000).expect("small");
        estimator.observe_memory(
            sandbox,
            in_flight,
            (sandbox + 1) * 4096,
            begun + Duration::from_secs(sandbox),
        );
        estimator
            .observe_invocation(&invocation(0.1, 0.2, in_flight + 1), begun + Duration::from_secs(sandbox));
    }
    assert!(estimator.memory.fit().highest > 4000);
    assert!(estimator.cpu.len() <= CPU_SAMPLES);
    assert!(estimator.estimate().samples < 2 * 20_000, "no more than so many sandboxes are followed");
}

proptest! {
    /// Any line with noise below it, any load: the need is found within 15 % at the loads that
    /// were seen, and a limit never promises more than fits.
    #[test]
    fn lines_are_found(
        base in 20.0f64..500.0, increment in 0.5f64..150.0, most in 3usize..24,
        sandboxes in 1u64..6, shrinks: bool, noise in 0.0f64..0.3, limit_mib in 64u64..8192,
    ) {
        let mut estimator = Estimator::new(Settings { first_guess: 10_000, most: 10_000, ..Settings::default() });
        let workload = Workload { base, increment, cpu: 0.1 };
        run(&mut estimator, workload, sandboxes, most, shrinks, noise, Instant::now());
        let load = f64::from(u32::try_from(most).expect("small"));
        let need = base + increment * load;
        close(estimator.estimate().bytes_with(most), need, 0.15 * need, "need");
        let limit = estimator.limit(&Budget { memory_bytes: Some(limit_mib * MIB), ..Budget::default() });
        if limit > 1 && limit <= 2 * most {
            let true_need = base + increment * (1.0 - noise) * f64::from(u32::try_from(limit).expect("small"));
            prop_assert!(mib(true_need) <= limit_mib * MIB * 105 / 100, "{} with {}", limit, true_need);
        }
    }

    /// Whatever comes in, a limit is from 1 to what was declared, and nothing overflows.
    #[test]
    fn anything_goes(
        samples in prop::collection::vec((any::<u64>(), any::<usize>(), any::<u64>(), any::<u32>()), 0..200),
        declared in prop::option::of(any::<usize>()), memory_bytes: Option<u64>, cpu_millis: Option<u64>,
        slow_percent: u32, headroom_percent: u64, first_guess: usize, most: usize,
    ) {
        let settings =
            Settings { first_guess, most, headroom_percent, slow_percent, ..Settings::default() };
        let mut estimator = Estimator::new(settings);
        let begun = Instant::now();
        for (sandbox, in_flight, bytes, at) in samples {
            let now = begun + Duration::from_millis(at.into());
            for in_flight in [in_flight, in_flight % 70] {
                estimator.observe_memory(sandbox % 5, in_flight, bytes % (1 << 40), now);
                estimator.observe_memory(sandbox, in_flight, bytes, now);
                let sample = InvocationSample {
                    cpu: Duration::from_nanos(bytes),
                    wall: Duration::from_nanos(sandbox),
                    in_flight_at_start: in_flight,
                    in_flight_at_end: sandbox.try_into().expect("64 bits"),
                    host_saturated: false,
                };
                estimator.observe_invocation(&sample, now);
            }
            let limit = estimator.limit(&Budget { declared, memory_bytes, cpu_millis });
            prop_assert!(limit >= 1 && limit <= declared.unwrap_or(most).max(1));
            let estimate = estimator.estimate();
            prop_assert!(estimate.busy_fraction.is_finite());
            prop_assert!(estimate.slowdown.is_none_or(f64::is_finite));
            let _ = estimate.bytes_with(usize::MAX);
        }
    }
}
