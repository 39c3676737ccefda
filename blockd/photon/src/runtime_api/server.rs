//! Serves one sandbox: HTTP on the Runtime API's listener, raw text on the logs' listener.
//!
//! Whoever connects is inside the sandbox, and everything they send may be hostile.
//!
//! Invariants: connections, headers and bodies are bounded, each and all together; a body is read
//! only under an id that is in flight here, or before the first invocation; what one sandbox
//! does costs no other sandbox anything.

use super::slots::{Answer, AnswerError, Slots, Task};
use crate::invocation::error_json;
use crate::logs::read_lines;
use crate::sandbox::Observer;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Header by which a runtime says that a process of this id takes the invocation and that
/// ending the process ends just that invocation.
const PROCESS_HEADER: &str = "lantern-photon-pid";
/// How long a header may take to come, counted from the answer before it: a connection is silent
/// for as long as its invocation runs, which is 15 minutes at most.
const HEADER_PATIENCE: Duration = Duration::from_secs(1000);
/// Bodies that are being read may hold so many times the largest answer, all together.
const BODIES_AT_ONCE: usize = 16;
/// Room for bodies is given out in portions of this many bytes.
const PORTION_BYTES: usize = 64 << 10;
const TOO_MANY_BODIES: &str = "this sandbox sends too many large bodies at once; send fewer";
/// How long a body waits for room that others hold.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);
/// Largest report of a failed start: what its callers are told.
const MOST_INIT_ERROR_BYTES: usize = 256 << 10;
/// Most bytes that are read of a body beyond what is allowed, only to be thrown away.
const MOST_DISCARDED_BYTES: usize = 64 << 20;
/// How long that may take.
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);
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
    observer: OnceLock<Observer>,
    /// Room for bodies that are being read, in portions.
    room: Arc<Semaphore>,
}

/// What is known of one connection.
#[derive(Debug, Clone, Default)]
struct Connection {
    /// The invocation that was last given to it, if a process of its own took it.
    given: Arc<Mutex<Option<(i32, crate::invocation::RequestId)>>>,
}

type Shared = State<(Arc<Api>, Connection)>;

fn failed(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], error_json(kind, message)).into_response()
}

fn refused(error: AnswerError) -> Response {
    match error {
        AnswerError::Late => failed(StatusCode::GONE, "InvocationExpired", &error.to_string()),
        AnswerError::Unknown => failed(StatusCode::BAD_REQUEST, "InvalidRequestID", &error.to_string()),
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, axum::Json(json!({"status": "OK"}))).into_response()
}

