//! One revision of a function: who waits, its sandboxes, and what happens to both.
//!
//! Invariants: whatever changes (an arrival, a `next` that waits, an answer, a start that
//! ended) is followed by [`Group::pump`], which leaves nobody waiting for whom there is a slot;
//! the lock is held for decisions only, never across an await or a call into a sandbox's
//! process.

use super::handle::{Handle, Order};
use super::learn::Learned;
use super::prepared::{self, Stock};
use super::room::{self, Held, Wanted};
use super::{Counters, Entry, Shared, count, life};
use crate::function::{Function, Runtime};
use crate::invocation::{FunctionStats, InvokeError, RequestId, SandboxStats};
use crate::launch::memory_limit;
use crate::policy::admission::{Decision, Phase, SandboxView, View, blocked_by, decide};
use crate::policy::concurrency::InvocationSample;
use crate::runtime_api::{Answer, Progress, Task};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// After so many starts that failed one after the other, further ones wait a while.
const FAILURES_IN_A_ROW: u32 = 3;
/// Longest time that failed starts keep further ones away.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Most bytes of what a failed start said that are told to others.
const MOST_REASON_BYTES: usize = 1024;

#[derive(Debug)]
struct State {
    waiting: VecDeque<Task>,
    sandboxes: Vec<Arc<Handle>>,
    learned: Learned,
    failures: u32,
    not_before: Option<Instant>,
    last_failure: String,
    retired: bool,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Group {
    shared: Weak<Shared>,
    entry: Arc<Entry>,
    function: Arc<Function>,
    cpu_per_invocation_us: AtomicU64,
    /// Invocations that a sandbox had, now ended.
    pub(super) ended: AtomicU64,
    /// Sandboxes prepared ahead.
    pub(super) stock: Stock,
    state: Mutex<State>,
}

/// What is to be done once the lock is released.
#[derive(Default)]
struct Todo {
    start: Vec<life::Planned>,
    refused: Vec<(Task, InvokeError)>,
    /// What the host must give before anything else can be done.
    short_of: Option<Wanted>,
}

/// Room on the host for sandboxes beyond its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Nobody has asked for it.
    NotAsked,
    /// Idle sandboxes are going.
    Coming,
    /// There is none.
    None,
}

