//! The store over HTTP, as the sandbox's processes see it below `/lantern/v1` (the routes and
//! headers: docs/runtimes.md).
//!
//! Invariants: bodies are read within the store's budget, all that come in at once together
//! within one more budget, each within [`LONGEST_UPLOAD`]; waits are bounded by the store. A
//! request that its client drops leaves nothing behind but a lease that was already answered,
//! which expires.

use super::super::server::discard;
use super::{Condition, Init, LeaseToken, PutOptions, SharedStore, StoreError, Stored, Version};
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const LEASE: HeaderName = HeaderName::from_static("lantern-lease");
const TTL: HeaderName = HeaderName::from_static("lantern-ttl-ms");

/// Longest time for a body to come in, and for its turn before that. It comes over loopback,
/// so this is for a client that was stopped in mid-sentence.
const LONGEST_UPLOAD: Duration = Duration::from_secs(30);
/// Length of a lease whose caller names none: the default of a client's own time-out.
const USUAL_LEASE: Duration = Duration::from_secs(60);
/// Room for bodies is given out in portions of this many bytes.
const PORTION_BYTES: u64 = 4096;

struct Shared {
    store: Arc<SharedStore>,
    /// Room for bodies that are being read, in portions.
    uploads: Semaphore,
}

/// The routes of the store; to be merged into the Runtime API's.
pub fn router(store: Arc<SharedStore>) -> Router {
    let portions = usize::try_from(portions_of(store.limits().budget_bytes)).unwrap_or(usize::MAX);
    let uploads = Semaphore::new(portions.min(Semaphore::MAX_PERMITS));
    Router::new()
        .route("/lantern/v1/store", get(metrics))
        .route("/lantern/v1/store/{key}", get(read).put(write).delete(remove))
        .route("/lantern/v1/store/{key}/init", post(init).delete(give_up))
        .route("/lantern/v1/lease/{name}", post(acquire).delete(release))
        .with_state(Arc::new(Shared { store, uploads }))
}

type Http = State<Arc<Shared>>;
type Key = Result<Path<String>, PathRejection>;

#[derive(Debug, Deserialize)]
struct InitQuery {
    wait_ms: Option<u64>,
    lease_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct LeaseQuery {
    wait_ms: Option<u64>,
    ttl_ms: Option<u64>,
}

/// An answer that is no success.
#[derive(Debug)]
enum Failure {
    Store(StoreError),
    /// The request itself is wrong, in this way.
    Request(String),
    /// The body did not come.
    Body(StatusCode, &'static str),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::Request(rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::Request(rejection.body_text())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    error_type: &'static str,
    error_message: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error_type, error_message, present) = match self {
            Self::Request(message) => (StatusCode::BAD_REQUEST, "Store.BadRequest", message, None),
            Self::Body(status, message) => (status, "Store.Body", message.to_owned(), None),
            Self::Store(error) => {
                let (status, name, present) = match &error {
                    StoreError::Key { .. } => (StatusCode::BAD_REQUEST, "Store.Key", None),
                    StoreError::NotFound => (StatusCode::NOT_FOUND, "Store.NotFound", None),
                    StoreError::Condition { present } => {
                        (StatusCode::PRECONDITION_FAILED, "Store.Condition", *present)
                    }
                    StoreError::Lease { present } => {
                        (StatusCode::PRECONDITION_FAILED, "Store.Lease", *present)
                    }
                    StoreError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "Store.TooLarge", None),
                    StoreError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "Store.Full", None),
                    StoreError::Timeout => (StatusCode::REQUEST_TIMEOUT, "Store.Timeout", None),
                    StoreError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "Store.Busy", None),
                };
                (status, name, error.to_string(), present)
            }
        };
        let mut response = (status, Json(ErrorBody { error_type, error_message })).into_response();
        if let Some(version) = present {
            response.headers_mut().insert(header::ETAG, etag(version));
        }
        response
    }
}

async fn metrics(State(shared): Http) -> Response {
    Json(shared.store.metrics()).into_response()
}

async fn read(State(shared): Http, key: Key) -> Result<Response, Failure> {
    let Path(key) = key?;
    Ok(found(shared.store.get(&key)?))
}

async fn write(State(shared): Http, key: Key, request: Request) -> Result<Response, Failure> {
    let Path(key) = key?;
    let headers = request.headers();
    let options =
        PutOptions { condition: condition(headers)?, ttl: ttl(headers)?, lease: optional_lease(headers)? };
    let value = shared.body(request.headers().clone(), request.into_body()).await?;
    let version = shared.store.put(&key, value, &options)?;
    Ok(([(header::ETAG, etag(version))], StatusCode::OK).into_response())
}

