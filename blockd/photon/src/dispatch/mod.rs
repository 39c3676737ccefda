//! Invocations to sandboxes: one with a free slot, or one that is started for them.
//!
//! `mod.rs` is the door; `follow.rs` an invocation to its end; `group.rs` one revision of a
//! function: who waits, its sandboxes (`handle.rs`), and the decision for both, from what was
//! learned of it (`learn.rs`) and the room on the host (`room.rs`); `life.rs` is a sandbox from its
//! start to its removal, `prepared.rs` makes some ahead; `watch.rs` looks at all sandboxes at
//! intervals: memory, idleness.
//!
//! Invariants: an invocation is answered exactly once, whatever becomes of its caller, its
//! sandbox or its revision; a sandbox serves one revision of one function; what is refused is
//! refused at once.

mod follow;
mod group;
mod handle;
mod learn;
mod life;
mod merging;
mod prepared;
mod room;
mod watch;

use crate::function::{Function, FunctionKey};
use crate::invocation::{FunctionStats, Invocation, InvokeError, Invoker, LogLine, Reply};
use crate::launch::LaunchSettings;
use crate::logs::FunctionLog;
use crate::policy::keepalive::{FixedKeepAlive, KeepAlive};
use crate::rootfs::RootFsSource;
use crate::runtime_api::WorkerRoom;
use crate::sandbox::{self, Pool, PoolSettings};
use async_trait::async_trait;
use group::Group;
use rustix::process::{getpid, set_child_subreaper};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How a worker runs functions. All limits are the worker's, over all functions.
#[derive(Debug, Clone)]
pub struct DispatcherSettings {
    /// How sandboxes are run.
    pub sandbox: sandbox::Settings,
    /// What is made ahead.
    pub pool: PoolSettings,
    /// Most sandboxes of functions in use that are prepared up to their first instruction.
    pub prepared: usize,
    /// Whether the kernel may merge equal pages of Python photons (KSM), of one tenant at a time.
    pub merge_memory: bool,
    /// What functions are told.
    pub launch: LaunchSettings,
    /// Most starts at once.
    pub most_starts: usize,
    /// Most sandboxes.
    pub most_sandboxes: usize,
    /// Most memory of all sandboxes, in bytes.
    pub memory_bytes: u64,
    /// Most invocations of a function that wait for a slot that is not on its way.
    pub most_waiting: usize,
    /// Longest wait for a slot.
    pub longest_wait: Duration,
    /// Longest start of a runtime, from the launch to its first `next`.
    pub init_timeout: Duration,
    /// How long an idle sandbox is kept.
    pub keep_alive: Duration,
    /// Largest answer in bytes.
    pub most_response_bytes: usize,
    /// Bytes of a sandbox's shared object store.
    pub store_bytes: u64,
    /// How often sandboxes are looked at.
    pub watch_interval: Duration,
}

/// What all parts share.
pub(crate) struct Shared {
    settings: DispatcherSettings,
    source: Arc<dyn RootFsSource>,
    pool: Pool,
    entries: Mutex<HashMap<FunctionKey, Arc<Entry>>>,
    /// Those of deleted functions that still have sandboxes.
    leaving: Mutex<Vec<Arc<Entry>>>,
    keep_alive: Mutex<Box<dyn KeepAlive>>,
    starts: AtomicUsize,
    sandboxes: AtomicUsize,
    /// Sandboxes that are prepared, or being prepared or removed unused.
    prepared: AtomicUsize,
    /// Memory of all sandboxes when they were last looked at, in bytes.
    memory_used: AtomicU64,
    shares: room::Shares,
    /// Memory promised to sandboxes that start, beyond what they used then, in bytes.
    promised: Arc<AtomicU64>,
    /// Whether all of the host's processors were busy then.
    saturated: AtomicBool,
    merging: Arc<merging::Merging>,
    /// The profile of system calls as the runtime compiled it for the first sandbox: of those that
    /// may not merge memory, and of those that may.
    seccomp_bpf: [OnceLock<String>; 2],
    /// Room for what sandboxes send.
    room: WorkerRoom,
    /// Told whenever a start or a sandbox has ended: somebody may wait for its place.
    freed: Arc<Notify>,
    closing: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What of a function survives its revisions and sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    log: Arc<FunctionLog>,
    counters: Counters,
    groups: Mutex<Vec<Arc<Group>>>,
    /// The revision that callers get now, once an older one was retired.
    current: Mutex<Option<String>>,
}

/// See [`FunctionStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    invocations: AtomicU64,
    errors: AtomicU64,
    throttled: AtomicU64,
    starts: AtomicU64,
    timeouts: AtomicU64,
    quarantined: AtomicU64,
}

