//! The shared object store of a sandbox: values that its invocations share on purpose
//! (Photons, section 4.3), with the coordination that the paper leaves to its users.
//!
//! - `get`, `put`, `delete`, each with a condition on the version (compare and swap);
//! - *get or initialise exactly once*: of all that ask for a missing value, one is given a
//!   lease to make it, the others wait; a lease given up or expired goes to one of them;
//! - *named leases*: at most one holder at a time, for a bounded time;
//! - values may expire, and the least recently used go when the byte budget is full.
//!
//! Invariants:
//! - A version is never used twice, not even after a delete, so a condition never holds by
//!   accident.
//! - A lease is never in transit: who waits takes it himself under the lock, in the same poll
//!   that returns it. A waiter that is dropped therefore loses nothing, and each way of leaving
//!   the queue wakes the next in it. Waiters are served in the order they came.
//! - At most one lease per key or name is valid; an expired one is as good as none.
//! - The sum of all charges is at most the budget. The value of a key whose named lease is held
//!   is never evicted; a key that is being initialised has no value that could be.
//! - While values that were replaced or evicted and are still being read exceed another budget
//!   of the same size, nothing is put. So slow readers hold a bounded amount, too.
//!
//! Least recently used, and nothing cleverer: a sandbox keeps few and long-lived objects, and
//! an author must be able to tell which of them goes first.
//!
//! Used by the Runtime API server, one store per sandbox, through [`router`]; it dies with its
//! sandbox. Time is tokio's clock.

mod http;
mod model;
mod queue;
mod state;

pub use http::router;
pub use model::{
    Condition, Init, LeaseToken, PutOptions, StoreError, StoreLimits, StoreMetrics, Stored, Version,
};

use bytes::Bytes;
use queue::Ticket;
use state::{Charged, Place, State};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most bytes of a key or of a lease's name.
pub const MOST_KEY_BYTES: usize = 1024;
/// Longest wait for a value or a lease. Below the minute or more after which clients and
/// proxies give up on a silent connection.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest lease: the longest invocation that AWS allows, after which no holder lives.
pub const LONGEST_LEASE: Duration = Duration::from_secs(900);
/// Charged for each value besides its key and its bytes, so that empty values are not free.
const ENTRY_BYTES: u64 = 256;