fn too_large(limit: usize) -> Response {
    let message = format!("the body is larger than the {limit} bytes allowed");
    failed(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
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
    api.initialised.send_if_modified(|state| {
        let first = *state == Initialisation::Pending;
        if first {
            *state = Initialisation::Done;
        }
        first
    });
    let process = headers.get(PROCESS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let process = process.filter(|pid: &i32| *pid > 1);
    let Some(delivery) = api.slots.next(process, None).await else {
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

/// A body, the error that its trailers report, if any, and the room it holds.
struct Read {
    payload: Bytes,
    trailing_error: Option<String>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads a body, which may come in pieces for as long as its invocation runs.
async fn read(request: Request<Body>, limit: usize, room: &Arc<Semaphore>) -> Result<Read, Response> {
    let mut body = request.into_body();
    let (mut payload, mut portions, mut held) = (BytesMut::new(), 0, None);
    let mut trailing_error = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) if payload.len() + data.len() > limit => {
                // what was read is not needed any more
                drop((data, payload, held));
                discard(body).await;
                return Err(too_large(limit));
            }
            Ok(Ok(data)) => {
                let needed = (payload.len() + data.len()).div_ceil(PORTION_BYTES);
                let more = u32::try_from(needed - portions).unwrap_or(u32::MAX);
                let more = tokio::time::timeout(ROOM_PATIENCE, Arc::clone(room).acquire_many_owned(more));
                let Ok(Ok(more)) = more.await else {
                    return Err(failed(StatusCode::SERVICE_UNAVAILABLE, "TooManyBodies", TOO_MANY_BODIES));
                };
                portions = needed;
                match &mut held {
                    Some(held) => OwnedSemaphorePermit::merge(held, more),
                    None => held = Some(more),
                }
                payload.extend_from_slice(&data);
                continue;
            }
            Ok(Err(frame)) => frame,
            Err(_) => return Err(failed(StatusCode::BAD_REQUEST, "BadBody", "the body broke off")),
        };
        // a streamed response that fails half way says so behind it
        let kind = frame.trailers_ref().and_then(|all| all.get("lambda-runtime-function-error-type"));
        trailing_error = kind.and_then(|value| value.to_str().ok()).map(String::from);
    }
    Ok(Read { payload: payload.freeze(), trailing_error, _room: held })
}

async fn response(State((api, _)): Shared, Path(id): Path<String>, request: Request<Body>) -> Response {
    let id = match api.slots.check(&id) {
        Ok(id) => id,
        Err(error) => return refused(error),
    };
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(String::from);
    let answer = match read(request, api.settings.most_response_bytes, &api.room).await {
        Ok(Read { payload, trailing_error: None, .. }) => Answer::Response { payload, content_type },
        Ok(Read { trailing_error: Some(kind), .. }) => {
            let message = "the function failed while it streamed its response";
            Answer::Error { payload: error_json(&kind, message) }
        }
        Err(refusal) => {
            let message = match refusal.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Some(format!(
                    "Response payload size exceeded maximum allowed payload size ({} bytes).",
                    api.settings.most_response_bytes
                )),
                StatusCode::SERVICE_UNAVAILABLE => Some(TOO_MANY_BODIES.to_string()),
                _ => None,
            };
            if let Some(message) = message {
                let payload = error_json("Function.ResponseSizeTooLarge", &message);
                api.finish(&id, Answer::Error { payload }).await.ok();
            }
            return refusal;
        }
    };
    api.finish(&id, answer).await.map_or_else(refused, |()| accepted())
}

async fn error(State((api, _)): Shared, Path(id): Path<String>, request: Request<Body>) -> Response {
    let id = match api.slots.check(&id) {
        Ok(id) => id,
        Err(error) => return refused(error),
    };
    let kind = error_kind(request.headers());
    let payload = match read(request, api.settings.most_response_bytes, &api.room).await {
        Ok(read) => error_payload(read.payload, kind),
        Err(refusal) => {
            // it failed all the same, whatever it would have said of it
            if refusal.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let message = "the function failed, and what it said of it is larger than an answer may be";
                let payload = error_json(kind.as_deref().unwrap_or("Unhandled"), message);
                api.finish(&id, Answer::Error { payload }).await.ok();
            }
            return refusal;
        }
    };
    api.finish(&id, Answer::Error { payload }).await.map_or_else(refused, |()| accepted())
}

async fn init_error(State((api, _)): Shared, request: Request<Body>) -> Response {
    if *api.initialised.borrow() != Initialisation::Pending {
        let message = "the start of this sandbox has ended; errors are reported for an invocation now";
        return failed(StatusCode::FORBIDDEN, "InvalidStateTransition", message);
    }
    let kind = error_kind(request.headers());
    match read(request, MOST_INIT_ERROR_BYTES, &api.room).await {
        Ok(read) => {
            let failed = Initialisation::Failed(error_payload(read.payload, kind));
            api.initialised.send_replace(failed);
            accepted()
        }
        Err(refusal) => {
            if refusal.status() == StatusCode::PAYLOAD_TOO_LARGE {
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
        let portions = BODIES_AT_ONCE * settings.most_response_bytes.div_ceil(PORTION_BYTES).max(1);
        let room = Arc::new(Semaphore::new(portions.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { sandbox, slots, settings, initialised, observer: OnceLock::new(), room })
    }

    /// Tells how to look at the sandbox's processes. Once.
    pub fn launched(&self, observer: Observer) {
        let _ = self.observer.set(observer);
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
    async fn finish(&self, id: &crate::invocation::RequestId, answer: Answer) -> Result<(), AnswerError> {
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
        let places = Arc::new(Semaphore::new(self.settings.most_connections));
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
        while self.slots.check(id.as_str()).is_ok() {
            tokio::time::sleep(CRASH_PATIENCE).await;
            let Some(observer) = self.observer.get().cloned() else { return };
            let alive = tokio::task::spawn_blocking(move || observer.find(process).is_some()).await;
            if matches!(alive, Ok(false)) {
                let reason = "Runtime exited without providing a reason".into();
                let _ = self.slots.answer(&id, Answer::Ended { reason });
                return;
            }
        }
    }

    /// Serves the log listener until the caller drops it: a line with an invocation's id, then
    /// what is logged.
    pub async fn serve_logs(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.settings.most_connections));
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
        read_lines(stream, |line| log.add(&self.sandbox, line)).await;
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
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
