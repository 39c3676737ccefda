//! Which nodes are worth calling, judged by their own answers alone.
//!
//! Invariants: a node that failed several calls in a row is left alone for a while that
//! doubles up to a bound; when it is over, one call tries the node while the others still
//! leave it alone; a single success clears it, and a trial that is broken off decides nothing. A node that is merely busy, or refuses us, is
//! reachable and never left alone for it.

use crate::members::Members;
use crate::transport::CallKind;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row after which a node is left alone.
const TOLERATED: u32 = 3;
/// The first such while; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest: so late at most is a node that came back noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of one node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NodeHealth {
    in_a_row: u32,
    alone_until: Option<Instant>,
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) busy: u64,
    pub(super) total_micros: u64,
    pub(super) longest_micros: u64,
}

impl NodeHealth {
    pub(super) fn left_alone(&self) -> bool {
        self.alone_until.is_some()
    }
}

/// A call under way. Dropped before it is over (a read that needs it no more), it must not
/// leave its node alone for good: with several nodes in that state every read would break
/// off the trials of all of them.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    health: &'a Health,
    node: &'a str,
    over: bool,
}

impl Trial<'_> {
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.health.undecided(self.node, Instant::now());
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Health(Mutex<HashMap<String, NodeHealth>>);

impl Health {
    fn nodes(&self) -> MutexGuard<'_, HashMap<String, NodeHealth>> {
        // entries are changed by calls that do not panic
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call, if the node is to be called now.
    pub(super) fn begin<'a>(&'a self, node: &'a str, now: Instant) -> Option<Trial<'a>> {
        self.admits(node, now).then_some(Trial { health: self, node, over: false })
    }

    fn admits(&self, node: &str, now: Instant) -> bool {
        let mut nodes = self.nodes();
        let Some(health) = nodes.get_mut(node) else { return true };
        match health.alone_until {
            Some(until) if now < until => false,
            Some(_) => {
                // this call is the trial; until it is over the others go on without the node
                health.alone_until = Some(now + pause(health.in_a_row));
                true
            }
            None => true,
        }
    }

    /// A call ended without telling anything: if it was the trial, the next one is.
    fn undecided(&self, node: &str, now: Instant) {
        if let Some(health) = self.nodes().get_mut(node)
            && health.alone_until.is_some()
        {
            health.alone_until = Some(now);
        }
    }

    pub(super) fn well(&self, node: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut nodes = self.nodes();
        if !nodes.contains_key(node) {
            nodes.insert(node.into(), NodeHealth::default());
        }
        let Some(health) = nodes.get_mut(node) else { return };
        health.in_a_row = 0;
        health.alone_until = None;
        health.calls += 1;
        health.total_micros = health.total_micros.saturating_add(micros);
        health.longest_micros = health.longest_micros.max(micros);
    }

    pub(super) fn failed(&self, node: &str, kind: CallKind, now: Instant) {
        let mut nodes = self.nodes();
        let health = nodes.entry(node.into()).or_default();
        health.calls += 1;
        match kind {
            CallKind::Busy => health.busy += 1,
            CallKind::Refused => health.failures += 1,
            CallKind::Stale | CallKind::Unreachable | CallKind::Late | CallKind::Protocol => {
                health.failures += 1;
                health.in_a_row = health.in_a_row.saturating_add(1);
                if health.in_a_row >= TOLERATED {
                    health.alone_until = Some(now + pause(health.in_a_row));
                }
            }
        }
    }

    pub(super) fn of(&self, node: &str) -> NodeHealth {
        self.nodes().get(node).copied().unwrap_or_default()
    }

    /// Forgets nodes that are gone.
    pub(super) fn retain(&self, members: &Members) {
        self.nodes().retain(|name, _| members.find(name).is_some());
    }
}

fn pause(in_a_row: u32) -> Duration {
    let doublings = in_a_row.saturating_sub(TOLERATED).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_node_is_left_alone_and_tried_again() {
        let (health, start) = (Health::default(), Instant::now());
        for _ in 0..TOLERATED {
            assert!(health.admits("a", start));
            health.failed("a", CallKind::Late, start);
        }
        assert!(!health.admits("a", start));
        let later = start + FIRST_PAUSE;
        assert!(health.admits("a", later), "one trial");
        assert!(!health.admits("a", later), "and only one");
        health.failed("a", CallKind::Late, later);
        assert!(!health.admits("a", later + FIRST_PAUSE), "the pause grew");
        assert!(health.admits("a", later + FIRST_PAUSE * 2));
        health.well("a", Duration::from_millis(1));
        assert!(health.admits("a", later) && !health.of("a").left_alone());
    }

    #[test]
    fn a_trial_that_is_broken_off_decides_nothing() {
        let (health, start) = (Health::default(), Instant::now());
        (0..TOLERATED).for_each(|_| health.failed("a", CallKind::Late, start));
        let later = start + FIRST_PAUSE;
        let trial = health.begin("a", later).unwrap();
        assert!(health.begin("a", later).is_none());
        drop(trial);
        assert!(health.begin("a", later + FIRST_PAUSE).is_some(), "the next call is the trial");
    }

    #[test]
    fn busy_and_refusing_nodes_stay_in_use() {
        let (health, now) = (Health::default(), Instant::now());
        for _ in 0..20 {
            health.failed("a", CallKind::Busy, now);
            health.failed("a", CallKind::Refused, now);
        }
        assert!(health.admits("a", now));
        assert_eq!((health.of("a").busy, health.of("a").failures), (20, 20));
    }

    #[test]
    fn pauses_are_bounded() {
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
