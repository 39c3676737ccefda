//! Repeating calls that may succeed later, out of a budget that a failing store uses up, so
//! that an outage meets fewer requests and not more.
//!
//! The budget is a token bucket: a repetition costs one token, a success gives a tenth back.
//! Empty means that failures are passed on at once until the store answers again.

use crate::intercept::{Answer, Call, Interceptor};
use crate::store::{ErrorKind, Result};
use async_trait::async_trait;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Hundredths of a token that a success gives back.
const GIVEN_BACK: u32 = 10;
/// One repetition.
const COST: u32 = 100;

/// How calls are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Most attempts of one call, the first included.
    pub attempts: u32,
    /// Longest wait before the second attempt; doubles from there.
    pub base: Duration,
    /// Longest wait before any attempt.
    pub longest: Duration,
    /// Repetitions that an outage may cost altogether, before some calls succeed again.
    pub budget: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { attempts: 4, base: Duration::from_millis(50), longest: Duration::from_secs(2), budget: 50 }
    }
}

/// Repeats what is [`ErrorKind::Unavailable`], within a budget shared by all calls.
#[derive(Debug)]
pub struct Retry {
    settings: RetrySettings,
    tokens: AtomicU32,
}

impl Retry {
    /// With a full budget.
    #[must_use]
    pub fn new(settings: RetrySettings) -> Self {
        Self { settings, tokens: AtomicU32::new(settings.budget.saturating_mul(COST)) }
    }

    fn take(&self) -> bool {
        let taken = |tokens: u32| tokens.checked_sub(COST);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self) {
        let full = self.settings.budget.saturating_mul(COST);
        let given = |tokens: u32| (tokens < full).then(|| (tokens + GIVEN_BACK).min(full));
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, given);
    }

    /// A random wait below a bound that doubles: callers that failed together do not come
    /// back together.
    fn wait(&self, attempt: u32) -> Duration {
        let bound = self.settings.base.saturating_mul(1 << attempt.min(16)).min(self.settings.longest);
        // without randomness the full wait is as safe, only less spread
        let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
        bound.mul_f64(share)
    }
}

#[async_trait]
impl Interceptor for Retry {
    async fn around<A, T, F>(&self, call: &Call, attempt: A) -> Result<T>
    where
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<T>> + Send,
        T: Answer,
    {
        let mut made = 0;
        loop {
            let error = match attempt().await {
                Ok(answer) => {
                    self.give_back();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            made += 1;
            let again = error.kind == ErrorKind::Unavailable && call.repeatable;
            if !again || made >= self.settings.attempts || !self.take() {
                return Err(error);
            }
            let wait = self.wait(made - 1);
            tracing::debug!(call = call.operation, object = call.object, %error, ?wait, "repeated");
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{Faults, Faulty};
    use crate::intercept::Intercepted;
    use crate::memory::MemoryStore;
    use crate::store::Origin;
    use image_format::names::ObjectName;
    use std::sync::Arc;

    fn store(faults: Faults, settings: RetrySettings) -> (Intercepted<Retry>, Intercepted<Faulty>) {
        let faulty = Intercepted::new(Arc::new(MemoryStore::new()), Faulty::new(1, faults));
        (Intercepted::new(Arc::new(faulty.clone()), Retry::new(settings)), faulty)
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_the_budget_once_and_then_one_attempt_a_call() {
        let settings = RetrySettings { budget: 10, ..RetrySettings::default() };
        let (store, faulty) = store(Faults { unavailable: 1.0, ..Faults::default() }, settings);
        for _ in 0..100 {
            assert_eq!(store.list("x/", None).await.unwrap_err().kind, ErrorKind::Unavailable);
        }
        assert_eq!(faulty.interceptor().calls(), 100 + 10);
        faulty.interceptor().set(Faults::default());
        for _ in 0..20 {
            store.list("x/", None).await.unwrap();
        }
        faulty.interceptor().set(Faults { unavailable: 1.0, ..Faults::default() });
        let before = faulty.interceptor().calls();
        for _ in 0..10 {
            store.list("x/", None).await.unwrap_err();
        }
        assert_eq!(faulty.interceptor().calls() - before, 10 + 2, "twenty successes earned two");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_succeed_or_be_repeated_is_not() {
        let (store, faulty) = store(Faults::default(), RetrySettings::default());
        let name = ObjectName::RootTable;
        store.get(&name, 10).await.unwrap_err();
        assert_eq!(faulty.interceptor().calls(), 1, "not found is an answer");
        faulty.interceptor().set(Faults { unavailable: 1.0, ..Faults::default() });
        store.compare_and_swap(&name, None, bytes::Bytes::new()).await.unwrap_err();
        assert_eq!(faulty.interceptor().calls(), 2, "a swap may have happened");
    }
}
