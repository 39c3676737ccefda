//! What is in flight in one sandbox: `next` calls that wait, invocations that were handed to
//! one, and their answers.
//!
//! ```text
//! offered ─a `next` waits─▶ in flight ─response or error─▶ answered
//!    │ none waits              ├─deadline or memory─▶ expired (a late answer gets 410)
//!    ▼                         └─sandbox ends, or the call was gone─▶ lost
//! given back
//! ```
//!
//! Invariants: nothing is queued here: an invocation is given to a call that waits or back to
//! the dispatcher; every invocation in flight is answered, expired or lost exactly once; an
//! answer counts only under an id that is in flight in this very sandbox.

use crate::invocation::{Invocation, RequestId};
use crate::logs::InvocationLog;
use crate::sandbox::Named;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};

/// Expired ids that are remembered to tell a late answer from a wrong one.
const MOST_EXPIRED: usize = 1024;
/// Answers to one invocation that are read at the same time: one may fail half way, and another say
/// so before that is noticed.
const MOST_BODIES: usize = 2;
/// Length of an invocation's id.
const ID_BYTES: usize = 36;

/// In which all calls of a client that are there are seen.
const WINDOW: Duration = Duration::from_secs(30);

/// How an invocation ended in the sandbox.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The function's answer.
    Response {
        /// As it came.
        payload: Bytes,
        /// Its content type, if the runtime gave one.
        content_type: Option<String>,
    },
    /// The function failed; JSON with `errorMessage` and `errorType`.
    Error {
        /// As it came.
        payload: Bytes,
    },
    /// The call it was given to was gone before it could take it. To be offered again.
    Lost,
    /// The sandbox ended, or the process that had it.
    Ended {
        /// Why, for people.
        reason: String,
    },
}

/// What the dispatcher hears of an invocation.
#[derive(Debug)]
pub enum Progress {
    /// It was handed over.
    Delivered {
        /// To which sandbox's slots.
        slots: Arc<Slots>,
        /// Whether it is that sandbox's first.
        first: bool,
    },
    /// It ended.
    Answered(Answer),
    /// It will not be run.
    Refused(crate::invocation::InvokeError),
}

/// An invocation on its way to a runtime.
#[derive(Debug, Clone)]
pub struct Task {
    /// What is asked.
    pub invocation: Arc<Invocation>,
    /// How long it may take from the hand-over.
    pub timeout: Duration,
    /// When it must be answered; set at the hand-over.
    pub deadline_at: SystemTime,
    /// Where its log goes.
    pub log: Arc<InvocationLog>,
    /// Who wants to know.
    pub progress: mpsc::UnboundedSender<Progress>,
}

/// How an invocation that is over its deadline or memory can be stopped.
#[derive(Debug)]
pub enum Stop {
    /// By killing this process of the sandbox.
    Process(Arc<Named>),
    /// It has been: whoever ran it was told to let go.
    Done,
    /// Not without the sandbox.
    Sandbox,
    /// It is not in flight any more.
    Gone,
}

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Its invocation expired.
    #[error("the invocation has expired; its caller was told")]
    Late,
    /// No such invocation is in flight here.
    #[error("no such invocation is in flight in this sandbox")]
    Unknown,
    /// It is being answered.
    #[error("answers to this invocation are being read already; send one")]
    Underway,
}

/// An answer that is being read.
#[derive(Debug)]
pub struct Underway {
    /// What it answers.
    pub id: RequestId,
    over: watch::Receiver<()>,
    _one: Arc<()>,
}

impl Underway {
    /// Waits until its invocation is not in flight any more. Cancel-safe.
    pub async fn over(&mut self) {
        // nothing is ever sent
        let _ = self.over.changed().await;
    }
}

/// A call of `next` that waits.
#[derive(Debug)]
struct Poller {
    process: Option<Arc<Named>>,
    abort: Option<oneshot::Sender<()>>,
    deliver: oneshot::Sender<Delivery>,
}

#[derive(Debug)]
struct Flight {
    task: Task,
    process: Option<Arc<Named>>,
    abort: Option<oneshot::Sender<()>>,
    /// Dropped with the flight: who listens hears of its end.
    over: watch::Sender<()>,
    /// Held once more by each body that is being read for it.
    bodies: Arc<()>,
}

#[derive(Debug, Default)]
struct State {
    pollers: VecDeque<Poller>,
    flights: HashMap<RequestId, Flight>,
    expired: VecDeque<RequestId>,
    /// Invocations that were handed over so far.
    handed: u64,
    /// When anything last came or went.
    moved: Option<Instant>,
    /// Most calls that waited or had an invocation, and since when.
    most: usize,
    most_since: Option<Instant>,
    /// The same of the last two windows, and when this one began.
    recent: [usize; 2],
    window: Option<Instant>,
    ended: bool,
}

impl State {
    /// A call of `next` has come.
    fn came(&mut self, now: Instant) {
        self.moved = Some(now);
        let calls = self.pollers.len() + self.flights.len();
        if calls > self.most {
            (self.most, self.most_since) = (calls, Some(now));
        }
        let begun = *self.window.get_or_insert(now);
        if now.saturating_duration_since(begun) >= WINDOW {
            (self.recent, self.window) = ([0, self.recent[0]], Some(now));
        }
        self.recent[0] = self.recent[0].max(calls);
    }

