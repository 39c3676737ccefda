//! Counting what a store is asked: for tests that promise a number of requests, and for
//! benches that print them.

use crate::intercept::{Answer, Call, Interceptor};
use crate::store::Result;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What one kind of call came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Calls, also failed ones.
    pub calls: u64,
    /// Bytes sent to the store.
    pub sent: u64,
    /// Bytes of objects that came back.
    pub received: u64,
}

/// Counts calls and bytes, by operation.
#[derive(Debug, Default)]
pub struct Counting(Mutex<BTreeMap<&'static str, Counted>>);

impl Counting {
    /// Everything since the start or the last [`Self::take`], by operation.
    #[must_use]
    pub fn take(&self) -> BTreeMap<&'static str, Counted> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Interceptor for Counting {
    async fn around<A, T, F>(&self, call: &Call, attempt: A) -> Result<T>
    where
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<T>> + Send,
        T: Answer,
    {
        let answer = attempt().await;
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counts.entry(call.operation).or_default();
        counted.calls += 1;
        counted.sent += call.sent as u64;
        counted.received += answer.as_ref().map_or(0, |answer| answer.received() as u64);
        drop(counts);
        answer
    }
}