async fn remove(State(shared): Http, key: Key, headers: HeaderMap) -> Result<StatusCode, Failure> {
    let Path(key) = key?;
    shared.store.delete(&key, condition(&headers)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn init(
    State(shared): Http,
    key: Key,
    query: Result<Query<InitQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let (Path(key), Query(query)) = (key?, query?);
    let lease = query.lease_ms.map_or(USUAL_LEASE, Duration::from_millis);
    Ok(match shared.store.init(&key, wait(query.wait_ms), lease).await? {
        Init::Present(stored) => found(stored),
        Init::Make(token) => leased(StatusCode::CREATED, &token)?,
    })
}

async fn give_up(State(shared): Http, key: Key, headers: HeaderMap) -> Result<StatusCode, Failure> {
    let Path(key) = key?;
    shared.store.give_up(&key, &lease(&headers)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn acquire(
    State(shared): Http,
    name: Key,
    query: Result<Query<LeaseQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let (Path(name), Query(query)) = (name?, query?);
    let ttl = query.ttl_ms.map_or(USUAL_LEASE, Duration::from_millis);
    let token = shared.store.acquire(&name, ttl, wait(query.wait_ms)).await?;
    leased(StatusCode::OK, &token)
}

async fn release(State(shared): Http, name: Key, headers: HeaderMap) -> Result<StatusCode, Failure> {
    let Path(name) = name?;
    shared.store.release(&name, &lease(&headers)?)?;
    Ok(StatusCode::NO_CONTENT)
}

impl Shared {
    /// Reads a body, within the budget of one value and of all that come in at once.
    async fn body(&self, headers: HeaderMap, mut body: Body) -> Result<Bytes, Failure> {
        let budget_bytes = self.store.limits().budget_bytes;
        let declared = match headers.get(header::CONTENT_LENGTH) {
            None => None,
            Some(value) => Some(number(value, "Content-Length")?),
        };
        if let Some(charge) = declared.filter(|length| *length > budget_bytes) {
            discard(body).await;
            return Err(StoreError::TooLarge { charge, budget_bytes }.into());
        }
        let most = declared.unwrap_or(budget_bytes);
        let portions = u32::try_from(portions_of(most)).unwrap_or(u32::MAX);
        let reading = async {
            let _room = self.uploads.acquire_many(portions).await;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            Limited::new(&mut body, most).collect().await.map(Collected::to_bytes)
        };
        match tokio::time::timeout(LONGEST_UPLOAD, reading).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                discard(body).await;
                Err(StoreError::TooLarge { charge: most.saturating_add(1), budget_bytes }.into())
            }
            Ok(Err(_)) => Err(Failure::Body(StatusCode::BAD_REQUEST, "the body broke off")),
            Err(_) => Err(Failure::Body(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        }
    }
}

/// Portions that hold so many bytes; at least one.
fn portions_of(bytes: u64) -> u64 {
    bytes.div_ceil(PORTION_BYTES).max(1)
}

fn found(stored: Stored) -> Response {
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = [(header::ETAG, etag(stored.version)), (header::CONTENT_TYPE, octets)];
    (headers, stored.value).into_response()
}

fn leased(status: StatusCode, token: &LeaseToken) -> Result<Response, Failure> {
    let value = HeaderValue::from_str(token.as_str())
        .map_err(|_| Failure::Body(StatusCode::INTERNAL_SERVER_ERROR, "a lease that is no header"))?;
    Ok((status, [(LEASE, value)]).into_response())
}

fn etag(version: Version) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes are a header value")
}

fn wait(ms: Option<u64>) -> Duration {
    ms.map_or(super::LONGEST_WAIT, Duration::from_millis)
}

/// The condition of `If-Match` or `If-None-Match`; only what the contract names.
fn condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    let wrong = |what: &str| Failure::Request(what.to_owned());
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Any),
        (Some(_), Some(_)) => Err(wrong("If-Match and If-None-Match cannot both be given")),
        (None, Some(value)) if value.as_bytes() == b"*" => Ok(Condition::Absent),
        (None, Some(_)) => Err(wrong("If-None-Match can only be *")),
        (Some(value), None) if value.as_bytes() == b"*" => Ok(Condition::Present),
        (Some(value), None) => value
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix('"')?.strip_suffix('"'))
            .and_then(Version::parse)
            .map(Condition::Is)
            .ok_or_else(|| wrong("If-Match must be * or one ETag of this store, in its quotes")),
    }
}

fn ttl(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    headers.get(TTL).map(|value| number(value, "Lantern-Ttl-Ms").map(Duration::from_millis)).transpose()
}

fn optional_lease(headers: &HeaderMap) -> Result<Option<LeaseToken>, Failure> {
    let text = |value: &HeaderValue| value.to_str().map(LeaseToken::from_text).ok();
    match headers.get(LEASE) {
        None => Ok(None),
        Some(value) => match text(value) {
            Some(token) => Ok(Some(token)),
            None => Err(Failure::Request("Lantern-Lease must be a token as it was given".to_owned())),
        },
    }
}

fn lease(headers: &HeaderMap) -> Result<LeaseToken, Failure> {
    optional_lease(headers)?.ok_or_else(|| Failure::Request("the header Lantern-Lease is missing".to_owned()))
}

fn number(value: &HeaderValue, name: &str) -> Result<u64, Failure> {
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Failure::Request(format!("{name} must be a whole number")))
}
