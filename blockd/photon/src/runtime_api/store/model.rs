//! The words of the store: its limits, versions, leases, conditions, errors and figures.

use super::MOST_KEY_BYTES;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How much a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Most bytes of all values, with their keys and 256 bytes for each. It is blockd's memory,
    /// not the sandbox's, so count it into what a sandbox costs. Bodies on their way in may take
    /// as much again, values that readers hold beyond their life at most twice as much.
    pub budget_bytes: u64,
    /// Most leases, named ones and initialisations together.
    pub most_leases: usize,
    /// Most calls that wait, for values and leases together.
    pub most_waiters: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { budget_bytes: 64 << 20, most_leases: 1024, most_waiters: 1024 }
    }
}

/// Names the content of a key: another after every put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub(super) u64);

impl Version {
    /// As in an `ETag`, without the quotes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Proof of a lease: random, so that only who was given it can use it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LeaseToken(Arc<str>);

impl LeaseToken {
    pub(super) fn new() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// As it was handed out; anything else is a token that holds nothing.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// As in `Lantern-Lease`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// A value as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes; cheap to clone.
    pub value: Bytes,
    /// Which content of the key this is.
    pub version: Version,
}

/// What must hold of a key for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// It has a value.
    Present,
    /// It has no value.
    Absent,
    /// Its value is this one.
    Is(Version),
}

/// How to put.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// What must hold.
    pub condition: Condition,
    /// After what time the value is gone; never, if none.
    pub ttl: Option<Duration>,
    /// The lease under which it was initialised; ends with the put.
    pub lease: Option<LeaseToken>,
}

/// What came of asking for a value that may have to be made.
#[derive(Debug, Clone)]
pub enum Init {
    /// It is there.
    Present(Stored),
    /// The caller makes it, then puts it with this lease or gives the lease up.
    Make(LeaseToken),
}

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The key or name cannot be one.
    #[error("a key has 1 to {MOST_KEY_BYTES} bytes, this one has {length}")]
    Key {
        /// Its length in bytes.
        length: usize,
    },
    /// No such value or lease.
    #[error("the key has no value")]
    NotFound,
    /// The condition does not hold; nothing was changed.
    #[error("the condition does not hold; read the key again")]
    Condition {
        /// What is there.
        present: Option<Version>,
    },
    /// The lease is not, or no longer, the caller's; nothing was changed.
    #[error("the lease is not held: it expired, was ended, or is another's")]
    Lease {
        /// What value is there.
        present: Option<Version>,
    },
    /// The value is larger than the whole budget.
    #[error("the value takes {charge} bytes with its key, more than the store's budget of {budget_bytes}")]
    TooLarge {
        /// What it would take, in bytes.
        charge: u64,
        /// The budget, in bytes.
        budget_bytes: u64,
    },
    /// All that could be evicted was not enough.
    #[error("the value takes {charge} bytes, and what is leased or still being read leaves no room for it")]
    Full {
        /// What it would take, in bytes.
        charge: u64,
    },
    /// The wait is over.
    #[error("the value or lease did not come in time; ask again")]
    Timeout,
    /// Too many leases or waiters.
    #[error("the store has as many {what} as it may, {most}; try again later")]
    Busy {
        /// Of what.
        what: &'static str,
        /// The bound.
        most: usize,
    },
}

/// Figures of a store since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct StoreMetrics {
    /// Values held.
    pub keys: usize,
    /// What they are charged, in bytes.
    pub bytes: u64,
    /// The most that may be.
    pub budget_bytes: u64,
    /// Values asked for and found.
    pub hits: u64,
    /// Values asked for by `get` and not found.
    pub misses: u64,
    /// Values evicted for others.
    pub evictions: u64,
    /// Values whose time was over.
    pub expired: u64,
    /// Leases given to initialise a value.
    pub inits: u64,
    /// Calls that had to wait for a value or a lease.
    pub waits: u64,
}

impl Condition {
    pub(super) fn holds(self, present: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Present => present.is_some(),
            Self::Absent => present.is_none(),
            Self::Is(version) => present == Some(version),
        }
    }
}
