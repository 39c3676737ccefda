//! The object store: requests above its rate wait in line, then take a log-normal time.

use super::Nanos;
use super::random::{AT_P999, LogNormal, Random, nanos};
use super::scenario::Scenario;

/// The object store's queue.
#[derive(Debug)]
pub(super) struct OriginQueue {
    interval: Nanos,
    next_free: Nanos,
    latency: LogNormal,
    random: Random,
}

impl OriginQueue {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let origin = &scenario.origin;
        Self {
            interval: nanos(1.0 / origin.requests_per_s),
            next_free: 0,
            latency: LogNormal::new(origin.p50_ms / 1e3, origin.p999_ms / 1e3, AT_P999),
            random: Random::stream(scenario.run.seed, 4),
        }
    }

    /// Takes a request. Returns when its answer is there: every request is served, also one
    /// whose asker no longer waits, as a store does not know.
    pub(super) fn serve(&mut self, now: Nanos) -> Nanos {
        let turn = self.next_free.max(now);
        self.next_free = turn + self.interval;
        turn + nanos(self.latency.draw(&mut self.random))
    }

    /// How long a request of this moment would wait in line.
    pub(super) fn line(&self, now: Nanos) -> Nanos {
        self.next_free.saturating_sub(now)
    }
}
