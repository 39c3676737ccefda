//! How long an idle sandbox is kept, and which goes first when memory runs short.
//!
//! Two decisions that are independent of each other:
//! - [`KeepAlive`] says per function how long to keep what is idle, and when to start a sandbox
//!   ahead of the next invocation. Now a fixed time; the hybrid histogram of "Serverless in the
//!   Wild" (ATC'20, section 4) fits the same [`Windows`]: unload at once, load again at 0.9 of
//!   the head of the idle-time distribution, keep until 1.1 of its tail.
//! - [`evict`] and [`make_room`] say which idle sandboxes go before their time, so that neither
//!   their memory nor their number keeps anybody from starting.
//!
//! The order of eviction is that of Greedy-Dual keep-alive (Fuerst and Sharma, "FaasCache",
//! ASPLOS'21, after Cao and Irani's GreedyDual-Size, USITS'97), with measured idle time in the
//! place of its clock and frequency: a sandbox idle for `t` is expected to stay idle for about
//! `t` more, so `t × memory ÷ start time` is the memory-time that keeping it is expected to
//! waste for each second of start that it would save. The highest goes first. It needs no state,
//! ages by itself, and is the plain oldest first where memory and start times are equal.
//!
//! Used by the dispatcher, for idle sandboxes only: one with an invocation is never a candidate.

use crate::function::FunctionKey;
use std::cmp::Ordering;
use std::time::{Duration, Instant};

/// When a function's sandboxes are kept, from the moment they become idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// How long an idle sandbox stays.
    pub keep: Duration,
    /// When to start one again, ahead of the next invocation; later than `keep`.
    pub prewarm: Option<Prewarm>,
}

/// A start ahead of the invocation it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prewarm {
    /// When to start, counted from when the function became idle.
    pub after: Duration,
    /// How long to keep it then if nothing comes, counted from `after`.
    pub keep: Duration,
}

/// How long idle sandboxes are kept: one value for all functions of a worker.
///
/// The dispatcher calls [`invoked`](Self::invoked) for each invocation it takes in, and
/// [`idle`](Self::idle) for each idle sandbox whenever it looks at them all, some times a second.
/// Both take constant time (at most 1 ms by the promise of the paper): the first is in the path
/// of an invocation.
pub trait KeepAlive: Send + std::fmt::Debug {
    /// Notes an invocation.
    fn invoked(&mut self, function: &FunctionKey, now: Instant);

    /// For how long to keep a sandbox of the function that has been idle `since` then.
    fn idle(&mut self, function: &FunctionKey, since: Instant) -> Windows;

    /// Forgets a function that was deleted.
    fn forget(&mut self, function: &FunctionKey);
}

/// The same time for every function: what AWS Lambda (about 10 minutes) and Azure (20) were
/// measured to do, and the baseline of whatever is cleverer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedKeepAlive {
    keep: Duration,
}

impl FixedKeepAlive {
    /// Keeps idle sandboxes for so long.
    #[must_use]
    pub fn new(keep: Duration) -> Self {
        Self { keep }
    }
}

impl Default for FixedKeepAlive {
    /// Ten minutes.
    fn default() -> Self {
        Self::new(Duration::from_secs(600))
    }
}

impl KeepAlive for FixedKeepAlive {
    fn invoked(&mut self, _function: &FunctionKey, _now: Instant) {}

    fn idle(&mut self, _function: &FunctionKey, _since: Instant) -> Windows {
        Windows { keep: self.keep, prewarm: None }
    }

    fn forget(&mut self, _function: &FunctionKey) {}
}

/// An idle sandbox that might go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleSandbox {
    /// Since when.
    pub idle_since: Instant,
    /// What it holds in memory and would free, in bytes.
    pub memory_bytes: u64,
    /// What it would take to start it again: as measured when it was.
    pub start: Duration,
}

impl IdleSandbox {
    /// Expected waste for each second of start saved; the highest goes first.
    fn waste(&self, now: Instant) -> f64 {
        // a sandbox that has just become idle, and one that costs nothing, still compare by size
        let idle = now.saturating_duration_since(self.idle_since).as_secs_f64() + 0.001;
        let start = self.start.as_secs_f64() + 0.001;
        #[expect(clippy::cast_precision_loss, reason = "an order needs no last bits")]
        let bytes = self.memory_bytes as f64;
        idle * bytes / start
    }
}

/// Which idle sandboxes go, so that at least `bytes_needed` become free; indices into
/// `candidates`, first to go first. All of them where even that is not enough, and none where
/// nothing is needed. Those without memory are never taken: they would free nothing.
#[must_use]
pub fn evict(candidates: &[IdleSandbox], bytes_needed: u64, now: Instant) -> Vec<usize> {
    let mut freed = 0;
    let mut going = Vec::new();
    for index in order(candidates, now) {
        if freed >= bytes_needed {
            break;
        }
        if candidates[index].memory_bytes > 0 {
            freed = candidates[index].memory_bytes.saturating_add(freed);
            going.push(index);
        }
    }
    // a large one that came late may have made smaller ones before it needless: spare the best
    let mut spare = freed.saturating_sub(bytes_needed);
    let mut kept = vec![false; going.len()];
    for (place, index) in going.iter().enumerate().rev() {
        let bytes = candidates[*index].memory_bytes;
        if bytes <= spare {
            spare -= bytes;
            kept[place] = true;
        }
    }
    going.iter().zip(kept).filter(|(_, kept)| !kept).map(|(index, _)| *index).collect()
}

/// Which idle sandboxes go, so that at least `bytes_needed` and `sandboxes_needed` become free;
/// indices into `candidates`. All of them where even that is not enough. Each sandbox also holds
/// a mount, a network namespace and file descriptors, so their number is bounded as well.
#[must_use]
pub fn make_room(
    candidates: &[IdleSandbox],
    bytes_needed: u64,
    sandboxes_needed: usize,
    now: Instant,
) -> Vec<usize> {
    let mut going = evict(candidates, bytes_needed, now);
    let missing = sandboxes_needed.saturating_sub(going.len());
    let mut gone = vec![false; candidates.len()];
    for index in &going {
        gone[*index] = true;
    }
    going.extend(order(candidates, now).into_iter().filter(|index| !gone[*index]).take(missing));
    going
}

/// Indices of the candidates, first to go first.
fn order(candidates: &[IdleSandbox], now: Instant) -> Vec<usize> {
    let mut order: Vec<(usize, f64)> =
        candidates.iter().enumerate().map(|(index, candidate)| (index, candidate.waste(now))).collect();
    order.sort_by(|(one, waste_one), (other, waste_other)| {
        let older = candidates[*one].idle_since.cmp(&candidates[*other].idle_since);
        waste_other.partial_cmp(waste_one).unwrap_or(Ordering::Equal).then(older).then(one.cmp(other))
    });
    order.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests;