    fn calls(&self, now: Instant) -> Option<usize> {
        let long = self.most_since.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW);
        long.then(|| self.recent[0].max(self.recent[1]))
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Slots {
    sandbox: Arc<str>,
    state: Mutex<State>,
    free: OnFree,
}

/// Called, outside of all locks, whenever a call of `next` begins to wait.
pub struct OnFree(pub Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for OnFree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFree")
    }
}

/// An invocation that was handed to a call but has not reached it yet; dropped before that,
/// the invocation counts as lost.
#[derive(Debug)]
pub struct Delivery {
    task: Option<Task>,
    slots: Arc<Slots>,
}

impl Delivery {
    /// Takes the invocation: it is the runtime's now.
    #[must_use]
    pub fn take(mut self) -> Task {
        self.task.take().expect("taken once, by value")
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            let _ = self.slots.answer(&task.invocation.request_id, Answer::Lost);
        }
    }
}

impl Slots {
    /// Slots of a sandbox. `free` hears of every call of `next`.
    #[must_use]
    pub fn new(sandbox: Arc<str>, free: OnFree) -> Arc<Self> {
        Arc::new(Self { sandbox, state: Mutex::default(), free })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // entries go in and out whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose slots these are.
    #[must_use]
    pub fn sandbox(&self) -> &Arc<str> {
        &self.sandbox
    }

    /// Waits for an invocation. `process` is the caller's process, if it is all that would end with
    /// the invocation; `abort` is told to let go instead. `None` once the sandbox has ended.
    /// Cancel-safe.
    pub async fn next(
        &self,
        process: Option<Arc<Named>>,
        abort: Option<oneshot::Sender<()>>,
    ) -> Option<Delivery> {
        let (deliver, delivered) = oneshot::channel();
        {
            let mut state = self.state();
            if state.ended {
                return None;
            }
            state.pollers.retain(|poller| !poller.deliver.is_closed());
            state.pollers.push_back(Poller { process, abort, deliver });
            state.came(Instant::now());
        }
        (self.free.0)();
        delivered.await.ok()
    }

    /// Hands an invocation to a call that waits.
    ///
    /// # Errors
    /// Gives it back if none does.
    pub fn offer(self: &Arc<Self>, task: Task) -> Result<(), Task> {
        let mut state = self.state();
        let mut given = Some(task);
        while let Some(task) = given.take() {
            // the call that came last: its processor caches are the warmest, and the others go idle
            let Some(poller) = state.pollers.pop_back() else { return Err(task) };
            if poller.deliver.is_closed() {
                given = Some(task);
                continue;
            }
            let id = task.invocation.request_id.clone();
            let mut task = task;
            task.deadline_at = SystemTime::now() + task.timeout;
            let first = state.handed == 0;
            state.handed += 1;
            state.moved = Some(Instant::now());
            let flight = Flight {
                task: task.clone(),
                process: poller.process,
                abort: poller.abort,
                over: watch::Sender::new(()),
                bodies: Arc::default(),
            };
            let _ = task.progress.send(Progress::Delivered { slots: Arc::clone(self), first });
            state.flights.insert(id, flight);
            let refused = poller.deliver.send(Delivery { task: Some(task), slots: Arc::clone(self) }).err();
            drop(state);
            // outside of the lock: dropped, it answers itself as lost
            drop(refused);
            return Ok(());
        }
        Ok(())
    }

    /// Calls of `next` that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().pollers.iter().filter(|poller| !poller.deliver.is_closed()).count()
    }

    /// Invocations that were handed over so far.
    #[must_use]
    pub fn handed(&self) -> u64 {
        self.state().handed
    }

    /// Whether a call of `next` waits, or may be on its way: something came or went within
    /// `patience`.
    #[must_use]
    pub fn listens(&self, patience: Duration) -> bool {
        // nothing yet: the first call is on its way
        let recently = self.state().moved.is_none_or(|moved| moved.elapsed() < patience);
        recently || self.waiting() > 0
    }

    /// Whether so many calls of `next` have come, or no more than came `patience` ago.
    #[must_use]
    pub fn have_come(&self, calls: usize, patience: Duration) -> bool {
        let state = self.state();
        state.most >= calls || state.most_since.is_some_and(|since| since.elapsed() >= patience)
    }

    /// The most calls of `next` that waited or had an invocation at once lately; `None` as long as
    /// that may be fewer than there are.
    #[must_use]
    pub fn calls(&self) -> Option<usize> {
        self.state().calls(Instant::now())
    }

