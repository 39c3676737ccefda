//! The double that fails: outages, lost answers, damaged and cut objects, from one seed.

use crate::intercept::{Answer, Call, Interceptor};
use crate::store::{ErrorKind, Result};
use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often what goes wrong, each from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// The call never reaches the store.
    pub unavailable: f64,
    /// The store does as told, and the answer is lost.
    pub lost_answers: f64,
    /// One bit of an object's bytes is wrong.
    pub damaged: f64,
    /// The end of an object's bytes is missing.
    pub cut: f64,
    /// The answer comes after [`Faults::delay`].
    pub slow: f64,
    /// How long slow answers take.
    pub delay: Duration,
}

/// Injects [`Faults`], in an order that the seed determines.
#[derive(Debug)]
pub struct Faulty {
    faults: Mutex<Faults>,
    state: AtomicU64,
    calls: AtomicU64,
}

impl Faulty {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64, faults: Faults) -> Self {
        Self { faults: Mutex::new(faults), state: AtomicU64::new(seed), calls: AtomicU64::new(0) }
    }

    /// Other faults from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The next of a sequence of numbers that look random (SplitMix64).
    fn next(&self) -> u64 {
        let state = self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn happens(&self, share: f64) -> bool {
        // 53 bits are what a float holds exactly
        share > 0.0 && ((self.next() >> 11) as f64) < share * (1_u64 << 53) as f64
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }
}

#[async_trait]
impl Interceptor for Faulty {
    async fn around<A, T, F>(&self, call: &Call, attempt: A) -> Result<T>
    where
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<T>> + Send,
        T: Answer,
    {
        let faults = *self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.happens(faults.unavailable) {
            return Err(call.failed(ErrorKind::Unavailable, "injected: no connection"));
        }
        if self.happens(faults.slow) {
            tokio::time::sleep(faults.delay).await;
        }
        let mut answer = attempt().await?;
        if self.happens(faults.lost_answers) {
            return Err(call.failed(ErrorKind::Unavailable, "injected: the answer was lost"));
        }
        let damaged = self.happens(faults.damaged);
        let cut = self.happens(faults.cut);
        if let Some(content) = answer.content().filter(|content| !content.is_empty()) {
            if damaged {
                let mut bytes = content.to_vec();
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
                *content = bytes.into();
            }
            if cut {
                *content = content.slice(..self.below(content.len()));
            }
        }
        Ok(answer)
    }
}