/// Adds one to a counter.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Entry {
    fn groups(&self) -> MutexGuard<'_, Vec<Arc<Group>>> {
        // groups go in and out whole
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Option<String>> {
        // one value, set whole
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs functions. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

impl Shared {
    fn entry(&self, key: &FunctionKey) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(key.clone()).or_default())
    }

    fn known(&self, key: &FunctionKey) -> Option<Arc<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|entry| !entry.groups().iter().all(|group| group.is_empty()));
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().chain(leaving.iter()).cloned().collect()
    }

    /// Forgets a function: its counters and log with its last sandbox, the rest at once.
    fn forget(&self, key: &FunctionKey) {
        let removed = self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.keep_alive.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
        if let Some(entry) = removed {
            self.leaving.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }

    /// The group of this revision. Only [`Invoker::retire`] knows which revisions are old: an
    /// invocation of one may still come, and is served.
    fn group(self: &Arc<Self>, function: &Arc<Function>) -> Arc<Group> {
        let entry = self.entry(&function.key);
        let mut groups = entry.groups();
        let same = |group: &&Arc<Group>| group.function().revision == function.revision;
        if let Some(group) = groups.iter().filter(same).find(|group| !group.is_retired()) {
            return Arc::clone(group);
        }
        let group = Group::new(Arc::downgrade(self), &entry, Arc::clone(function));
        groups.retain(|group| !group.is_empty());
        groups.push(Arc::clone(&group));
        group
    }
}

impl Dispatcher {
    /// A dispatcher without functions. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(settings: DispatcherSettings, source: Arc<dyn RootFsSource>) -> Self {
        // runtimes leave the first processes of sandboxes behind; without this they would be
        // watched all the same, only how they ended would not be known
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "how sandboxes end will not be known");
        }
        // the kernel kills without asking who is to blame: it comes in only after us
        sandbox::bound_worker(settings.memory_bytes.saturating_add(settings.memory_bytes / 8));
        let pool = Pool::start(settings.pool.clone(), &settings.sandbox);
        let keep_alive = Box::new(FixedKeepAlive::new(settings.keep_alive));
        let room = WorkerRoom::new(settings.most_response_bytes);
        let merging = merging::Merging::new(settings.merge_memory, sandbox::claim_merging);
        let shared = Arc::new(Shared {
            settings,
            room,
            merging,
            source,
            pool,
            entries: Mutex::default(),
            leaving: Mutex::default(),
            keep_alive: Mutex::new(keep_alive),
            starts: AtomicUsize::new(0),
            sandboxes: AtomicUsize::new(0),
            prepared: AtomicUsize::new(0),
            memory_used: AtomicU64::new(0),
            shares: room::Shares::default(),
            promised: Arc::default(),
            saturated: AtomicBool::new(false),
            seccomp_bpf: Default::default(),
            freed: Arc::default(),
            closing: AtomicBool::new(false),
        });
        tokio::spawn(watch::watch(Arc::downgrade(&shared)));
        tokio::spawn(watch::look_again(Arc::downgrade(&shared), Arc::clone(&shared.freed)));
        Self { shared }
    }

    /// Stops taking invocations, gives those in flight `patience`, and ends all sandboxes.
    /// Not cancel-safe.
    pub async fn shutdown(&self, patience: Duration) {
        self.shared.closing.store(true, Ordering::Release);
        for entry in self.shared.all() {
            for group in entry.groups().iter() {
                group.retire(|| InvokeError::ShuttingDown);
            }
        }
        let deadline = Instant::now() + patience;
        let mut forced = false;
        let left = || {
            let running = self.shared.sandboxes.load(Ordering::Acquire);
            running + self.shared.prepared.load(Ordering::Acquire)
        };
        while left() > 0 {
            if Instant::now() >= deadline && !std::mem::replace(&mut forced, true) {
                for entry in self.shared.all() {
                    entry.groups().iter().for_each(|group| group.end_all("this worker is shutting down"));
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.shared.pool.shutdown().await;
    }

    /// Sandboxes of all functions.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.shared.sandboxes.load(Ordering::Acquire)
    }

    /// What is made ahead, and how often it was there.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }
}

#[async_trait]
impl Invoker for Dispatcher {
    async fn invoke(&self, function: Arc<Function>, invocation: Invocation) -> Result<Reply, InvokeError> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(InvokeError::ShuttingDown);
        }
        // a task of its own: the invocation goes on when its caller goes away
        let running = tokio::spawn(follow::follow(Arc::clone(&self.shared), function, invocation));
        running.await.unwrap_or_else(|ended| {
            if ended.is_panic() {
                tracing::error!(%ended, "following an invocation failed");
            }
            Err(InvokeError::ShuttingDown)
        })
    }

    async fn retire(&self, function: &FunctionKey, keep: Option<&str>) {
        let Some(entry) = self.shared.known(function) else { return };
        *entry.current() = Some(keep.unwrap_or_default().into());
        let groups: Vec<Arc<Group>> = entry.groups().clone();
        for group in groups.iter().filter(|group| Some(group.function().revision.as_str()) != keep) {
            group.retire(follow::changed);
        }
        if keep.is_none() {
            self.shared.forget(function);
        }
    }

    fn stats(&self, function: &FunctionKey) -> FunctionStats {
        let Some(entry) = self.shared.known(function) else { return FunctionStats::default() };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &entry.counters;
        let mut stats = FunctionStats {
            invocations: read(&counters.invocations),
            errors: read(&counters.errors),
            throttled: read(&counters.throttled),
            starts: read(&counters.starts),
            timeouts: read(&counters.timeouts),
            quarantined: read(&counters.quarantined),
            ..FunctionStats::default()
        };
        let groups = entry.groups().clone();
        for group in groups {
            group.add_to(&mut stats);
        }
        stats
    }

    fn logs(&self, function: &FunctionKey, most: usize) -> Vec<LogLine> {
        self.shared.known(function).map(|entry| entry.log.newest(most)).unwrap_or_default()
    }
}

/// A number that no other sandbox of this process has.
fn next_sandbox() -> u64 {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    SEQUENCE.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
