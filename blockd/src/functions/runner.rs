//! Runs the events of the queue and decides what becomes of each.
//!
//! Invariant: an event leaves the queue only by [`Queue::end`], after it succeeded, or after
//! everybody who is to be told of its failure has been told in the same transaction.

use super::dead_letters::DeadLetter;
use super::definition::Definition;
use super::destination::Destination;
use super::queue::{FollowUp, Pick, Queue, Remains, STORE_PAUSE_MS};
use super::record::{Ending, EventRecord};
use super::registry::{Entry, Registry};
use super::retry::{Condition, Next, Outcome, Policy};
use super::settings::EventSettings;
use super::time::now_ms;
use bytes::Bytes;
use photon::function::FunctionKey;
use photon::invocation::{Invocation, InvokeError, Invoker, Reply, RequestId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Destinations in a row after which the next one is a dead letter: AWS stops such loops after
/// 16 as well.
const MAX_HOPS: u32 = 16;
/// Longest sleep, so that a changed wall clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the events need.
pub(super) struct Runner {
    pub(super) queue: Arc<Queue>,
    pub(super) registry: Arc<Registry>,
    pub(super) invoker: Arc<dyn Invoker>,
    pub(super) settings: EventSettings,
}

/// What an attempt came to, with what there is to say about it.
enum Attempt {
    Replied(Reply),
    Refused(String),
    ShuttingDown,
}

impl Attempt {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Replied(reply) if reply.function_error.is_none() => Outcome::Succeeded,
            Self::Replied(_) => Outcome::Failed,
            Self::Refused(_) | Self::ShuttingDown => Outcome::Refused,
        }
    }

    fn reply(&self) -> Option<&Reply> {
        if let Self::Replied(reply) = self { Some(reply) } else { None }
    }

    fn error(&self) -> String {
        match self {
            Self::Replied(reply) => String::from_utf8_lossy(&reply.payload).into_owned(),
            Self::Refused(why) => why.clone(),
            Self::ShuttingDown => String::new(),
        }
    }
}

