//! The events that wait and run: bounded, durable, in the order in which they are due.
//!
//! Invariants: an event is counted from before it is stored until after it is removed, so
//! the bounds hold at every moment; it is in the store before its acceptance is answered; an
//! event that runs waits nowhere. After a restart every event that was not ended waits again,
//! also one that ran: an event is run at least once. One that ended but could not be removed
//! from the store is not run again before a restart: only its end is tried again.
//!
//! Shares: a tenant has at most half of the queue and of the places to run, a function at most
//! half of its tenant's, so that neither can keep the others out.

use super::dead_letters::{DeadLetter, DeadLetters};
use super::error::ServiceError;
use super::record::{EventRecord, STORED_VERSION};
use super::settings::EventSettings;
use super::store::{Change, Contents, Store, StoreError, check_version};
use super::time::now_ms;
use bytes::Bytes;
use photon::function::FunctionKey;
use photon::invocation::Invocation;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The wait before what the store did not do is tried again.
pub(super) const STORE_PAUSE_MS: u64 = 10_000;

/// What somebody has of the queue.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    held: usize,
    bytes: u64,
    running: usize,
}

impl Share {
    fn hold(&mut self, bytes: u64) {
        self.held += 1;
        self.bytes += bytes;
    }

    fn release(&mut self, bytes: u64) {
        self.held -= 1;
        self.bytes -= bytes;
    }

    /// Whether `bytes` more fit into an event's `most`.
    fn has_room(&self, bytes: u64, most: Self) -> bool {
        self.held < most.held && self.bytes.saturating_add(bytes) <= most.bytes
    }

    /// Half of it; of a count, at least one.
    fn half(self) -> Self {
        Self { held: self.held.div_ceil(2), bytes: self.bytes / 2, running: self.running.div_ceil(2) }
    }
}

/// What waits and runs for one function.
#[derive(Debug, Default)]
struct Line {
    due: BTreeSet<(u64, u64)>,
    share: Share,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    all: Share,
    tenants: HashMap<String, Share>,
    lines: HashMap<FunctionKey, Line>,
    waiting: HashMap<u64, EventRecord>,
    unsettled: HashMap<u64, Settlement>,
    dead: DeadLetters,
    dropped: u64,
}

/// Figures of the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QueueStats {
    /// Events that wait or run.
    pub events: usize,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Events that ended unsuccessfully and that nobody wanted to be told of.
    pub dropped: u64,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    store: Arc<Store>,
    settings: EventSettings,
    state: Mutex<State>,
    changed: Notify,
}

/// An event that follows from another one.
#[derive(Debug)]
pub(super) struct FollowUp {
    pub(super) key: FunctionKey,
    pub(super) payload: Bytes,
    pub(super) hops: u32,
}

/// What is left of an event that ended.
#[derive(Debug)]
pub(super) enum Remains {
    /// Nothing: it succeeded, or others are told.
    Nothing,
    /// Nothing, and nobody is told although it failed.
    Dropped,
    /// A dead letter.
    Letter(DeadLetter),
}

/// What the end of an event changes, in the store and then in memory.
#[derive(Debug)]
pub(super) struct Settlement {
    changes: Vec<Change>,
    follow_ups: Vec<EventRecord>,
}

/// What to run next.
#[derive(Debug)]
pub(super) enum Pick {
    /// This, now.
    Now(EventRecord),
    /// Nothing before that moment, as far as is known.
    Later(Option<u64>),
}

impl State {
    /// Whether an event of that size fits into what its function, its tenant and all may have.
    fn has_room(&self, key: &FunctionKey, bytes: u64, settings: &EventSettings) -> bool {
        let all =
            Share { held: settings.max_events, bytes: settings.max_bytes, running: settings.concurrency };
        let of_tenant = self.tenants.get(&key.tenant).copied().unwrap_or_default();
        let of_function = self.lines.get(key).map(|line| line.share).unwrap_or_default();
        self.all.has_room(bytes, all)
            && of_tenant.has_room(bytes, all.half())
            && of_function.has_room(bytes, all.half().half())
    }

    fn hold(&mut self, key: &FunctionKey, bytes: u64) -> u64 {
        self.all.hold(bytes);
        self.tenants.entry(key.tenant.clone()).or_default().hold(bytes);
        self.lines.entry(key.clone()).or_default().share.hold(bytes);
        self.next_id += 1;
        self.next_id - 1
    }

    fn release(&mut self, key: &FunctionKey, bytes: u64) {
        self.all.release(bytes);
        if let Some(share) = self.tenants.get_mut(&key.tenant) {
            share.release(bytes);
            if share.held == 0 {
                self.tenants.remove(&key.tenant);
            }
        }
        if let Some(line) = self.lines.get_mut(key) {
            line.share.release(bytes);
            if line.share.held == 0 {
                self.lines.remove(key);
            }
        }
    }