impl Group {
    pub(super) fn new(shared: Weak<Shared>, entry: &Arc<Entry>, function: Arc<Function>) -> Arc<Self> {
        let launch = shared.upgrade().map(|shared| shared.settings.launch.clone());
        let memory_limit = launch.map_or(u64::MAX, |launch| memory_limit(&function, &launch));
        let state = State {
            waiting: VecDeque::new(),
            sandboxes: Vec::new(),
            learned: Learned::new(Arc::clone(&function), memory_limit),
            failures: 0,
            not_before: None,
            last_failure: String::new(),
            retired: false,
        };
        let entry = Arc::clone(entry);
        if let Some(shared) = shared.upgrade() {
            shared.shares.change(&function.key.tenant, |_| {});
        }
        Arc::new(Self {
            shared,
            entry,
            function,
            cpu_per_invocation_us: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            stock: Stock::default(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // decisions are made and noted in one go
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn function(&self) -> &Arc<Function> {
        &self.function
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.entry.counters
    }

    /// Whether nobody waits and nothing runs.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.sandboxes.is_empty()
    }

    /// Whether its sandboxes take nothing more.
    pub(super) fn is_retired(&self) -> bool {
        self.state().retired
    }

    /// Whether it has a sandbox that takes invocations, or will.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.state();
        !state.retired && state.sandboxes.iter().any(|handle| handle.phase() != Phase::Closing)
    }

    /// Whether it is the revision that callers get now.
    pub(super) fn is_current(&self) -> bool {
        self.entry.current().as_ref().is_none_or(|current| *current == self.function.revision)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    pub(super) fn sandboxes(&self) -> Vec<Arc<Handle>> {
        self.state().sandboxes.clone()
    }

    fn find(&self, sandbox: &str) -> Option<Arc<Handle>> {
        self.state().sandboxes.iter().find(|handle| &**handle.id() == sandbox).cloned()
    }

    /// Takes an invocation in. False if it is retired and takes none.
    pub(super) fn submit(self: &Arc<Self>, task: Task) -> bool {
        {
            let mut state = self.state();
            if state.retired {
                return false;
            }
            state.waiting.push_back(task);
        }
        self.pump();
        true
    }

    /// Takes back an invocation that still waits. False if it does not.
    pub(super) fn withdraw(&self, id: &RequestId) -> bool {
        let mut state = self.state();
        let before = state.waiting.len();
        state.waiting.retain(|task| task.invocation.request_id != *id);
        state.waiting.len() < before
    }

    /// Brings invocations and slots together and starts what is missing.
    pub(super) fn pump(self: &Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut room = Room::NotAsked;
        loop {
            let todo = self.decide(&shared, room);
            for (task, error) in todo.refused {
                let _ = task.progress.send(Progress::Refused(error));
            }
            for planned in todo.start {
                life::start(planned, self);
            }
            let Some(wanted) = todo.short_of else { return };
            room = if room::make(&shared, wanted) { Room::Coming } else { Room::None };
        }
    }

    fn decide(self: &Arc<Self>, shared: &Arc<Shared>, room: Room) -> Todo {
        let mut todo = Todo::default();
        let mut state = self.state();
        let limit = state.learned.decide_limit(Instant::now());
        let patience = shared.settings.init_timeout;
        while !state.waiting.is_empty() {
            let views: Vec<SandboxView> =
                state.sandboxes.iter().map(|handle| handle.view(limit, patience)).collect();
            let host = self.host_view(&state, shared, &views, limit);
            let decision = decide(&host);
            let is_stuck = matches!(decision, Decision::Wait | Decision::Refuse(_));
            if let Some(refusal) = blocked_by(&host).filter(|_| is_stuck) {
                if room == Room::NotAsked {
                    todo.short_of = Some(Wanted::of(&host, refusal));
                    break;
                }
                if room == Room::Coming && host.waiting <= host.most_waiting {
                    break;
                }
            }
            match decision {
                Decision::Join { sandbox } => {
                    let (Some(task), handle) = (state.waiting.pop_front(), &state.sandboxes[sandbox]) else {
                        break;
                    };
                    // a call that has just gone is not seen again
                    if let Err(task) = handle.slots.offer(task) {
                        state.waiting.push_front(task);
                    }
                }
                Decision::Start(more) => {
                    // known to the group at once, or a decision of another thread starts them again
                    let plan = life::Plan {
                        slots: state.learned.slots(),
                        is_fixed: self.function.runtime == Runtime::Image,
                        limit,
                        bytes: host.sandbox_bytes,
                    };
                    for _ in 0..more.get() {
                        let planned = life::plan(shared, self, plan);
                        state.sandboxes.push(Arc::clone(planned.handle()));
                        todo.start.push(planned);
                    }
                }
                Decision::Refuse(refusal) => {
                    let Some(task) = state.waiting.pop_back() else { break };
                    let reason = state.backoff().unwrap_or_else(|| refusal.to_string());
                    todo.refused.push((task, InvokeError::Throttled { reason }));
                }
                Decision::Wait => break,
            }
        }
        todo
    }

    /// What a decision depends on.
    fn host_view<'a>(
        &self,
        state: &State,
        shared: &Shared,
        sandboxes: &'a [SandboxView],
        limit: usize,
    ) -> View<'a> {
        let all = &shared.settings;
        let used = shared.memory_used.load(Ordering::Relaxed);
        let promised = shared.promised.load(Ordering::Acquire);
        let memory_bytes = all.memory_bytes.saturating_sub(used).saturating_sub(promised);
        // with all that it is to take, or where that is too much, with what it must
        let filled = state.learned.bytes_with(limit.min(state.waiting.len()));
        let sandbox_bytes = if filled <= memory_bytes { filled } else { state.learned.bytes_with(1) };
        let most = Held { starts: all.most_starts, sandboxes: all.most_sandboxes };
        let most = shared.shares.most(&self.function.key.tenant, most);
        View {
            waiting: state.waiting.len(),
            sandboxes,
            limit,
            starts_under_way: shared.starts.load(Ordering::Relaxed),
            // after failed starts none may be tried for a while
            most_starts: if state.backoff().is_some() { 0 } else { most.starts },
            sandboxes_on_host: shared.sandboxes.load(Ordering::Relaxed),
            most_sandboxes: most.sandboxes,
            memory_bytes,
            sandbox_bytes,
            most_waiting: all.most_waiting,
        }
    }

    /// The runtime of a sandbox is up.
    pub(super) fn serving(self: &Arc<Self>) {
        let mut state = self.state();
        state.failures = 0;
        state.not_before = None;
        drop(state);
        self.pump();
        if let Some(shared) = self.shared.upgrade() {
            prepared::fill(&shared, self);
        }
    }

    /// A start came to nothing: those it was for are told.
    pub(super) fn failed(self: &Arc<Self>, handle: &Arc<Handle>, failure: life::Failure) {
        let told = {
            let mut state = self.state();
            state.sandboxes.retain(|other| !Arc::ptr_eq(other, handle));
            state.failures += 1;
            state.last_failure = failure.to_string();
            let end = state.last_failure.floor_char_boundary(MOST_REASON_BYTES);
            state.last_failure.truncate(end);
            if state.failures >= FAILURES_IN_A_ROW {
                let backoff = Duration::from_millis(100) * 2_u32.saturating_pow(state.failures.min(16));
                state.not_before = Some(Instant::now() + backoff.min(LONGEST_BACKOFF));
            }
            let others = state.sandboxes.iter().any(|other| other.phase() != Phase::Closing);
            let most = if others { self.function.max_concurrency } else { usize::MAX };
            let count = state.waiting.len().min(most);
            state.waiting.drain(..count).collect::<Vec<_>>()
        };
        for task in told {
            let _ = task.progress.send(match &failure {
                life::Failure::Init(payload) => {
                    Progress::Answered(Answer::Error { payload: payload.clone() })
                }
                life::Failure::Image(reason) => Progress::Refused(InvokeError::Image {
                    function: self.function.key.clone(),
                    reason: reason.clone(),
                }),
                life::Failure::Sandbox(reason) => Progress::Refused(InvokeError::Sandbox {
                    function: self.function.key.clone(),
                    reason: reason.clone(),
                }),
            });
        }
        self.pump();
        self.clear_unused();
    }

    /// A sandbox that served has ended.
    pub(super) fn ended(self: &Arc<Self>, handle: &Arc<Handle>) {
        {
            let mut state = self.state();
            state.sandboxes.retain(|other| !Arc::ptr_eq(other, handle));
            state.learned.forget(handle);
        }
        self.pump();
        self.clear_unused();
    }

    /// Notes an invocation that succeeded, with those in its sandbox when it began and ended.
    pub(super) fn observe(&self, wall: Duration, (in_flight_at_start, in_flight_at_end): (usize, usize)) {
        let cpu = Duration::from_micros(self.cpu_per_invocation_us.load(Ordering::Relaxed));
        let host_saturated =
            self.shared.upgrade().is_some_and(|shared| shared.saturated.load(Ordering::Relaxed));
        let sample = InvocationSample { cpu, wall, in_flight_at_start, in_flight_at_end, host_saturated };
        self.state().learned.observe_invocation(&sample);
    }

    /// Notes what a sandbox uses.
    pub(super) fn observe_usage(&self, handle: &Handle, memory_bytes: u64) {
        let mut state = self.state();
        // one that has ended meanwhile was forgotten for good
        if state.sandboxes.iter().any(|known| std::ptr::eq(&**known, handle)) {
            state.learned.observe_memory(handle, memory_bytes);
        }
    }

    /// Slots that a sandbox started now is told of.
    pub(super) fn slots(&self) -> usize {
        self.state().learned.slots()
    }

    /// A sandbox has nearly used up its memory, or processes of it were stopped for that.
    pub(super) fn nearly_full(&self, handle: &Handle) {
        let told = handle.told;
        let Some(slots) = self.state().learned.nearly_full(told, Instant::now()) else { return };
        let limit = self.memory_mib();
        let text = format!(
            "told of {told} slots, sandbox {} used up its {limit} MiB; those started from now on are told of \
             {slots}; give the function more memory, or a lower concurrency",
            handle.id()
        );
        self.entry.log.add(handle.id(), None, text);
    }

    /// Notes the mean CPU time of the invocations that ended lately.
    pub(super) fn set_cpu_per_invocation(&self, cpu: Duration) {
        self.cpu_per_invocation_us
            .store(u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Lets a sandbox take nothing more, because something in it cannot be stopped alone.
    pub(super) fn quarantine(self: &Arc<Self>, sandbox: &str, why: &str) {
        let Some(handle) = self.find(sandbox) else { return };
        if handle.quarantine() {
            count(&self.counters().quarantined);
            self.entry.log.add(sandbox, None, format!("sandbox {sandbox} is drained and replaced: {why}"));
        }
        handle.drain();
    }

    /// Removes what was prepared, unless the function is in use.
    fn clear_unused(&self) {
        if !self.is_in_use()
            && let Some(shared) = self.shared.upgrade()
        {
            self.stock.clear(&shared);
        }
    }

    /// Ends all sandboxes once their invocations have; those that wait are told `why`.
    pub(super) fn retire(&self, why: impl Fn() -> InvokeError) {
        self.retire_sandboxes(why);
        self.clear_unused();
    }

    fn retire_sandboxes(&self, why: impl Fn() -> InvokeError) {
        let mut state = self.state();
        state.retired = true;
        for handle in &state.sandboxes {
            handle.drain();
        }
        for task in state.waiting.drain(..) {
            let _ = task.progress.send(Progress::Refused(why()));
        }
    }

    /// Ends all sandboxes now.
    pub(super) fn end_all(&self, reason: &str) {
        for handle in self.sandboxes() {
            handle.slots.end(reason);
            handle.order.send_replace(Order::End);
        }
    }

    /// Memory limit of a sandbox in MiB, as told to users.
    pub(super) fn memory_mib(&self) -> u64 {
        let shared = self.shared.upgrade();
        shared.map_or(0, |shared| memory_limit(&self.function, &shared.settings.launch) >> 20)
    }

    /// Whether one photon can be ended without the others.
    pub(super) fn photons_are_processes(&self) -> bool {
        matches!(self.function.runtime, Runtime::Python { .. })
    }

    /// Adds its figures. Reads some small files for each sandbox.
    pub(super) fn add_to(&self, stats: &mut FunctionStats) {
        let sandboxes = {
            let state = self.state();
            stats.waiting += state.waiting.len();
            stats.prepared += self.stock.len();
            if !state.retired {
                let estimate = state.learned.estimate();
                stats.concurrency_limit = state.learned.limit();
                stats.base_bytes = estimate.base_bytes;
                stats.increment_bytes = estimate.increment_bytes;
                stats.cpu_us = self.cpu_per_invocation_us.load(Ordering::Relaxed);
            }
            state.sandboxes.clone()
        };
        for handle in sandboxes {
            match handle.phase() {
                Phase::Starting => stats.starting += 1,
                Phase::Serving => stats.sandboxes += 1,
                Phase::Closing => stats.draining += 1,
            }
            let in_flight = handle.slots.in_flight();
            stats.in_flight += in_flight;
            let processes = handle.observer().map(|observer| observer.processes()).unwrap_or_default();
            stats.each.push(SandboxStats {
                id: handle.id().to_string(),
                state: format!("{:?}", handle.phase()).to_lowercase(),
                in_flight,
                memory_bytes: handle.memory_bytes(),
                start_ms: u64::try_from(handle.start_took().as_millis()).unwrap_or(u64::MAX),
                pids: processes.iter().map(|pid| pid.as_raw_nonzero().get()).collect(),
            });
        }
    }
}

impl State {
    /// Why nothing is started just now, if so.
    fn backoff(&self) -> Option<String> {
        let left = self.not_before?.checked_duration_since(Instant::now())?;
        Some(format!(
            "the last {} starts of the function failed; the next is tried in {:.1} s; the last said: {}",
            self.failures,
            left.as_secs_f64(),
            self.last_failure
        ))
    }
}