impl Runner {
    /// Runs events until `stop` says so, and then waits for those under way. Dropped, it leaves
    /// them: they run again after the next start.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.settings.concurrency));
        let mut running = JoinSet::new();
        while !*stop.borrow_and_update() {
            while running.try_join_next().is_some() {}
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
                _ = stop.changed() => break,
            };
            let now = now_ms();
            match self.queue.pick(now) {
                Pick::Now(event) => {
                    let runner = Arc::clone(&self);
                    running.spawn(async move {
                        runner.run_one(event).await;
                        drop(place);
                    });
                }
                Pick::Later(due) => {
                    drop(place);
                    let wait =
                        due.map_or(LONGEST_SLEEP, |due| Duration::from_millis(due.saturating_sub(now)));
                    tokio::select! {
                        () = self.queue.changed() => {}
                        () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
                        _ = stop.changed() => break,
                    }
                }
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn run_one(&self, mut event: EventRecord) {
        if let Some(settlement) = self.queue.unsettled(event.id) {
            return self.queue.settle(event, settlement).await;
        }
        let Some(entry) = self.registry.get(&event.key()) else {
            tracing::warn!(function = %event.key(), request = event.request_id, "an event's function was deleted");
            return self.queue.end(event, Remains::Dropped, Vec::new()).await;
        };
        let payload = match self.queue.payload(event.id).await {
            Ok(payload) => payload.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, function = %event.key(), "an event cannot be read");
                event.due_ms = now_ms().saturating_add(STORE_PAUSE_MS);
                return self.queue.again(event, false).await;
            }
        };
        let policy = Policy::of(&entry.definition, &self.settings);
        if policy.is_too_old(event.accepted_ms, now_ms()) {
            let attempt = Attempt::Refused("it was too old before it could be run".into());
            return self
                .over(event, &entry.definition, &payload, &attempt, Condition::EventAgeExceeded)
                .await;
        }
        let attempt = self.attempt(&entry, &event, &payload).await;
        let outcome = attempt.outcome();
        event.failures += u32::from(outcome == Outcome::Failed);
        event.refusals = if outcome == Outcome::Refused { event.refusals.saturating_add(1) } else { 0 };
        match policy.next(outcome, event.accepted_ms, (event.failures, event.refusals), now_ms()) {
            Next::Over(condition) if !matches!(attempt, Attempt::ShuttingDown) => {
                self.over(event, &entry.definition, &payload, &attempt, condition).await;
            }
            Next::Over(_) => self.queue.again(event, false).await,
            Next::Again { due_ms } => {
                event.due_ms = due_ms;
                self.queue.again(event, outcome == Outcome::Failed).await;
            }
        }
    }

    async fn attempt(&self, entry: &Entry, event: &EventRecord, payload: &Bytes) -> Attempt {
        let begun = entry.function().and_then(|function| Ok((function, entry.begin()?)));
        let (function, _running) = match begun {
            Ok(begun) => begun,
            Err(error) => return Attempt::Refused(error.message),
        };
        let invocation = Invocation {
            request_id: RequestId::of_accepted(&event.request_id).unwrap_or_default(),
            payload: payload.clone(),
            client_context: event.client_context.clone(),
            trace_id: event.trace_id.clone(),
        };
        match self.invoker.invoke(function, invocation).await {
            Ok(reply) => Attempt::Replied(reply),
            Err(InvokeError::ShuttingDown) => Attempt::ShuttingDown,
            Err(error) => Attempt::Refused(error.to_string()),
        }
    }

    /// Ends an event and tells who wants to be told.
    async fn over(
        &self,
        event: EventRecord,
        definition: &Definition,
        payload: &Bytes,
        attempt: &Attempt,
        condition: Condition,
    ) {
        let now = now_ms();
        let ending = Ending { condition, arn: &definition.arn, reply: attempt.reply(), now_ms: now };
        let failed = condition != Condition::Success;
        let (mut follow_ups, mut bury) = (Vec::new(), false);
        for destination in destinations(definition, failed) {
            let Destination::Function(name) = destination else {
                bury = true;
                continue;
            };
            let key = FunctionKey { tenant: event.tenant.clone(), name };
            let record = ending.record(&event, payload);
            let can = event.hops < MAX_HOPS
                && self.registry.get(&key).is_some()
                && self.queue.has_room(&key, record.len());
            if can {
                follow_ups.push(FollowUp { key, payload: record, hops: event.hops + 1 });
            } else {
                tracing::warn!(
                    function = %event.key(), destination = %key, request = event.request_id,
                    "a destination is gone, full or too far along a chain; its event became a dead letter"
                );
                bury = true;
            }
        }
        let remains = if bury {
            Remains::Letter(DeadLetter {
                id: event.id,
                tenant: event.tenant.clone(),
                function: event.name.clone(),
                request_id: event.request_id.clone(),
                accepted_ms: event.accepted_ms,
                ended_ms: now,
                condition,
                failures: event.failures,
                error: DeadLetter::cut(&attempt.error()),
                payload_bytes: event.payload_bytes,
            })
        } else if failed && follow_ups.is_empty() {
            tracing::warn!(
                function = %event.key(), request = event.request_id, ?condition, failures = event.failures,
                "an event came to nothing and its function has no dead-letter target"
            );
            Remains::Dropped
        } else {
            Remains::Nothing
        };
        self.queue.end(event, remains, follow_ups).await;
    }
}

/// Who is told, each once. Stored ARNs were checked when they were given; one that is no
/// longer understood is a dead letter.
fn destinations(definition: &Definition, failed: bool) -> Vec<Destination> {
    let config = definition.event_config.as_ref();
    let arns = if failed {
        [definition.dead_letter.as_deref(), config.and_then(|config| config.on_failure.as_deref())]
    } else {
        [None, config.and_then(|config| config.on_success.as_deref())]
    };
    let mut found = Vec::new();
    for arn in arns.into_iter().flatten() {
        let parsed = Destination::parse(arn, &definition.name, &definition.account);
        if let Some(destination) = parsed.unwrap_or(Some(Destination::DeadLetters))
            && !found.contains(&destination)
        {
            found.push(destination);
        }
    }
    found
}
