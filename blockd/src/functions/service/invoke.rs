//! Calling functions, sending them events, and what there is to see of them.

use super::super::dead_letters::DeadLetter;
use super::super::error::{ErrorCode, ServiceError};
use super::super::queue::QueueStats;
use super::super::registry::Entry;
use super::{Caller, MAX_EVENT_BYTES, Service, detached};
use bytes::Bytes;
use photon::function::FunctionKey;
use photon::invocation::{FunctionStats, Invocation, LogLine, Reply};
use std::sync::Arc;

/// Payloads above this are looked at away from the async threads: the JSON check does some
/// hundred MB/s, and a reactor may be held up for a millisecond or two.
const INLINE_BYTES: usize = 256 << 10;

impl Service {
    async fn check_payload(payload: Bytes) -> Result<Bytes, ServiceError> {
        let check = |payload: Bytes| {
            if payload.is_empty() {
                return Ok(Bytes::from_static(b"{}"));
            }
            serde_json::from_slice::<serde::de::IgnoredAny>(&payload).map_err(|error| {
                ServiceError::new(
                    ErrorCode::InvalidRequestContent,
                    format!("Could not parse request body into json: {error}"),
                )
            })?;
            Ok(payload)
        };
        if payload.len() <= INLINE_BYTES {
            return check(payload);
        }
        let checked = tokio::task::spawn_blocking(move || check(payload)).await;
        checked.map_err(|error| ServiceError::service(error.to_string()))?
    }

    /// Calls a function and waits for its answer. Cancel-safe as [`photon::invocation::Invoker::invoke`] is.
    ///
    /// # Errors
    /// [`ServiceError`] where it did not run; that it failed is part of the reply.
    pub async fn call(&self, entry: &Entry, invocation: Invocation) -> Result<Reply, ServiceError> {
        let function = entry.function()?;
        let running = entry.begin()?;
        let payload = Self::check_payload(invocation.payload).await?;
        let invocation = Invocation { payload, ..invocation };
        if function.reserved_concurrency.is_none() {
            return Ok(self.invoker.invoke(function, invocation).await?);
        }
        // it counts until it has ended, also if its caller goes away before
        let invoker = Arc::clone(&self.invoker);
        detached(async move {
            let _running = running;
            Ok(invoker.invoke(function, invocation).await?)
        })
        .await
    }

    /// Accepts an event for a function: on disk when this returns, run some time later.
    ///
    /// # Errors
    /// [`ServiceError`] if it is too long, no JSON, or the queue is full.
    pub async fn send(&self, entry: &Entry, invocation: Invocation) -> Result<(), ServiceError> {
        entry.function()?;
        let bytes = invocation.payload.len();
        if bytes > MAX_EVENT_BYTES {
            return Err(ServiceError::new(
                ErrorCode::RequestTooLarge,
                format!(
                    "{bytes} byte payload is too large for the Event invocation type (limit {MAX_EVENT_BYTES} bytes)"
                ),
            ));
        }
        let payload = Self::check_payload(invocation.payload).await?;
        self.queue.accept(entry.definition.key(), Invocation { payload, ..invocation }).await
    }

    /// What a function's sandboxes do.
    #[must_use]
    pub fn stats(&self, entry: &Entry) -> FunctionStats {
        self.invoker.stats(&entry.definition.key())
    }

    /// Whether there is any function.
    #[must_use]
    pub fn has_functions(&self) -> bool {
        !self.registry.all().is_empty()
    }

    /// What the sandboxes of all functions of all tenants do.
    #[must_use]
    pub fn all_stats(&self) -> Vec<(FunctionKey, FunctionStats)> {
        let stats = |key: FunctionKey| {
            let stats = self.invoker.stats(&key);
            (key, stats)
        };
        self.registry.all().into_iter().map(stats).collect()
    }

    /// The newest log lines of a function, oldest first, at most `most` bytes.
    #[must_use]
    pub fn logs(&self, entry: &Entry, most: usize) -> Vec<LogLine> {
        self.invoker.logs(&entry.definition.key(), most)
    }

    /// Figures of the queue of events.
    #[must_use]
    pub fn queue_stats(&self) -> QueueStats {
        self.queue.stats()
    }

    /// The caller's dead letters, the oldest first, at most `most` and from the first id after
    /// `after` on, with their payloads.
    ///
    /// # Errors
    /// [`ServiceError`] if the store cannot be read.
    pub async fn dead_letters(
        &self,
        caller: &Caller,
        after: Option<u64>,
        most: usize,
    ) -> Result<Vec<(DeadLetter, Bytes)>, ServiceError> {
        let mut found = Vec::new();
        let letters = self.queue.dead_letters(&caller.tenant).into_iter();
        for letter in letters.filter(|letter| after.is_none_or(|after| letter.id > after)).take(most) {
            if let Some(payload) = self.queue.payload(letter.id).await? {
                found.push((letter, payload));
            }
        }
        Ok(found)
    }

    /// Removes the caller's dead letters with these ids; others' and unknown ones stay as
    /// they are.
    ///
    /// # Errors
    /// [`ServiceError`] if the store cannot be written.
    pub async fn remove_dead_letters(&self, caller: &Caller, ids: &[u64]) -> Result<usize, ServiceError> {
        let own = self.queue.dead_letters(&caller.tenant);
        let own: Vec<u64> = own.iter().map(|letter| letter.id).filter(|id| ids.contains(id)).collect();
        self.queue.remove_dead_letters(&own).await?;
        Ok(own.len())
    }
}
