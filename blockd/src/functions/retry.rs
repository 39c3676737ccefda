//! Whether and when an event is tried again. Pure: time is passed in.
//!
//! As on AWS: a function that fails is tried twice more, after one and two minutes; an event
//! that did not reach its function is tried with growing pauses for as long as it may be old.

use super::definition::Definition;
use super::settings::EventSettings;

/// Longest pause after a throttle, as a multiple of the first.
const MAX_DOUBLED: u64 = 300;

/// What may be done for the events of a function, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// Attempts after the first that failed.
    pub(super) retries: u32,
    /// Oldest event.
    pub(super) max_age_ms: u64,
    /// Pauses after failures.
    pub(super) delays_ms: [u64; 2],
    /// First pause after a throttle.
    pub(super) throttle_ms: u64,
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Policy {
    pub(super) fn of(definition: &Definition, settings: &EventSettings) -> Self {
        let own = definition.event_config.as_ref();
        let age = own.and_then(|own| own.maximum_event_age_seconds);
        Self {
            retries: own.and_then(|own| own.maximum_retry_attempts).unwrap_or(2),
            max_age_ms: age.map_or(ms(settings.max_age), |seconds| u64::from(seconds) * 1000),
            delays_ms: settings.retry_delays.map(ms),
            throttle_ms: ms(settings.throttle_delay),
        }
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The function answered.
    Succeeded,
    /// The function failed.
    Failed,
    /// It was not reached: throttled, or a fault of the worker's.
    Refused,
}

/// Why an event ended, in the words of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Condition {
    /// The function answered.
    Success,
    /// The function failed each time.
    RetriesExhausted,
    /// It became too old.
    EventAgeExceeded,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt, then.
    Again { due_ms: u64 },
    /// Nothing more.
    Over(Condition),
}

impl Policy {
    /// Whether an event is too old to be tried at all.
    pub(super) fn is_too_old(&self, accepted_ms: u64, now_ms: u64) -> bool {
        now_ms > accepted_ms.saturating_add(self.max_age_ms)
    }

    /// After an attempt: `failures` and `refusals` count those so far, this one included.
    pub(super) fn next(
        &self,
        outcome: Outcome,
        accepted_ms: u64,
        (failures, refusals): (u32, u32),
        now_ms: u64,
    ) -> Next {
        let deadline = accepted_ms.saturating_add(self.max_age_ms);
        match outcome {
            Outcome::Succeeded => Next::Over(Condition::Success),
            Outcome::Failed if failures > self.retries => Next::Over(Condition::RetriesExhausted),
            Outcome::Failed => {
                let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
                let delay = self.delays_ms[at.min(self.delays_ms.len() - 1)];
                let due_ms = now_ms.saturating_add(delay);
                if due_ms > deadline {
                    Next::Over(Condition::EventAgeExceeded)
                } else {
                    Next::Again { due_ms }
                }
            }
            Outcome::Refused if now_ms >= deadline => Next::Over(Condition::EventAgeExceeded),
            Outcome::Refused => {
                let doubled = 1_u64.checked_shl(refusals.saturating_sub(1)).unwrap_or(MAX_DOUBLED);
                let pause = self.throttle_ms.saturating_mul(doubled.clamp(1, MAX_DOUBLED));
                // one last attempt just before it is too old
                Next::Again { due_ms: now_ms.saturating_add(pause).min(deadline) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::definition::EventConfig;
    use crate::functions::definition::tests::plain;

    const POLICY: Policy =
        Policy { retries: 2, max_age_ms: 21_600_000, delays_ms: [60_000, 120_000], throttle_ms: 1000 };

    #[test]
    fn failures_are_tried_twice_more() {
        let next = |failures, now| POLICY.next(Outcome::Failed, 0, (failures, 0), now);
        assert_eq!(next(1, 10), Next::Again { due_ms: 60_010 });
        assert_eq!(next(2, 70_000), Next::Again { due_ms: 190_000 });
        assert_eq!(next(3, 200_000), Next::Over(Condition::RetriesExhausted));
        assert_eq!(next(1, 21_590_000), Next::Over(Condition::EventAgeExceeded));
        let none = Policy { retries: 0, ..POLICY };
        assert_eq!(none.next(Outcome::Failed, 0, (1, 0), 1), Next::Over(Condition::RetriesExhausted));
    }

    #[test]
    fn refusals_are_tried_until_the_event_is_too_old() {
        let (mut now, mut pauses) = (0, Vec::new());
        for refusals in 1.. {
            match POLICY.next(Outcome::Refused, 0, (0, refusals), now) {
                Next::Again { due_ms } => pauses.push(due_ms - now),
                Next::Over(condition) => {
                    assert_eq!(condition, Condition::EventAgeExceeded);
                    break;
                }
            }
            now += pauses.last().unwrap();
        }
        assert_eq!(pauses[..4], [1000, 2000, 4000, 8000]);
        assert_eq!(pauses.iter().sum::<u64>(), POLICY.max_age_ms);
        assert_eq!(pauses.iter().max(), Some(&300_000));
        assert_eq!(POLICY.next(Outcome::Refused, 0, (0, u32::MAX), 0), Next::Again { due_ms: 300_000 });
        assert!(!POLICY.is_too_old(0, POLICY.max_age_ms) && POLICY.is_too_old(0, POLICY.max_age_ms + 1));
    }

    #[test]
    fn what_a_function_says_goes_first() {
        let mut definition = plain("a", "f");
        let settings = EventSettings::default();
        assert_eq!(Policy::of(&definition, &settings), POLICY);
        definition.event_config = Some(EventConfig {
            maximum_retry_attempts: Some(0),
            maximum_event_age_seconds: Some(60),
            on_failure: None,
            on_success: None,
            last_modified_ms: 0,
        });
        let own = Policy::of(&definition, &settings);
        assert_eq!((own.retries, own.max_age_ms), (0, 60_000));
    }
}