    /// Counts an event as running, or no longer.
    fn run(&mut self, key: &FunctionKey, count: impl Fn(&mut usize)) {
        count(&mut self.all.running);
        if let Some(share) = self.tenants.get_mut(&key.tenant) {
            count(&mut share.running);
        }
        if let Some(line) = self.lines.get_mut(key) {
            count(&mut line.share.running);
        }
    }

    fn ended_running(&mut self, key: &FunctionKey) {
        self.run(key, |running| *running -= 1);
    }

    fn wait(&mut self, event: EventRecord) {
        let line = self.lines.entry(event.key()).or_default();
        line.due.insert((event.due_ms, event.id));
        self.waiting.insert(event.id, event);
    }
}

fn record(id: u64, key: &FunctionKey, invocation: &Invocation, hops: u32) -> EventRecord {
    let now = now_ms();
    EventRecord {
        version: STORED_VERSION,
        id,
        tenant: key.tenant.clone(),
        name: key.name.clone(),
        request_id: invocation.request_id.to_string(),
        accepted_ms: now,
        failures: 0,
        refusals: 0,
        due_ms: now,
        payload_bytes: u64::try_from(invocation.payload.len()).unwrap_or(u64::MAX),
        client_context: invocation.client_context.clone(),
        trace_id: invocation.trace_id.clone(),
        hops,
    }
}

