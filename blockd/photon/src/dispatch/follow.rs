//! An invocation from its arrival to its reply.
//!
//! Invariants: it is answered exactly once; it is offered again only while no runtime has had it;
//! one over its deadline or memory is stopped alone where that can be, else its sandbox takes
//! nothing more.

use super::group::Group;
use super::{Shared, count};
use crate::function::Function;
use crate::invocation::{Invocation, InvokeError, Reply, RequestId, error_json};
use crate::logs::InvocationLog;
use crate::runtime_api::{Answer, Progress, Slots, Stop, Task};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(super) fn changed() -> InvokeError {
    InvokeError::Throttled { reason: "the function was changed or deleted; ask again".into() }
}

/// An invocation from its arrival to its end.
pub(super) async fn follow(
    shared: Arc<Shared>,
    function: Arc<Function>,
    invocation: Invocation,
) -> Result<Reply, InvokeError> {
    let mut group = shared.group(&function);
    count(&group.entry().counters.invocations);
    shared
        .keep_alive
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .invoked(&function.key, std::time::Instant::now());
    let invocation = Arc::new(invocation);
    let log = InvocationLog::new(invocation.request_id.clone(), Arc::clone(&group.entry().log));
    let (progress, mut heard) = mpsc::unbounded_channel();
    let task = Task {
        invocation,
        timeout: function.timeout,
        deadline_at: SystemTime::UNIX_EPOCH,
        log: Arc::clone(&log),
        progress,
    };
    let patience = Instant::now() + shared.settings.longest_wait;
    while !group.submit(task.clone()) {
        if shared.closing.load(Ordering::Acquire) {
            return Err(InvokeError::ShuttingDown);
        }
        // it was retired in this very moment
        group = shared.group(&function);
    }
    let mut flight = None;
    loop {
        let until = flight.as_ref().map_or(patience, |flight: &Flight| flight.begun + function.timeout);
        let Ok(event) = tokio::time::timeout_at(until, heard.recv()).await else {
            match flight.take() {
                Some(flight) => return Ok(over_deadline(&group, &task, &flight)),
                None if group.withdraw(&task.invocation.request_id) => {
                    let waited = shared.settings.longest_wait.as_secs();
                    count(&group.entry().counters.throttled);
                    let reason =
                        format!("no sandbox of the function had a free slot for {waited} s; try again later");
                    return Err(InvokeError::Throttled { reason });
                }
                // it was handed over in this very moment
                None => continue,
            }
        };
        match event {
            Some(Progress::Delivered { slots, first }) => {
                let in_flight = slots.in_flight();
                flight = Some(Flight { slots, first, begun: Instant::now(), in_flight });
            }
            Some(Progress::Answered(Answer::Lost)) => {
                flight = None;
                if !group.submit(task.clone()) {
                    return Err(changed());
                }
            }
            // whoever asked may ask another worker, and events wait for this one's next start
            Some(Progress::Answered(Answer::Ended { .. })) if shared.closing.load(Ordering::Acquire) => {
                return Err(InvokeError::ShuttingDown);
            }
            Some(Progress::Answered(answer)) => return Ok(answered(&group, &task, flight.as_ref(), answer)),
            Some(Progress::Refused(error)) => {
                if matches!(error, InvokeError::Throttled { .. }) {
                    count(&group.entry().counters.throttled);
                }
                return Err(error);
            }
            None => return Err(InvokeError::ShuttingDown),
        }
    }
}

/// An invocation that was handed over.
struct Flight {
    slots: Arc<Slots>,
    first: bool,
    begun: Instant,
    in_flight: usize,
}

/// What an invocation came to.
struct Outcome {
    payload: Bytes,
    content_type: Option<String>,
    failed: bool,
}

impl Outcome {
    fn failed(payload: Bytes) -> Self {
        Self { payload, content_type: None, failed: true }
    }
}

