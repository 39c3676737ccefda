//! A sandbox, as its group sees it: what it may take, what it uses, what it is told.
//!
//! Invariant: orders only ever become stronger: serve, drain, end.

use super::life::Plan;
use super::room::Promise;
use crate::policy::admission::{Phase, SandboxView};
use crate::runtime_api::Slots;
use crate::runtime_api::store::SharedStore;
use crate::sandbox::{Observer, Usage};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A client that has asked for invocations on as many calls for this long asks on no more.
const NO_MORE_CALLS: Duration = Duration::from_secs(3);

/// Time between two photons of a sandbox that are stopped for its memory.
const RELIEF: Duration = Duration::from_secs(1);

/// What a sandbox does not use so long after its start it is not going to use soon.
const PROMISE: Duration = Duration::from_secs(10);

/// What a sandbox is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Serve.
    Serve,
    /// End once nothing is in flight.
    Drain,
    /// End now.
    End,
}

/// A sandbox, as the group sees it.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) slots: Arc<Slots>,
    pub(super) number: u64,
    pub(super) order: watch::Sender<Order>,
    pub(super) began: Instant,
    /// Slots that its runtime is told of.
    pub(super) told: usize,
    /// Whether its client makes all its calls from the start on.
    is_fixed: bool,
    /// Most invocations at once, as it was known when it was planned.
    expected: usize,
    /// Memory that it may come to need before that is seen.
    pub(super) promise: Promise,
    state: Mutex<HandleState>,
}

#[derive(Debug, Default)]
struct HandleState {
    serving: bool,
    quarantined: bool,
    observer: Option<Observer>,
    store: Option<Arc<SharedStore>>,
    idle_since: Option<Instant>,
    /// Invocations that it had been handed at the last look.
    handed: u64,
    start_took: Duration,
    /// What it used at the last look.
    usage: Usage,
    /// When a photon of it was last stopped for its memory.
    relieved: Option<Instant>,
}

impl Handle {
    /// One that is planned.
    pub(super) fn new(number: u64, slots: Arc<Slots>, plan: Plan, promise: Promise) -> Arc<Self> {
        Arc::new(Self {
            slots,
            number,
            order: watch::Sender::new(Order::Serve),
            began: Instant::now(),
            told: plan.slots,
            is_fixed: plan.is_fixed,
            expected: plan.limit,
            promise,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, HandleState> {
        // plain values, set one by one
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self) -> &Arc<str> {
        self.slots.sandbox()
    }

    pub(super) fn launched(&self, observer: Observer) {
        self.state().observer = Some(observer);
    }

    /// The store whose values count into what it costs.
    pub(super) fn keeps(&self, store: Arc<SharedStore>) {
        self.state().store = Some(store);
    }

    /// Bytes that this process holds for it.
    pub(super) fn store_bytes(&self) -> u64 {
        let store = self.state().store.clone();
        store.map_or(0, |store| store.metrics().bytes)
    }

    pub(super) fn observer(&self) -> Option<Observer> {
        self.state().observer.clone()
    }

    pub(super) fn phase(&self) -> Phase {
        if *self.order.borrow() != Order::Serve {
            return Phase::Closing;
        }
        if self.state().serving { Phase::Serving } else { Phase::Starting }
    }

    /// Notes what it uses. Returns what is new of it: CPU time, that of its start left out, and
    /// kills for memory.
    pub(super) fn note(&self, usage: Usage) -> Usage {
        let mut state = self.state();
        let is_over = state.serving && self.began.elapsed() >= state.start_took + PROMISE;
        self.promise.used(if is_over { u64::MAX } else { usage.memory_bytes });
        let before = std::mem::replace(&mut state.usage, usage);
        let cpu = usage.cpu.saturating_sub(before.cpu);
        Usage {
            memory_bytes: usage.memory_bytes,
            cpu: if state.serving { cpu } else { Duration::ZERO },
            oom_kills: usage.oom_kills.saturating_sub(before.oom_kills),
            oom_kills_above: usage.oom_kills_above.saturating_sub(before.oom_kills_above),
        }
    }

    /// Since when it has had nothing to do; `None` while it has, or before it serves.
    pub(super) fn idle_since(&self, now: Instant) -> Option<Instant> {
        let (busy, handed) = (self.slots.in_flight() > 0, self.slots.handed());
        let mut state = self.state();
        // short invocations are over before anybody looks
        let was_used = std::mem::replace(&mut state.handed, handed) != handed;
        state.idle_since = match state.idle_since {
            _ if busy || !state.serving => None,
            Some(since) if !was_used => Some(since),
            _ => Some(now),
        };
        state.idle_since
    }

    /// Whether it serves, and as many calls for invocations have come as will.
    pub(super) fn is_up(&self, calls: usize) -> bool {
        self.state().serving && self.slots.have_come(calls, NO_MORE_CALLS)
    }

    /// As a decision sees it, where a sandbox may have `limit` invocations. One with room where no
    /// call waits this moment is about to have one: its slots are on their way, as those of a
    /// sandbox that starts; unless nothing came or went for longer than a start may take. (Clients
    /// that fork a process for each slot take seconds for it on a busy host, and another sandbox
    /// would make it busier.) What a sandbox that starts is to take stays as it was planned: limits
    /// that move meanwhile would start others in its place.
    pub(super) fn view(&self, limit: usize, patience: Duration) -> SandboxView {
        let in_flight = self.slots.in_flight();
        // a client that has never called as often as it was told it may is not going to, or has lost
        // processes since
        let calls = if self.is_fixed { self.slots.calls() } else { None };
        let most = limit.min(self.told).min(calls.unwrap_or(usize::MAX).max(1));
        let (phase, limit) = match self.phase() {
            Phase::Serving if in_flight >= most || self.slots.waiting() > 0 => (Phase::Serving, most),
            Phase::Serving if self.slots.listens(patience) => (Phase::Starting, most),
            Phase::Serving => (Phase::Serving, in_flight),
            phase => (phase, self.expected),
        };
        SandboxView { phase, in_flight, limit }
    }

    /// Whether it serves and has nothing to do, but asks for nothing either.
    pub(super) fn is_deaf(&self, patience: Duration) -> bool {
        self.phase() == Phase::Serving && self.slots.in_flight() == 0 && !self.slots.listens(patience)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.state().usage.memory_bytes
    }

    /// What it used at the last look.
    pub(super) fn usage(&self) -> Usage {
        self.state().usage
    }

    pub(super) fn start_took(&self) -> Duration {
        self.state().start_took
    }

    /// Tells it to end once its invocations have.
    pub(super) fn drain(&self) {
        self.order.send_if_modified(|order| {
            let changes = *order == Order::Serve;
            if changes {
                *order = Order::Drain;
            }
            changes
        });
    }

    /// Its runtime is up, and used so much until now, if that is known.
    pub(super) fn serves(&self, usage: Option<Usage>) {
        let mut state = self.state();
        state.serving = true;
        state.usage.cpu = usage.unwrap_or(state.usage).cpu;
        state.start_took = self.began.elapsed();
    }

    /// Whether another photon may be stopped for its memory: what the last one had must have had
    /// the time to be freed, and to be looked at.
    pub(super) fn may_relieve(&self, now: Instant) -> bool {
        let mut state = self.state();
        let may = state.relieved.is_none_or(|at| now.saturating_duration_since(at) >= RELIEF);
        if may {
            state.relieved = Some(now);
        }
        may
    }

    /// Marks it as one that is replaced. False if it was already.
    pub(super) fn quarantine(&self) -> bool {
        !std::mem::replace(&mut self.state().quarantined, true)
    }
}
