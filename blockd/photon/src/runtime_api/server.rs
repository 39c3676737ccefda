//! Serves one sandbox: HTTP on the Runtime API's listener, raw text on the logs' listener.
//!
//! Whoever connects is inside the sandbox, and everything they send may be hostile.
//!
//! Invariants: connections, headers and bodies are bounded, each, all of a sandbox and all of the
//! worker; a body is read only while its id is in flight here, or before the first invocation; what
//! one sandbox does leaves every other its own room.

use super::body::{Bodies, BodyError, Read};
use super::room::{Place, Room, WorkerRoom};
use super::slots::{Answer, AnswerError, Slots, Task, Underway};
use crate::invocation::{RequestId, error_json};
use crate::logs::{Pace, read_lines};
use crate::sandbox::{Named, Observer, Processes};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Header by which a runtime says that a process of this id takes the invocation and that
/// ending the process ends just that invocation.
const PROCESS_HEADER: &str = "lantern-photon-pid";
/// How long a header may take to come, counted from the answer before it: a connection is silent
/// for as long as its invocation runs, which is 15 minutes at most.
const HEADER_PATIENCE: Duration = Duration::from_secs(1000);
/// Largest report of a failed start: what its callers are told.
const MOST_INIT_ERROR_BYTES: usize = 256 << 10;
/// Most bytes that are read of a body beyond what is allowed, only to be thrown away.
const MOST_DISCARDED_BYTES: usize = 256 << 20;
/// How long that may take.
const DISCARD_PATIENCE: Duration = Duration::from_secs(2);
/// How long open log connections may keep an answer.
const LOG_PATIENCE: Duration = Duration::from_millis(100);
/// How long an invocation whose process closed its connection may still be answered: the
/// runtime knows better what happened.
const CRASH_PATIENCE: Duration = Duration::from_millis(500);

/// Limits of one sandbox's connections.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Largest answer in bytes; as on AWS, 6 MiB.
    pub most_response_bytes: usize,
    /// Most connections at once, of each kind.
    pub most_connections: usize,
    /// ARN told to runtimes.
    pub function_arn: String,
    /// What it shares with other sandboxes.
    pub room: WorkerRoom,
}

/// Whether a sandbox's runtime came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initialisation {
    /// Nothing heard yet.
    Pending,
    /// It asked for its first invocation.
    Done,
    /// It said what went wrong; JSON with `errorMessage` and `errorType`.
    Failed(Bytes),
}

/// The API of one sandbox.
#[derive(Debug)]
pub struct Api {
    sandbox: Arc<str>,
    slots: Arc<Slots>,
    settings: ApiSettings,
    initialised: watch::Sender<Initialisation>,
    processes: Arc<OnceLock<Processes>>,
    bodies: Bodies,
    log_pace: Arc<Pace>,
}

/// An invocation, and the process of its own that took it.
type Given = Option<(Arc<Named>, RequestId)>;

/// What is known of one connection.
#[derive(Debug, Clone, Default)]
struct Connection {
    /// The process that it said to be of.
    process: Arc<OnceLock<Arc<Named>>>,
    /// The invocation that was last given to it, if a process of its own took it.
    given: Arc<Mutex<Given>>,
}

type Shared = State<(Arc<Api>, Connection)>;

fn failed(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], error_json(kind, message)).into_response()
}

fn refused(error: AnswerError) -> Response {
    match error {
        AnswerError::Late => failed(StatusCode::GONE, "InvocationExpired", &error.to_string()),
        AnswerError::Underway => failed(StatusCode::CONFLICT, "AnswerUnderway", &error.to_string()),
        AnswerError::Unknown => failed(StatusCode::BAD_REQUEST, "InvalidRequestID", &error.to_string()),
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, axum::Json(json!({"status": "OK"}))).into_response()
}