fn answered(group: &Arc<Group>, task: &Task, flight: Option<&Flight>, answer: Answer) -> Reply {
    let duration = flight.map_or(Duration::ZERO, |flight| flight.begun.elapsed());
    let outcome = match answer {
        Answer::Response { payload, content_type } => Outcome { payload, content_type, failed: false },
        Answer::Error { payload } => Outcome::failed(payload),
        Answer::Ended { reason } => {
            let id = &task.invocation.request_id;
            Outcome::failed(error_json("Runtime.ExitError", &format!("RequestId: {id} Error: {reason}")))
        }
        // `follow` offers it again instead
        Answer::Lost => Outcome { payload: Bytes::new(), content_type: None, failed: false },
    };
    count(&group.ended);
    if outcome.failed {
        count(&group.entry().counters.errors);
    } else if let Some(flight) = flight {
        group.observe(duration, (flight.in_flight, flight.slots.in_flight() + 1));
    }
    // a slot is free again, though its `next` may already wait
    group.pump();
    finish(group, task, flight, duration, outcome)
}

/// Ends an invocation over its deadline: stops it alone where that can be, else drains and
/// replaces its sandbox.
fn over_deadline(group: &Arc<Group>, task: &Task, flight: &Flight) -> Reply {
    let counters = &group.entry().counters;
    count(&counters.timeouts);
    count(&counters.errors);
    count(&group.ended);
    let id = &task.invocation.request_id;
    stop(group, &flight.slots, id, "an invocation was over its deadline");
    let seconds = task.timeout.as_secs_f64();
    let message = format!("RequestId: {id} Error: Task timed out after {seconds:.2} seconds");
    let outcome = Outcome::failed(error_json("Sandbox.Timedout", &message));
    finish(group, task, Some(flight), flight.begun.elapsed(), outcome)
}

/// Ends an invocation that took too much memory.
pub(super) fn stop_for_memory(group: &Arc<Group>, slots: &Arc<Slots>, id: &RequestId, why: &str) {
    let progress = slots.progress_of(id);
    stop(group, slots, id, why);
    if let Some(progress) = progress {
        let payload = error_json("Runtime.OutOfMemory", &format!("RequestId: {id} Error: {why}"));
        let _ = progress.send(Progress::Answered(Answer::Error { payload }));
    }
}

/// Stops one invocation, with its sandbox if need be.
fn stop(group: &Arc<Group>, slots: &Arc<Slots>, id: &RequestId, why: &str) {
    match slots.expire(id) {
        Stop::Process(process) => {
            let id = id.clone();
            tokio::spawn(async move {
                if !process.process().await.is_some_and(|process| process.kill()) {
                    tracing::debug!(%id, "a photon to be stopped was gone already");
                }
            });
        }
        Stop::Done | Stop::Gone => {}
        Stop::Sandbox => group.quarantine(slots.sandbox(), why),
    }
    group.pump();
}

fn finish(
    group: &Arc<Group>,
    task: &Task,
    flight: Option<&Flight>,
    duration: Duration,
    outcome: Outcome,
) -> Reply {
    let id = &task.invocation.request_id;
    let ms = duration.as_secs_f64() * 1e3;
    let memory = group.memory_mib();
    let sandbox = flight.map_or("-", |flight| flight.slots.sandbox());
    let report = format!(
        "REPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {} ms\tMemory Size: {memory} MB",
        ms.ceil()
    );
    let body = task.log.tail();
    task.log.add(sandbox, report.clone());
    Reply {
        payload: outcome.payload,
        content_type: outcome.content_type,
        function_error: outcome.failed.then(|| "Unhandled".into()),
        log_tail: tail(id, &body, &report),
        duration,
        cold: flight.is_some_and(|flight| flight.first),
    }
}

/// The end of the log as AWS shows it: START, what was printed, END, REPORT.
fn tail(id: &RequestId, body: &[u8], report: &str) -> Bytes {
    let mut text = format!("START RequestId: {id} Version: $LATEST\n").into_bytes();
    text.extend_from_slice(body);
    text.extend_from_slice(format!("END RequestId: {id}\n{report}\n").as_bytes());
    let over = text.len().saturating_sub(crate::logs::TAIL_BYTES);
    Bytes::from(text).slice(over..)
}
