//! Whether more neighbours make an invocation slower, and what to do about it.
//!
//! The times of invocations are kept apart by how many ran beside them, in doublings (1, 2–3,
//! 4–7, …). The median among many over the median among few is the slowdown. Where it stays
//! above a threshold the limit is cut to 0.7 of what was running; while it stays below half of
//! the excess and the limit is reached, it grows: doubling before the first cut, by one after,
//! and not back to where it was cut for ten minutes. That is additive increase, multiplicative
//! decrease, with hysteresis.
//!
//! Many that compute take turns on the host's processors, in sandboxes of their own just as well:
//! the time that these turns take is not slowness. (Saturation is looked for at intervals, and a
//! burst of short invocations is over by then.)
//!
//! Used by the estimator.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Times kept per doubling.
const TIMES: usize = 48;
/// Times that make a median worth anything.
const ENOUGH: usize = 12;
/// New times among many before the next look.
const EPOCH: usize = 16;
/// Looks in a row that must find it slow. One may be a garbage collection.
const SLOW_EPOCHS: u32 = 2;
/// Oldest time that counts among many, and among few, which are seen more rarely.
const MANY_AGE: Duration = Duration::from_secs(300);
const FEW_AGE: Duration = Duration::from_secs(3600);
/// More invocations than any sandbox has; keeps shifts in range.
const MOST_IN_FLIGHT: usize = 1 << 20;
/// How long the limit stays below where it was cut.
const REST: Duration = Duration::from_secs(600);
/// A slowdown of less than this is the price of an answer's way, whatever the ratio.
const LEAST_SECONDS: f64 = 0.001;

/// How long an invocation took.
#[derive(Debug, Clone, Copy)]
struct Time {
    seconds: f64,
    /// What its neighbours and it would have taken on the host's processors alone.
    least: f64,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Guard {
    /// Above which ratio it is slow, and below which it is well.
    slow: f64,
    well: f64,
    /// By doubling of the number of invocations.
    times: BTreeMap<u32, VecDeque<Time>>,
    /// New times among many since the last look, and the most invocations in them.
    fresh: usize,
    most: usize,
    slow_epochs: u32,
    slowdown: Option<f64>,
    /// How far a limit that nobody declared was explored.
    explored: usize,
    /// What was found too slow to exceed.
    ceiling: Option<usize>,
    cut: Option<(usize, Instant)>,
}

impl Guard {
    pub(super) fn new(first_guess: usize, slow_percent: u32) -> Self {
        let excess = f64::from(slow_percent.max(101) - 100) / 100.0;
        Self {
            slow: 1.0 + excess,
            well: 1.0 + excess / 2.0,
            times: BTreeMap::new(),
            fresh: 0,
            most: 0,
            slow_epochs: 0,
            slowdown: None,
            explored: first_guess.max(1),
            ceiling: None,
            cut: None,
        }
    }

    /// The limit by latency where there is a declared one; none while nothing was slow.
    pub(super) fn ceiling(&self) -> Option<usize> {
        self.ceiling
    }

    /// The limit by latency where none is declared.
    pub(super) fn explored(&self) -> usize {
        self.ceiling.map_or(self.explored, |ceiling| ceiling.min(self.explored))
    }

    pub(super) fn slowdown(&self) -> Option<f64> {
        self.slowdown
    }

    /// Takes in the time of an invocation among so many, itself included, which take at `least`
    /// so long on this host's processors.
    pub(super) fn observe(&mut self, in_flight: usize, wall: Duration, least: Duration, now: Instant) {
        let in_flight = in_flight.clamp(1, MOST_IN_FLIGHT);
        let doubling = in_flight.ilog2();
        // begun before the last cut: what ran above the limit has had its say
        if self.ceiling.is_some_and(|ceiling| doubling > ceiling.ilog2()) {
            return;
        }
        let times = self.times.entry(doubling).or_default();
        if times.len() == TIMES {
            times.pop_front();
        }
        times.push_back(Time { seconds: wall.as_secs_f64(), least: least.as_secs_f64(), at: now });
        self.most = self.most.max(in_flight);
        let Some(many) = self.times.iter().rev().find(|(_, times)| recent(times, MANY_AGE, now) >= ENOUGH)
        else {
            return;
        };
        let many = *many.0;
        if doubling >= many {
            self.fresh += 1;
        }
        if self.fresh >= EPOCH {
            self.look(many, now);
            self.fresh = 0;
            self.most = 0;
        }
    }

    /// Compares many with few and moves the limit.
    fn look(&mut self, many: u32, now: Instant) {
        let few = self.times.range(..many).find(|(_, times)| recent(times, FEW_AGE, now) >= ENOUGH);
        let Some((_, few)) = few else {
            // alone, or nothing to compare with: nothing speaks against more
            if many == 0 || self.slowdown.is_none() {
                self.grow(now);
            }
            return;
        };
        let many_times = &self.times[&many];
        let taken = |time: &Time| time.seconds;
        let few = median(few, FEW_AGE, now, taken).max(median(many_times, MANY_AGE, now, |time| time.least));
        let many_time = median(many_times, MANY_AGE, now, taken);
        let ratio = many_time / few.max(1e-9);
        self.slowdown = Some(ratio);
        if ratio > self.slow && many_time - few > LEAST_SECONDS {
            self.slow_epochs += 1;
            if self.slow_epochs >= SLOW_EPOCHS {
                self.slow_epochs = 0;
                self.shrink(many, now);
            }
        } else {
            self.slow_epochs = 0;
            if ratio < self.well || many_time - few <= LEAST_SECONDS {
                self.grow(now);
            }
        }
    }

    fn shrink(&mut self, many: u32, now: Instant) {
        // the most that ran in this epoch, but not a single outlier far above what was compared
        let ran = self.most.clamp(1 << many, (2 << many) - 1);
        let ran = self.ceiling.map_or(ran, |ceiling| ceiling.min(ran));
        let lower = (ran * 7 / 10).max(1);
        self.ceiling = Some(lower);
        self.explored = self.explored.max(lower);
        self.cut = Some((ran, now));
        self.times.retain(|doubling, _| 1usize << *doubling <= lower);
    }

    fn grow(&mut self, now: Instant) {
        if self.most < self.explored() {
            return;
        }
        match (self.ceiling, self.cut) {
            (None, _) => self.explored = self.explored.saturating_mul(2),
            (Some(ceiling), cut) => {
                let rests = |(at, when): (usize, Instant)| {
                    ceiling + 1 >= at && now.saturating_duration_since(when) < REST
                };
                if !cut.is_some_and(rests) {
                    self.ceiling = Some(ceiling.saturating_add(1));
                    self.explored = self.explored.max(ceiling.saturating_add(1));
                }
            }
        }
    }
}

fn recent(times: &VecDeque<Time>, age: Duration, now: Instant) -> usize {
    times.iter().filter(|time| now.saturating_duration_since(time.at) <= age).count()
}

/// The median of a value of the times of at most this age; 0 of none.
fn median(times: &VecDeque<Time>, age: Duration, now: Instant, value: impl Fn(&Time) -> f64) -> f64 {
    let young = times.iter().filter(|time| now.saturating_duration_since(time.at) <= age);
    let mut seconds: Vec<f64> = young.map(value).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(0.0)
}