impl Queue {
    /// The queue of a store, with what was in it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names the first entry that cannot be read.
    pub fn load(
        store: Arc<Store>,
        contents: &Contents,
        path: &Path,
        settings: EventSettings,
    ) -> Result<Self, StoreError> {
        let mut state = State::default();
        let damaged = |table, id: u64, error: serde_json::Error| StoreError::Damaged {
            path: path.to_path_buf(),
            table,
            key: id.to_string(),
            reason: error.to_string(),
        };
        for (id, bytes) in &contents.dead {
            let letter: DeadLetter =
                serde_json::from_slice(bytes).map_err(|error| damaged("dead", *id, error))?;
            state.dead.insert(DeadLetter { id: *id, ..letter });
        }
        for (id, bytes) in &contents.events {
            check_version(bytes, STORED_VERSION, (path, "events", &id.to_string()))?;
            let event: EventRecord =
                serde_json::from_slice(bytes).map_err(|error| damaged("events", *id, error))?;
            let event = EventRecord { id: *id, ..event };
            state.hold(&event.key(), event.payload_bytes);
            state.wait(event);
        }
        let last = contents.events.last().map(|(id, _)| *id).max(state.dead.last_id());
        state.next_id = last.map_or(0, |id| id + 1);
        Ok(Self { store, settings, state: Mutex::new(state), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // counts and entries change together, in sections that do not panic
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in. It is stored when this returns; an event whose caller went away
    /// meanwhile may be stored as well.
    ///
    /// # Errors
    /// [`ServiceError`] at once where the queue, or its tenant's or function's share of it, is full.
    pub async fn accept(
        self: &Arc<Self>,
        key: FunctionKey,
        invocation: Invocation,
    ) -> Result<(), ServiceError> {
        let bytes = u64::try_from(invocation.payload.len()).unwrap_or(u64::MAX);
        let id = {
            let mut state = self.state();
            if !state.has_room(&key, bytes, &self.settings) {
                return Err(ServiceError::throttled(
                    "CallerRateLimitExceeded",
                    "Rate Exceeded: the queue of events is full; invoke again later",
                ));
            }
            state.hold(&key, bytes)
        };
        let queue = Arc::clone(self);
        // a task of its own: a caller that goes away must not leave an event that is stored but
        // waits nowhere
        let stored = tokio::spawn(async move {
            let event = record(id, &key, &invocation, 0);
            let payload = Some(invocation.payload.clone());
            let change = Change::PutEvent { id, record: event.to_bytes(), payload };
            let stored = queue.store.commit(vec![change]).await;
            {
                let mut state = queue.state();
                match &stored {
                    Ok(()) => state.wait(event),
                    Err(_) => state.release(&key, bytes),
                }
            }
            queue.changed.notify_one();
            stored
        });
        let stored = stored.await.map_err(|error| ServiceError::service(error.to_string()))?;
        stored.map_err(|error| ServiceError::service(error.to_string()))
    }

    /// What to run next.
    pub(super) fn pick(&self, now: u64) -> Pick {
        let mut state = self.state();
        let of_tenant = self.settings.concurrency.div_ceil(2);
        let of_function = of_tenant.div_ceil(2);
        let is_free = |key: &FunctionKey, line: &Line| {
            let tenant = state.tenants.get(&key.tenant).copied().unwrap_or_default();
            line.share.running < of_function && tenant.running < of_tenant
        };
        let free = state.lines.iter().filter(|(key, line)| is_free(key, line));
        let first = free.filter_map(|(key, line)| line.due.first().map(|&due| (due, key))).min();
        match first {
            Some(((due, id), key)) if due <= now => {
                let key = key.clone();
                if let Some(line) = state.lines.get_mut(&key) {
                    line.due.remove(&(due, id));
                }
                state.run(&key, |running| *running += 1);
                match state.waiting.remove(&id) {
                    Some(event) => Pick::Now(event),
                    None => Pick::Later(None),
                }
            }
            Some(((due, _), _)) => Pick::Later(Some(due)),
            None => Pick::Later(None),
        }
    }

    /// Ends when there may be something new to run. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Puts an event that ran back, due at `event.due_ms`; `store` says whether to remember
    /// the attempt over a restart.
    pub(super) async fn again(&self, event: EventRecord, store: bool) {
        if store {
            let change = Change::PutEvent { id: event.id, record: event.to_bytes(), payload: None };
            // without it, the attempt is not counted after a restart
            let _ = self.store.commit(vec![change]).await;
        }
        let mut state = self.state();
        state.ended_running(&event.key());
        state.wait(event);
        drop(state);
        self.changed.notify_one();
    }

    /// Ends an event that ran: removed, or kept as a dead letter; and what follows from it is
    /// stored in the same transaction.
    pub(super) async fn end(&self, event: EventRecord, remains: Remains, then: Vec<FollowUp>) {
        let mut changes = Vec::new();
        let mut follow_ups = Vec::new();
        {
            let mut state = self.state();
            state.dropped += u64::from(matches!(remains, Remains::Dropped));
            match remains {
                Remains::Letter(letter) => changes.extend(state.dead.bury(letter, &self.settings)),
                Remains::Nothing | Remains::Dropped => changes.push(Change::RemoveEvent(event.id)),
            }
            for FollowUp { key, payload, hops } in then {
                let invocation = Invocation::new(payload);
                let bytes = u64::try_from(invocation.payload.len()).unwrap_or(u64::MAX);
                let id = state.hold(&key, bytes);
                let follow_up = record(id, &key, &invocation, hops);
                let payload = Some(invocation.payload);
                changes.push(Change::PutEvent { id, record: follow_up.to_bytes(), payload });
                follow_ups.push(follow_up);
            }
        }
        self.settle(event, Settlement { changes, follow_ups }).await;
    }

    /// What is left to do for an event that was picked but had ended before.
    pub(super) fn unsettled(&self, id: u64) -> Option<Settlement> {
        self.state().unsettled.remove(&id)
    }

    /// Writes the end of an event. Where that fails the event is due again some time later, for
    /// this alone; until then it counts, and so does what follows from it.
    pub(super) async fn settle(&self, mut event: EventRecord, settlement: Settlement) {
        let stored = self.store.commit(settlement.changes.clone()).await;
        let mut state = self.state();
        let key = event.key();
        state.ended_running(&key);
        if let Err(error) = stored {
            tracing::error!(%error, function = %key, request = event.request_id, "an event's end was not stored");
            event.due_ms = now_ms().saturating_add(STORE_PAUSE_MS);
            state.unsettled.insert(event.id, settlement);
            state.wait(event);
        } else {
            state.release(&key, event.payload_bytes);
            state.dead.buried(event.id);
            settlement.follow_ups.into_iter().for_each(|follow_up| state.wait(follow_up));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Whether another event of that size finds room now.
    pub(super) fn has_room(&self, key: &FunctionKey, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.state().has_room(key, bytes, &self.settings)
    }

    /// The payload of an event or dead letter.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn payload(&self, id: u64) -> Result<Option<Bytes>, StoreError> {
        self.store.payload(id).await
    }

    /// A tenant's dead letters, the oldest first.
    #[must_use]
    pub fn dead_letters(&self, tenant: &str) -> Vec<DeadLetter> {
        self.state().dead.of_tenant(tenant)
    }

    /// Removes dead letters.
    ///
    /// # Errors
    /// [`StoreError`] if they are still there.
    pub async fn remove_dead_letters(&self, ids: &[u64]) -> Result<(), StoreError> {
        self.store.commit(ids.iter().map(|&id| Change::RemoveDead(id)).collect()).await?;
        let mut state = self.state();
        ids.iter().for_each(|&id| state.dead.remove(id));
        Ok(())
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let state = self.state();
        QueueStats { events: state.all.held, bytes: state.all.bytes, dropped: state.dropped }
    }
}

#[cfg(test)]
mod tests;
