//! Limits and habits of the functions of a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The account of tenants that no access key names.
pub const LOCAL_ACCOUNT: &str = "000000000000";

/// How long after its first, and its second, failure an event is tried again, as on AWS.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// Checked settings.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// The file of definitions and events.
    pub file: PathBuf,
    /// The region of ARNs.
    pub region: String,
    /// Accounts by tenant; others have [`LOCAL_ACCOUNT`].
    pub accounts: BTreeMap<String, String>,
    /// What `MemorySize` is reported as where it was not declared, in MiB.
    pub undeclared_memory_mib: u32,
    /// Functions per tenant. Each costs some KiB of memory for as long as it exists.
    pub max_functions: usize,
    /// Events and what became of them.
    pub events: EventSettings,
}

/// Limits of the queue of events.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// Most events that wait or run. Each has some hundred bytes in memory and its payload on disk.
    pub max_events: usize,
    /// Most bytes of their payloads.
    pub max_bytes: u64,
    /// Events that run at the same time; one function has at most half of them.
    pub concurrency: usize,
    /// Most dead letters that are kept; the oldest go first.
    pub max_dead_letters: usize,
    /// Most bytes of their payloads.
    pub max_dead_letter_bytes: u64,
    /// How long after its first, and second, failure an event is tried again.
    pub retry_delays: [Duration; 2],
    /// The first wait after a throttle; doubled each time, to at most 300 of them.
    pub throttle_delay: Duration,
    /// For how long an event is tried at all where its function does not say: six hours.
    pub max_age: Duration,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            max_events: 10_000,
            max_bytes: 256 << 20,
            concurrency: 64,
            max_dead_letters: 1000,
            max_dead_letter_bytes: 64 << 20,
            retry_delays: RETRY_DELAYS,
            throttle_delay: Duration::from_secs(1),
            max_age: Duration::from_secs(6 * 3600),
        }
    }
}

impl ServiceSettings {
    /// The defaults, with everything kept in `file`.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            region: "us-east-1".into(),
            accounts: BTreeMap::new(),
            undeclared_memory_mib: 2048,
            max_functions: 1000,
            events: EventSettings::default(),
        }
    }

    /// The account of a tenant.
    #[must_use]
    pub fn account<'a>(&'a self, tenant: &str) -> &'a str {
        self.accounts.get(tenant).map_or(LOCAL_ACCOUNT, String::as_str)
    }
}
