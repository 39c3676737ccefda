//! What a store holds, behind its lock: values by key, by last use and by expiry, and leases.
//!
//! Invariants: the three views of the values agree; `bytes` is the sum of their charges; an
//! expired lease is as good as none and is dropped when its place is taken or room is short.
//! Everything here is immediate; waiting is the store's business.

use super::LONGEST_LEASE;
use super::model::{LeaseToken, StoreError, Stored, Version};
use super::queue::Queues;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of a value, charged until the last reader drops them.
pub(super) struct Charged {
    pub(super) bytes: Bytes,
    pub(super) charge: u64,
    pub(super) alive: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.charge, Ordering::Relaxed);
    }
}

pub(super) struct Entry {
    pub(super) value: Bytes,
    pub(super) version: Version,
    pub(super) charge: u64,
    pub(super) used: u64,
    pub(super) expires: Option<Instant>,
}

pub(super) struct Lease {
    pub(super) token: LeaseToken,
    pub(super) expires: Instant,
}

/// A named lease and the initialisation of a key of the same name are different things.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    Value(Arc<str>),
    Name(Arc<str>),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: HashMap<Arc<str>, Entry>,
    /// By last use, oldest first.
    pub(super) recency: BTreeMap<u64, Arc<str>>,
    pub(super) expiry: BTreeSet<(Instant, Arc<str>)>,
    pub(super) leases: HashMap<Place, Lease>,
    pub(super) queues: Queues<Place>,
    pub(super) bytes: u64,
    pub(super) ticks: u64,
    pub(super) versions: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
    pub(super) expired: u64,
    pub(super) inits: u64,
    pub(super) waits: u64,
}

impl State {
    /// Drops values whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.expiry.first()
            && *at <= now
        {
            let key = Arc::clone(key);
            self.remove(&key);
            self.expired += 1;
        }
    }

    /// Reads a value and makes it the most recently used.
    pub(super) fn touch(&mut self, key: &str) -> Option<Stored> {
        let entry = self.entries.get_mut(key)?;
        self.ticks += 1;
        if let Some(key) = self.recency.remove(&entry.used) {
            self.recency.insert(self.ticks, key);
        }
        entry.used = self.ticks;
        Some(Stored { value: entry.value.clone(), version: entry.version })
    }

    /// Evicts until the charge fits beside all but the key's own value. Evicts nothing, and
    /// returns false, where even evicting all that may go would not do.
    pub(super) fn make_room(&mut self, key: &str, charge: u64, budget: u64, now: Instant) -> bool {
        let own = self.entries.get(key).map_or(0, |entry| entry.charge);
        let mut others = self.bytes - own;
        if others + charge <= budget {
            return true;
        }
        let mut pinned = 0;
        for (place, lease) in &self.leases {
            if let Place::Name(name) = place
                && **name != *key
                && lease.expires > now
            {
                pinned += self.entries.get(name).map_or(0, |entry| entry.charge);
            }
        }
        if pinned + charge > budget {
            return false;
        }
        let mut going = Vec::new();
        for candidate in self.recency.values() {
            if others + charge <= budget {
                break;
            }
            let lease = self.leases.get(&Place::Name(Arc::clone(candidate)));
            if **candidate != *key && lease.is_none_or(|lease| lease.expires <= now) {
                others -= self.entries.get(candidate).map_or(0, |entry| entry.charge);
                going.push(Arc::clone(candidate));
            }
        }
        for key in going {
            self.remove(&key);
            self.evictions += 1;
        }
        true
    }

    pub(super) fn insert(
        &mut self,
        key: Arc<str>,
        value: Bytes,
        charge: u64,
        expires: Option<Instant>,
    ) -> Version {
        self.remove(&key);
        self.versions += 1;
        self.ticks += 1;
        let version = Version(self.versions);
        self.bytes += charge;
        self.recency.insert(self.ticks, Arc::clone(&key));
        if let Some(at) = expires {
            self.expiry.insert((at, Arc::clone(&key)));
        }
        self.entries.insert(key, Entry { value, version, charge, used: self.ticks, expires });
        version
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.bytes -= entry.charge;
            self.recency.remove(&entry.used);
            if let Some(at) = entry.expires {
                self.expiry.remove(&(at, key));
            }
        }
    }

    pub(super) fn holds(&self, place: &Place, token: &LeaseToken, now: Instant) -> bool {
        self.leases.get(place).is_some_and(|lease| lease.token == *token && lease.expires > now)
    }

    /// The lease of a place, if nobody holds it.
    pub(super) fn grant(
        &mut self,
        place: &Place,
        lease: Duration,
        now: Instant,
        most: usize,
    ) -> Result<Option<LeaseToken>, StoreError> {
        if self.leases.get(place).is_some_and(|lease| lease.expires > now) {
            return Ok(None);
        }
        self.leases.remove(place);
        if self.leases.len() >= most {
            self.leases.retain(|_, lease| lease.expires > now);
        }
        if self.leases.len() >= most {
            return Err(StoreError::Busy { what: "leases", most });
        }
        let token = LeaseToken::new();
        // a lease of no time would never be held by anybody
        let lasts = lease.clamp(Duration::from_millis(1), LONGEST_LEASE);
        self.leases.insert(place.clone(), Lease { token: token.clone(), expires: now + lasts });
        Ok(Some(token))
    }
}
