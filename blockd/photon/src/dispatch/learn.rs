//! What a revision of a function taught: how many invocations its sandboxes may have, and what
//! another sandbox needs.
//!
//! Two numbers, because a client may run a process for each slot it is told of, from its start
//! on, whether it is used or not. Memory per *invocation* is the estimator's; memory per *slot*
//! shows only in that a sandbox is nearly full whatever is in it. Sandboxes started later are then
//! told of fewer slots.
//!
//! Invariants: no sandbox is told of more slots than the function may have; what sandboxes of
//! another number of slots use is not learned from.

use super::handle::Handle;
use crate::function::{Function, Runtime};
use crate::policy::concurrency::{Budget, Confidence, Estimate, Estimator, InvocationSample, Settings};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What of its slots a sandbox that was nearly full leaves to later ones, in tenths.
const KEPT_TENTHS: usize = 7;
/// What part of its memory limit is expected of a sandbox of which nothing is known.
const UNKNOWN_SHARE: u64 = 8;
/// How long after that more are tried: an eighth more at a time.
const REST: Duration = Duration::from_secs(600);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Learned {
    function: Arc<Function>,
    memory_limit: u64,
    estimator: Estimator,
    /// Slots that a sandbox started now is told of.
    slots: usize,
    changed: Option<Instant>,
    /// Most invocations at once in a sandbox, as last decided.
    limit: usize,
}

impl Learned {
    /// Nothing yet. `memory_limit` is that of a sandbox, in bytes.
    pub(super) fn new(function: Arc<Function>, memory_limit: u64) -> Self {
        let most = function.max_concurrency;
        let apart = matches!(function.runtime, Runtime::Python { .. });
        let estimator = Estimator::new(Settings { most, apart, ..Settings::default() });
        Self { function, memory_limit, estimator, slots: most, changed: None, limit: most }
    }

    /// Whether its runtime may run something for each slot from its start on.
    fn pays_for_slots(&self) -> bool {
        self.function.runtime == Runtime::Image && self.function.max_concurrency > 1
    }

    /// Slots that a sandbox started now is told of.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Most invocations at once in a sandbox now, of those that are told of [`Self::slots`].
    pub(super) fn decide_limit(&mut self, now: Instant) -> usize {
        if self.changed.is_some_and(|changed| now.saturating_duration_since(changed) >= REST) {
            let more = self.slots + (self.slots / 8).max(1);
            self.slots = more.min(self.function.max_concurrency);
            self.changed = (self.slots < self.function.max_concurrency).then_some(now);
        }
        let declared = self.function.concurrency_declared.then_some(self.function.max_concurrency);
        let by_measurement = self.estimator.limit(&Budget {
            declared,
            memory_bytes: Some(self.memory_limit),
            cpu_millis: self.function.cpu_millis,
        });
        self.limit = by_measurement.min(self.slots);
        self.limit
    }

    /// As last decided.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Memory of a sandbox with so many invocations, in bytes. Of one that was never seen, a share
    /// of what it may have.
    pub(super) fn bytes_with(&self, in_flight: usize) -> u64 {
        let estimate = self.estimator.estimate();
        match estimate.confidence {
            Confidence::None => (self.memory_limit / UNKNOWN_SHARE).max(1),
            _ => estimate.bytes_with(in_flight).max(1),
        }
    }

    pub(super) fn estimate(&self) -> Estimate {
        self.estimator.estimate()
    }

    /// Whether a sandbox has come up with all that it runs for its slots, as far as can be told.
    fn is_up(&self, handle: &Handle) -> bool {
        handle.is_up(if self.pays_for_slots() { handle.told } else { 1 })
    }

    /// Notes what a sandbox uses.
    pub(super) fn observe_memory(&mut self, handle: &Handle, bytes: u64) {
        let is_alike = !self.pays_for_slots() || handle.told == self.slots;
        if is_alike && self.is_up(handle) {
            self.estimator.observe_memory(handle.number, handle.slots.in_flight(), bytes, Instant::now());
        }
    }

    /// Notes an invocation that succeeded.
    pub(super) fn observe_invocation(&mut self, sample: &InvocationSample) {
        self.estimator.observe_invocation(sample, Instant::now());
    }

    /// A sandbox is gone.
    pub(super) fn forget(&mut self, handle: &Handle) {
        self.estimator.forget_sandbox(handle.number);
    }

    /// A sandbox that was told of so many slots is nearly full. Returns the number for later ones,
    /// if that is news.
    pub(super) fn nearly_full(&mut self, told: usize, now: Instant) -> Option<usize> {
        if !self.pays_for_slots() || told < 2 || told > self.slots {
            return None;
        }
        self.slots = (told * KEPT_TENTHS / 10).max(1);
        self.changed = Some(now);
        // it was that of other sandboxes
        self.estimator.forget_memory();
        Some(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests::function;

    fn learned(runtime: Runtime) -> Learned {
        let function = Function { runtime, ..function("f", 64) };
        Learned::new(Arc::new(function), 1 << 30)
    }

    #[test]
    fn a_sandbox_that_its_slots_fill_makes_later_ones_smaller() {
        let mut learned = learned(Runtime::Image);
        let now = Instant::now();
        assert_eq!((learned.slots(), learned.decide_limit(now)), (64, 64));
        assert_eq!(learned.nearly_full(64, now), Some(44));
        assert_eq!(learned.nearly_full(64, now), None, "another of the same size says nothing new");
        assert_eq!((learned.slots(), learned.decide_limit(now)), (44, 44));
        assert_eq!(learned.nearly_full(44, now), Some(30));
        // it may have been one large event: more are tried, some at a time
        learned.decide_limit(now + REST);
        assert_eq!(learned.slots(), 33);
        for later in 2..20 {
            learned.decide_limit(now + later * REST);
        }
        assert_eq!(learned.slots(), 64, "never more than the function may have");
    }

    #[test]
    fn one_slot_stays_and_runtimes_that_pay_as_they_go_keep_theirs() {
        let now = Instant::now();
        let mut image = learned(Runtime::Image);
        let mut told = 64;
        while let Some(slots) = image.nearly_full(told, now) {
            assert!(slots < told);
            told = slots;
        }
        assert_eq!(image.slots(), 1);
        let mut java = learned(Runtime::Java);
        assert_eq!((java.nearly_full(64, now), java.slots()), (None, 64));
    }
}
