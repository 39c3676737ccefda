//! Room on the host: what each tenant may have of it, memory promised to sandboxes that start,
//! and for a function that has none, that of idle sandboxes of others, which go for it.
//!
//! Invariants: what is promised is the sum of all promises that were not ended; only sandboxes without an invocation go, of functions that nobody waits for; those
//! first whose keeping is worth least (see [`crate::policy::keepalive`]); no more go than are
//! wanted, those that already go counted.

use super::Shared;
use super::handle::Handle;
use crate::policy::admission::{Phase, Refusal, View, coming};
use crate::policy::keepalive::{IdleSandbox, make_room};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Of starts and of sandboxes, an eighth is for tenants that have none.
const RESERVED: usize = 8;

/// What each tenant has. Whoever comes while another tenant holds all that it can get must not
/// wait for that one's goodwill.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<String, Held>>);

/// What a tenant has, or may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Starts under way.
    pub(super) starts: usize,
    /// Sandboxes, with those that start.
    pub(super) sandboxes: usize,
}

impl Shares {
    /// Notes what a tenant has now, or that it is there at all.
    pub(super) fn change(&self, tenant: &str, change: impl FnOnce(&mut Held)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(tenant) {
            Some(held) => change(held),
            None => change(all.entry(tenant.into()).or_default()),
        }
    }

    /// The most that a tenant may have with all others, where all may have `most`: less than that
    /// if it has some already, and is not alone on this worker.
    pub(super) fn most(&self, tenant: &str, most: Held) -> Held {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.get(tenant).copied().unwrap_or_default();
        let is_alone = all.keys().all(|other| other == tenant);
        let share =
            |most: usize, own: usize| if is_alone || own == 0 { most } else { most - most / RESERVED };
        Held { starts: share(most.starts, own.starts), sandboxes: share(most.sandboxes, own.sandboxes) }
    }
}

/// Memory that a sandbox may come to need, as far as it does not use it yet. Without it, all that
/// start at once would be given the same free memory.
#[derive(Debug)]
pub(super) struct Promise {
    /// Of all sandboxes, in bytes.
    total: Arc<AtomicU64>,
    bytes: u64,
    /// What of it is in the total.
    left: Mutex<u64>,
}

impl Promise {
    pub(super) fn new(total: &Arc<AtomicU64>, bytes: u64) -> Self {
        total.fetch_add(bytes, Ordering::AcqRel);
        Self { total: Arc::clone(total), bytes, left: Mutex::new(bytes) }
    }

    fn left(&self) -> MutexGuard<'_, u64> {
        // one number, set whole
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much of it is used, and seen to be: only what is above that is promised on.
    pub(super) fn used(&self, bytes: u64) {
        let mut left = self.left();
        let now = self.bytes.saturating_sub(bytes).min(*left);
        self.total.fetch_sub(*left - now, Ordering::AcqRel);
        *left = now;
    }

    /// All that it needed for its start is used.
    pub(super) fn end(&self) {
        self.used(u64::MAX);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a function is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Places for sandboxes.
    pub(super) sandboxes: usize,
    /// Bytes of memory.
    pub(super) bytes: u64,
}

impl Wanted {
    /// What those that wait are short of.
    pub(super) fn of(host: &View<'_>, refusal: Refusal) -> Self {
        let sandboxes = host.waiting.saturating_sub(coming(host)).div_ceil(host.limit.max(1));
        let all = host.sandbox_bytes.saturating_mul(u64::try_from(sandboxes).unwrap_or(u64::MAX));
        let by_memory = matches!(refusal, Refusal::Memory { .. });
        Self { sandboxes, bytes: if by_memory { all.saturating_sub(host.memory_bytes) } else { 0 } }
    }
}

/// Ends idle sandboxes of whichever function. False if there are none, and none are going: there
/// is no room to wait for. No lock of a group may be held.
pub(super) fn make(shared: &Shared, wanted: Wanted) -> bool {
    let now = Instant::now();
    let (mut going, mut going_bytes) = (0_usize, 0_u64);
    let (mut handles, mut candidates): (Vec<Arc<Handle>>, Vec<IdleSandbox>) = Default::default();
    for entry in shared.all() {
        let groups = entry.groups().clone();
        // a sandbox of a function for which somebody waits is idle for this moment only
        let settled = groups.iter().filter(|group| !group.has_waiting());
        for handle in settled.flat_map(|group| group.sandboxes()) {
            let memory_bytes = handle.memory_bytes();
            if handle.phase() == Phase::Closing && handle.slots.in_flight() == 0 {
                going += 1;
                going_bytes = going_bytes.saturating_add(memory_bytes);
            } else if let Some(idle_since) = handle.idle_since(now) {
                candidates.push(IdleSandbox { idle_since, memory_bytes, start: handle.start_took() });
                handles.push(handle);
            }
        }
    }
    let bytes = wanted.bytes.saturating_sub(going_bytes);
    let chosen = make_room(&candidates, bytes, wanted.sandboxes.saturating_sub(going), now);
    for index in &chosen {
        handles[*index].drain();
    }
    going > 0 || !chosen.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_has_some_leaves_some_to_others() {
        let (shares, most) = (Shares::default(), Held { starts: 16, sandboxes: 7 });
        shares.change("one", |held| *held = Held { starts: 14, sandboxes: 7 });
        assert_eq!(shares.most("one", most), most, "it is alone");
        shares.change("other", |_| {});
        assert_eq!(shares.most("one", most), Held { starts: 14, sandboxes: 7 }, "an eighth of 7 is none");
        assert_eq!(shares.most("other", most), most);
        shares.change("other", |held| held.starts += 1);
        assert_eq!(shares.most("other", most).starts, 14);
    }

    #[test]
    fn what_is_promised_is_what_is_not_used_yet() {
        let total = Arc::new(AtomicU64::new(0));
        let (one, other) = (Promise::new(&total, 100), Promise::new(&total, 50));
        let left = || total.load(Ordering::Acquire);
        assert_eq!(left(), 150);
        one.used(30);
        assert_eq!(left(), 120);
        // memory that it gave back is not promised again
        one.used(10);
        assert_eq!(left(), 120);
        one.used(1000);
        assert_eq!(left(), 50);
        other.end();
        other.end();
        assert_eq!(left(), 0);
        let third = Promise::new(&total, 7);
        drop((one, other, third));
        assert_eq!(left(), 0);
    }
}