    /// Invocations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().flights.len()
    }

    /// Whether the invocation is in flight here, or why it is not.
    ///
    /// # Errors
    /// [`AnswerError`] as [`Self::answer`] would give.
    pub fn check(&self, id: &str) -> Result<RequestId, AnswerError> {
        let state = self.state();
        if let Some(id) = state.flights.keys().find(|known| known.as_str() == id) {
            return Ok(id.clone());
        }
        let late = state.expired.iter().any(|known| known.as_str() == id);
        Err(if late { AnswerError::Late } else { AnswerError::Unknown })
    }

    /// Begins to read an answer to an invocation.
    ///
    /// # Errors
    /// [`AnswerError`] as [`Self::answer`] would give, or because others are being read for it.
    pub fn begin_answer(&self, id: &str) -> Result<Underway, AnswerError> {
        let id = self.check(id)?;
        let state = self.state();
        let flight = state.flights.get(&id).ok_or(AnswerError::Late)?;
        if Arc::strong_count(&flight.bodies) > MOST_BODIES {
            return Err(AnswerError::Underway);
        }
        let (over, one) = (flight.over.subscribe(), Arc::clone(&flight.bodies));
        Ok(Underway { id, over, _one: one })
    }

    /// Waits until an invocation is not in flight here. Cancel-safe.
    pub async fn over(&self, id: &RequestId) {
        let over = self.state().flights.get(id).map(|flight| flight.over.subscribe());
        if let Some(mut over) = over {
            // nothing is ever sent
            let _ = over.changed().await;
        }
    }

    /// Ends an invocation with its answer.
    ///
    /// # Errors
    /// [`AnswerError`] if it is not in flight; nothing changes then.
    pub fn answer(&self, id: &RequestId, answer: Answer) -> Result<(), AnswerError> {
        let flight = {
            let mut state = self.state();
            state.moved = Some(Instant::now());
            state.flights.remove(id)
        };
        let Some(flight) = flight else {
            return Err(self.check(id.as_str()).err().unwrap_or(AnswerError::Late));
        };
        let _ = flight.task.progress.send(Progress::Answered(answer));
        Ok(())
    }

    /// Takes an invocation that is over its limits out of flight; late answers are refused from
    /// now on.
    #[must_use]
    pub fn expire(&self, id: &RequestId) -> Stop {
        let mut state = self.state();
        let Some(flight) = state.flights.remove(id) else { return Stop::Gone };
        if state.expired.len() >= MOST_EXPIRED {
            state.expired.pop_front();
        }
        state.expired.push_back(id.clone());
        match (flight.process, flight.abort) {
            (Some(process), _) => Stop::Process(process),
            (None, Some(abort)) => {
                let _ = abort.send(());
                Stop::Done
            }
            (None, None) => Stop::Sandbox,
        }
    }

    /// Who wants to know of an invocation in flight.
    #[must_use]
    pub fn progress_of(&self, id: &RequestId) -> Option<mpsc::UnboundedSender<Progress>> {
        self.state().flights.get(id).map(|flight| flight.task.progress.clone())
    }

    /// The log of an invocation in flight.
    #[must_use]
    pub fn log_of(&self, id: &str) -> Option<Arc<InvocationLog>> {
        let state = self.state();
        let flight = state.flights.iter().find(|(known, _)| known.as_str() == id);
        flight.map(|(_, flight)| Arc::clone(&flight.task.log))
    }

    /// Whose a line of the sandbox's common output is: that of the one invocation in flight,
    /// or of the one whose id it names.
    #[must_use]
    pub fn log_for_line(&self, line: &str) -> Option<Arc<InvocationLog>> {
        let state = self.state();
        let mut flights = state.flights.iter();
        let only = match (flights.next(), flights.next()) {
            (Some(only), None) => Some(only),
            _ => named_in(line).find_map(|id| state.flights.get_key_value(&id)),
        };
        only.map(|(_, flight)| Arc::clone(&flight.task.log))
    }

    /// Processes that have an invocation, with its id.
    #[must_use]
    pub fn processes(&self) -> Vec<(Arc<Named>, RequestId)> {
        let state = self.state();
        let process = |flight: &Flight| flight.process.clone();
        state.flights.iter().filter_map(|(id, flight)| Some((process(flight)?, id.clone()))).collect()
    }

    /// Refuses all calls from now on if nothing is in flight. False if something is.
    #[must_use]
    pub fn end_if_idle(&self) -> bool {
        let mut state = self.state();
        if state.flights.is_empty() {
            state.ended = true;
            state.pollers.clear();
        }
        state.ended
    }

    /// The sandbox has ended: ends all invocations in flight and refuses all calls.
    pub fn end(&self, reason: &str) {
        let mut state = self.state();
        state.ended = true;
        state.pollers.clear();
        for (_, flight) in state.flights.drain() {
            let answer = Answer::Ended { reason: reason.into() };
            let _ = flight.task.progress.send(Progress::Answered(answer));
        }
    }
}

/// What in a line may be ids of invocations. One look at it, however many are in flight: lines come
/// as fast as a sandbox can print them.
fn named_in(line: &str) -> impl Iterator<Item = RequestId> {
    line.as_bytes().windows(ID_BYTES).filter_map(|window| {
        let dashes = [8, 13, 18, 23].iter().all(|&at| window[at] == b'-');
        // a row of dashes is none
        let dashes = dashes && window[0] != b'-';
        if dashes { RequestId::of_accepted(std::str::from_utf8(window).ok()?) } else { None }
    })
}

#[cfg(test)]
mod tests;