/// The store of one sandbox. See the module for what it promises.
pub struct SharedStore {
    limits: StoreLimits,
    /// Charges of all values that exist, those only being read included.
    alive: Arc<AtomicU64>,
    state: Mutex<State>,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl SharedStore {
    /// An empty one.
    #[must_use]
    pub fn new(limits: StoreLimits) -> Self {
        Self { limits, alive: Arc::default(), state: Mutex::default() }
    }

    /// What it may hold.
    #[must_use]
    pub fn limits(&self) -> &StoreLimits {
        &self.limits
    }

    /// A key's value.
    ///
    /// # Errors
    /// [`StoreError::Key`]; [`StoreError::NotFound`] where there is none.
    pub fn get(&self, key: &str) -> Result<Stored, StoreError> {
        checked(key)?;
        let mut state = self.lock();
        state.expire(Instant::now());
        match state.touch(key) {
            Some(stored) => {
                state.hits += 1;
                Ok(stored)
            }
            None => {
                state.misses += 1;
                Err(StoreError::NotFound)
            }
        }
    }

    /// Gives a key a value and wakes those who wait for it. An initialisation under way ends:
    /// its lease is void from then on, whoever put the value.
    ///
    /// # Errors
    /// [`StoreError::Key`], [`Condition`](StoreError::Condition), [`Lease`](StoreError::Lease),
    /// [`TooLarge`](StoreError::TooLarge), [`Full`](StoreError::Full). Nothing is changed then,
    /// and a lease given stays as it was.
    pub fn put(&self, key: &str, value: Bytes, options: &PutOptions) -> Result<Version, StoreError> {
        checked(key)?;
        let charge = charge_of(key, value.len());
        let budget_bytes = self.limits.budget_bytes;
        if charge > budget_bytes {
            return Err(StoreError::TooLarge { charge, budget_bytes });
        }
        let now = Instant::now();
        let mut state = self.lock();
        state.expire(now);
        let place = Place::Value(key.into());
        let present = state.entries.get(key).map(|entry| entry.version);
        if let Some(token) = &options.lease
            && !state.holds(&place, token, now)
        {
            return Err(StoreError::Lease { present });
        }
        if !options.condition.holds(present) {
            return Err(StoreError::Condition { present });
        }
        // values out of the store that readers still hold: while they are too many, none are added
        let only_read = self.alive.load(Ordering::Relaxed).saturating_sub(state.bytes);
        if only_read > budget_bytes || !state.make_room(key, charge, budget_bytes, now) {
            return Err(StoreError::Full { charge });
        }
        self.alive.fetch_add(charge, Ordering::Relaxed);
        let value = Bytes::from_owner(Charged { bytes: value, charge, alive: Arc::clone(&self.alive) });
        let version =
            state.insert(key.into(), value, charge, options.ttl.and_then(|ttl| now.checked_add(ttl)));
        state.leases.remove(&place);
        state.queues.wake_all(&place);
        Ok(version)
    }

    /// Takes a key's value away. An initialisation under way goes on.
    ///
    /// # Errors
    /// [`StoreError::Key`], [`NotFound`](StoreError::NotFound), [`Condition`](StoreError::Condition).
    pub fn delete(&self, key: &str, condition: Condition) -> Result<(), StoreError> {
        checked(key)?;
        let mut state = self.lock();
        state.expire(Instant::now());
        let present = state.entries.get(key).map(|entry| entry.version).ok_or(StoreError::NotFound)?;
        if !condition.holds(Some(present)) {
            return Err(StoreError::Condition { present: Some(present) });
        }
        state.remove(key);
        Ok(())
    }

    /// A key's value, or for exactly one of those who ask the lease to make it, for at most
    /// `lease`; the others wait, at most `wait`. Both are cut to the longest allowed.
    ///
    /// Cancel-safe: dropped, the call has taken no lease. A caller that is gone by the time the
    /// lease is returned keeps it until it expires.
    ///
    /// # Errors
    /// [`StoreError::Key`], [`Timeout`](StoreError::Timeout), [`Busy`](StoreError::Busy).
    pub async fn init(&self, key: &str, wait: Duration, lease: Duration) -> Result<Init, StoreError> {
        checked(key)?;
        let place = Place::Value(key.into());
        self.take(&place, wait, |state, now, turn| {
            if let Some(stored) = state.touch(key) {
                state.hits += 1;
                return Ok(Some(Init::Present(stored)));
            }
            if !turn {
                return Ok(None);
            }
            let token = state.grant(&place, lease, now, self.limits.most_leases)?;
            state.inits += u64::from(token.is_some());
            Ok(token.map(Init::Make))
        })
        .await
    }

    /// Gives an initialisation up: the next who waits gets the lease.
    ///
    /// # Errors
    /// [`StoreError::Key`]; [`StoreError::Lease`] where it was not the caller's.
    pub fn give_up(&self, key: &str, token: &LeaseToken) -> Result<(), StoreError> {
        checked(key)?;
        self.end_lease(&Place::Value(key.into()), token)
    }

    /// The lease of a name for at most `ttl`, after waiting at most `wait`. Both are cut to the
    /// longest allowed. While it is held, the value of the same key is not evicted.
    ///
    /// Cancel-safe as [`init`](Self::init).
    ///
    /// # Errors
    /// [`StoreError::Key`], [`Timeout`](StoreError::Timeout), [`Busy`](StoreError::Busy).
    pub async fn acquire(&self, name: &str, ttl: Duration, wait: Duration) -> Result<LeaseToken, StoreError> {
        checked(name)?;
        let place = Place::Name(name.into());
        let most = self.limits.most_leases;
        self.take(
            &place,
            wait,
            |state, now, turn| {
                if turn { state.grant(&place, ttl, now, most) } else { Ok(None) }
            },
        )
        .await
    }

    /// Ends a named lease: the next who waits gets it.
    ///
    /// # Errors
    /// [`StoreError::Key`]; [`StoreError::Lease`] where it was not the caller's.
    pub fn release(&self, name: &str, token: &LeaseToken) -> Result<(), StoreError> {
        checked(name)?;
        self.end_lease(&Place::Name(name.into()), token)
    }

    /// Figures as of now.
    #[must_use]
    pub fn metrics(&self) -> StoreMetrics {
        let mut state = self.lock();
        state.expire(Instant::now());
        StoreMetrics {
            keys: state.entries.len(),
            bytes: state.bytes,
            budget_bytes: self.limits.budget_bytes,
            hits: state.hits,
            misses: state.misses,
            evictions: state.evictions,
            expired: state.expired,
            inits: state.inits,
            waits: state.waits,
        }
    }

    /// Tries until the attempt gives something, it is `wait` later, or there is an error. An
    /// attempt is told whether it is its turn to take a lease: the first in the queue's, or
    /// anybody's where none is.
    async fn take<T>(
        &self,
        place: &Place,
        wait: Duration,
        mut attempt: impl FnMut(&mut State, Instant, bool) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            let now = Instant::now();
            let wake_at = {
                let mut guard = self.lock();
                let state = &mut *guard;
                state.expire(now);
                let turn = match &waiting {
                    Some(waiting) => state.queues.is_first(place, &waiting.ticket),
                    None => state.queues.is_empty_at(place),
                };
                match attempt(state, now, turn) {
                    Ok(None) if now < deadline => {}
                    Ok(None) => return leave(guard, waiting, Err(StoreError::Timeout)),
                    Ok(Some(taken)) => return leave(guard, waiting, Ok(taken)),
                    Err(error) => return leave(guard, waiting, Err(error)),
                }
                let first = match waiting {
                    Some(_) => turn,
                    None => {
                        let most = self.limits.most_waiters;
                        if state.queues.len() >= most {
                            return Err(StoreError::Busy { what: "waiters", most });
                        }
                        state.waits += 1;
                        let ticket = state.queues.join(place);
                        waiting = Some(Waiting { store: self, place, ticket });
                        turn
                    }
                };
                // only the first need know when the lease runs out: who follows is woken by him
                state.leases.get(place).filter(|_| first).map_or(deadline, |l| l.expires.min(deadline))
            };
            if let Some(waiting) = &waiting {
                // running out is no error here: the next round looks at the clock
                let _ = tokio::time::timeout_at(wake_at, waiting.ticket.woken()).await;
            }
        }
    }