/// The invocation as `next` answers it.
fn to_response(task: &Task, arn: &str) -> Response {
    let deadline = task.deadline_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().to_string();
    let invocation = &task.invocation;
    let mut response = Response::new(Body::from(invocation.payload.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut set = |name: &'static str, value: Option<&str>| {
        // a value that cannot be a header is the caller's; the front door checks what it lets in
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("lambda-runtime-aws-request-id", Some(invocation.request_id.as_str()));
    set("lambda-runtime-deadline-ms", Some(&deadline));
    set("lambda-runtime-invoked-function-arn", Some(arn));
    set("lambda-runtime-trace-id", invocation.trace_id.as_deref());
    set("lambda-runtime-client-context", invocation.client_context.as_deref());
    response
}

async fn next(State((api, connection)): Shared, headers: HeaderMap) -> Response {
    let named = headers.get(PROCESS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let named = named.filter(|pid: &i32| *pid > 1);
    let process = named.map(|pid| {
        // a connection belongs to one process, which is looked up once at most
        Arc::clone(connection.process.get_or_init(|| Named::new(pid, Arc::clone(&api.processes))))
    });
    api.initialised.send_if_modified(|state| {
        let first = *state == Initialisation::Pending;
        if first {
            *state = Initialisation::Done;
        }
        first
    });
    let Some(delivery) = api.slots.next(process.clone(), None).await else {
        return failed(StatusCode::GONE, "SandboxEnded", "this sandbox has ended");
    };
    let task = delivery.take();
    if let Some(process) = process {
        let mut given = connection.given.lock().unwrap_or_else(PoisonError::into_inner);
        *given = Some((process, task.invocation.request_id.clone()));
    }
    to_response(&task, &api.settings.function_arn)
}

/// Reads on in a body that is refused: a client that is still sending it would find the
/// connection broken instead of reading the refusal, and some end then.
pub(super) async fn discard(mut body: Body) {
    let rest = async {
        let mut left = MOST_DISCARDED_BYTES;
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    let _ = tokio::time::timeout(DISCARD_PATIENCE, rest).await;
}

/// Refuses a body that was not read.
async fn refuse(error: BodyError, body: Body) -> Response {
    let (status, kind) = match error {
        BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
        BodyError::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "TooManyBodies"),
        BodyError::BrokeOff => (StatusCode::BAD_REQUEST, "BadBody"),
    };
    if matches!(error, BodyError::TooLarge(_)) {
        discard(body).await;
    }
    failed(status, kind, &error.to_string())
}

/// Why the answer to an invocation was not read.
enum Unread {
    Body(BodyError, Body),
    /// The invocation ended meanwhile.
    Over(Body),
}

/// Reads an answer, which may come in pieces for as long as its invocation runs.
async fn read_answer(api: &Api, answer: &mut Underway, request: Request<Body>) -> Result<Read, Unread> {
    let mut body = request.into_body();
    let read = tokio::select! {
        read = api.bodies.read(&mut body, api.settings.most_response_bytes) => read,
        () = answer.over() => return Err(Unread::Over(body)),
    };
    read.map_err(|error| Unread::Body(error, body))
}

/// Refuses what came after the end of its invocation.
async fn refuse_late(api: &Api, id: &RequestId, body: Body) -> Response {
    discard(body).await;
    refused(api.slots.check(id.as_str()).err().unwrap_or(AnswerError::Late))
}

async fn response(State((api, _)): Shared, Path(id): Path<String>, request: Request<Body>) -> Response {
    let mut underway = match api.slots.begin_answer(&id) {
        Ok(underway) => underway,
        Err(error) => return refused(error),
    };
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(String::from);
    let read = read_answer(&api, &mut underway, request).await;
    let id = &underway.id;
    let answer = match read {
        Ok(Read { payload, trailers, .. }) => {
            // a streamed response that fails half way says so behind it
            match trailers.as_ref().and_then(error_kind) {
                None => Answer::Response { payload, content_type },
                Some(kind) => {
                    let message = "the function failed while it streamed its response";
                    Answer::Error { payload: error_json(&kind, message) }
                }
            }
        }
        Err(Unread::Over(body)) => return refuse_late(&api, id, body).await,
        Err(Unread::Body(error, body)) => {
            let message = match error {
                BodyError::TooLarge(limit) => Some(format!(
                    "Response payload size exceeded maximum allowed payload size ({limit} bytes)."
                )),
                BodyError::NoRoom => Some(error.to_string()),
                BodyError::BrokeOff => None,
            };
            let refusal = refuse(error, body).await;
            if let Some(message) = message {
                let payload = error_json("Function.ResponseSizeTooLarge", &message);
                api.finish(id, Answer::Error { payload }).await.ok();
            }
            return refusal;
        }
    };
    api.finish(id, answer).await.map_or_else(refused, |()| accepted())
}

async fn error(State((api, _)): Shared, Path(id): Path<String>, request: Request<Body>) -> Response {
    let mut underway = match api.slots.begin_answer(&id) {
        Ok(underway) => underway,
        Err(error) => return refused(error),
    };
    let kind = error_kind(request.headers());
    let read = read_answer(&api, &mut underway, request).await;
    let id = &underway.id;
    let payload = match read {
        Ok(read) => error_payload(read.payload, kind),
        Err(Unread::Over(body)) => return refuse_late(&api, id, body).await,
        Err(Unread::Body(error, body)) => {
            let refusal = refuse(error, body).await;
            // it failed all the same, whatever it would have said of it
            if matches!(error, BodyError::TooLarge(_)) {
                let message = "the function failed, and what it said of it is larger than an answer may be";
                let payload = error_json(kind.as_deref().unwrap_or("Unhandled"), message);
                api.finish(id, Answer::Error { payload }).await.ok();
            }
            return refusal;
        }
    };
    api.finish(id, Answer::Error { payload }).await.map_or_else(refused, |()| accepted())
}

async fn init_error(State((api, _)): Shared, request: Request<Body>) -> Response {
    if *api.initialised.borrow() != Initialisation::Pending {
        let message = "the start of this sandbox has ended; errors are reported for an invocation now";
        return failed(StatusCode::FORBIDDEN, "InvalidStateTransition", message);
    }
    let kind = error_kind(request.headers());
    let mut body = request.into_body();
    match api.bodies.read(&mut body, MOST_INIT_ERROR_BYTES).await {
        Ok(read) => {
            let failed = Initialisation::Failed(error_payload(read.payload, kind));
            api.initialised.send_replace(failed);
            accepted()
        }
        Err(error) => {
            let refusal = refuse(error, body).await;
            if matches!(error, BodyError::TooLarge(_)) {
                let message = "the runtime failed to start, and what it said of it is too large to be told";
                let payload = error_json(kind.as_deref().unwrap_or("Runtime.InitError"), message);
                api.initialised.send_replace(Initialisation::Failed(payload));
            }
            refusal
        }
    }
}

fn error_kind(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get("lambda-runtime-function-error-type")?;
    kind.to_str().ok().map(String::from)
}

/// An error as its caller gets it: the runtime's JSON, or one made of what there is.
fn error_payload(payload: Bytes, kind: Option<String>) -> Bytes {
    if serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&payload).is_ok() {
        return payload;
    }
    let kind = kind.unwrap_or_else(|| "Unhandled".into());
    error_json(&kind, &String::from_utf8_lossy(&payload))
}

async fn no_such_path() -> Response {
    failed(StatusCode::NOT_FOUND, "NotFound", "no such path; this is the Lambda Runtime API 2018-06-01")
}

impl Api {
    /// The API of a sandbox whose invocations are in `slots`.
    #[must_use]
    pub fn new(sandbox: Arc<str>, slots: Arc<Slots>, settings: ApiSettings) -> Arc<Self> {
        let initialised = watch::Sender::new(Initialisation::Pending);
        let bodies = Bodies::new(settings.room.bodies(settings.most_response_bytes));
        let (processes, log_pace) = (Arc::default(), Arc::default());
        Arc::new(Self { sandbox, slots, settings, initialised, processes, bodies, log_pace })
    }

    /// Tells how to look at the sandbox's processes. Once.
    pub fn launched(&self, observer: Observer) {
        let _ = self.processes.set(Processes::new(observer));
    }

    /// Room for what the sandbox answers, by whatever way.
    #[must_use]
    pub fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// How fast what the sandbox prints is read.
    #[must_use]
    pub fn log_pace(&self) -> &Arc<Pace> {
        &self.log_pace
    }

    /// Follows the runtime's start.
    #[must_use]
    pub fn initialisation(&self) -> watch::Receiver<Initialisation> {
        self.initialised.subscribe()
    }

    /// Says that the runtime is up without its own saying so: it speaks HTTP instead.
    pub fn initialised(&self) {
        self.initialised.send_replace(Initialisation::Done);
    }

    /// Ends an invocation once its log is complete.
    async fn finish(&self, id: &RequestId, answer: Answer) -> Result<(), AnswerError> {
        if let Some(log) = self.slots.log_of(id.as_str()) {
            log.settled(LOG_PATIENCE).await;
        }
        self.slots.answer(id, answer)
    }

    fn router(self: &Arc<Self>, store: &Router, connection: Connection) -> Router {
        Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state((Arc::clone(self), connection))
            .merge(store.clone())
            .fallback(no_such_path)
    }

    /// Serves the Runtime API, with `store` beside it, until the caller drops it.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, store: Router) {
        let places = self.settings.room.connections(self.settings.most_connections);
        loop {
            let Some((stream, place)) = accept(&listener, &places).await else { continue };
            let (api, store) = (Arc::clone(&self), store.clone());
            tokio::spawn(async move {
                let connection = Connection::default();
                let service = TowerToHyperService::new(api.router(&store, connection.clone()));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE).keep_alive(true);
                // idle runtimes keep connections, and there may be many: small buffers
                http.max_buf_size(64 * 1024);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                    tracing::trace!(sandbox = %api.sandbox, %error, "a connection of the sandbox broke off");
                }
                drop(place);
                api.connection_closed(&connection).await;
            });
        }
    }

    /// A photon that had an invocation closed its connection. That is its right, as long as it
    /// lives; if it has died and nobody reports what happened to it, its invocation is over.
    async fn connection_closed(&self, connection: &Connection) {
        let given = connection.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((process, id)) = given else { return };
        // most closed it after their answer
        if self.slots.check(id.as_str()).is_err() {
            return;
        }
        let ended = async {
            if let Some(process) = process.process().await {
                process.ended().await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = self.slots.over(&id) => return,
        }
        tokio::time::sleep(CRASH_PATIENCE).await;
        if self.slots.check(id.as_str()).is_ok() {
            let reason = "Runtime exited without providing a reason".into();
            let _ = self.slots.answer(&id, Answer::Ended { reason });
        }
    }

    /// Serves the log listener until the caller drops it: a line with an invocation's id, then
    /// what is logged.
    pub async fn serve_logs(self: Arc<Self>, listener: TcpListener) {
        let places = self.settings.room.connections(self.settings.most_connections);
        loop {
            let Some((stream, place)) = accept(&listener, &places).await else { continue };
            let api = Arc::clone(&self);
            tokio::spawn(async move {
                api.read_log(stream).await;
                drop(place);
            });
        }
    }

    async fn read_log(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        let mut line = (&mut stream).take(64);
        // no patience here: runtimes connect ahead of the invocation that the connection is for
        if !matches!(line.read_line(&mut first).await, Ok(1..)) {
            return;
        }
        let Some(log) = self.slots.log_of(first.trim_end()) else { return };
        let _writer = log.writer();
        read_lines(stream, Arc::clone(&self.log_pace), |line| log.add(&self.sandbox, line)).await;
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Room) -> Option<(TcpStream, Place)> {
    let place = places.take(1).await;
    match listener.accept().await {
        Ok((stream, _)) => {
            // answers are small and waited for
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            // out of descriptors, most likely: give others time to close theirs
            tracing::warn!(%error, "a connection of a sandbox could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

#[cfg(test)]
mod tests;