    fn end_lease(&self, place: &Place, token: &LeaseToken) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut state = self.lock();
        state.expire(now);
        if !state.holds(place, token, now) {
            let present = match place {
                Place::Value(key) => state.entries.get(key).map(|entry| entry.version),
                Place::Name(_) => None,
            };
            return Err(StoreError::Lease { present });
        }
        state.leases.remove(place);
        state.queues.wake_first(place);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // nothing panics half-way through a change of the state
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unlocks before the place in the queue is left, which locks again.
fn leave<T>(
    guard: MutexGuard<'_, State>,
    waiting: Option<Waiting<'_>>,
    result: Result<T, StoreError>,
) -> Result<T, StoreError> {
    drop(guard);
    drop(waiting);
    result
}

/// A place in a queue, left when dropped.
struct Waiting<'a> {
    store: &'a SharedStore,
    place: &'a Place,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.store.lock().queues.leave(self.place, &self.ticket);
    }
}

fn checked(key: &str) -> Result<(), StoreError> {
    match key.len() {
        1..=MOST_KEY_BYTES => Ok(()),
        length => Err(StoreError::Key { length }),
    }
}

fn charge_of(key: &str, value_bytes: usize) -> u64 {
    let bytes = key.len().saturating_add(value_bytes);
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests;
