//! Functions on the control socket: the Lambda API without signatures, since only the
//! socket's owner comes this far, and what that API has no call for.

use super::lambda::{Failure, Target, routes};
use crate::functions::service::MAX_CALL_BYTES;
use crate::functions::{Caller, ErrorCode, Service, ServiceError};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use image_format::ids::TenantId;
use photon::invocation::{FunctionStats, LogLine};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Header that says whose functions are meant.
pub const TENANT_HEADER: &str = "lantern-tenant";
/// The tenant where it says nothing.
pub const DEFAULT_TENANT: &str = "local";

/// Most dead letters in an answer: with payloads of up to 1 MiB, twice that once escaped,
/// half of what a client reads.
const MAX_LETTERS: usize = 16;
/// Bytes of log lines where nothing is said, and at most.
const DEFAULT_LOG_BYTES: usize = 64 << 10;
const MAX_LOG_BYTES: usize = 16 << 20;

/// A dead letter on the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownLetter {
    /// Its id, for removing it.
    pub id: u64,
    /// What is known of it.
    #[serde(flatten)]
    pub letter: crate::functions::dead_letters::DeadLetter,
    /// The event, JSON as text.
    pub payload: String,
}

/// What a function's sandboxes and the worker's queue do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownStats {
    /// The function's own.
    pub function: FunctionStats,
    /// Events of all functions.
    pub queue: crate::functions::queue::QueueStats,
}

/// Which dead letters to remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ids {
    /// Their ids.
    pub ids: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    bytes: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct LetterQuery {
    after: Option<u64>,
}

type Answer<T> = Result<Json<T>, Failure>;

async fn logs(
    State(service): State<Arc<Service>>,
    target: Target,
    Query(query): Query<LogQuery>,
) -> Answer<Vec<LogLine>> {
    let entry = target.entry(&service)?;
    Ok(Json(service.logs(&entry, query.bytes.unwrap_or(DEFAULT_LOG_BYTES).min(MAX_LOG_BYTES))))
}

async fn stats(State(service): State<Arc<Service>>, target: Target) -> Answer<ShownStats> {
    let entry = target.entry(&service)?;
    Ok(Json(ShownStats { function: service.stats(&entry), queue: service.queue_stats() }))
}

async fn dead_letters(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<LetterQuery>,
) -> Answer<Vec<ShownLetter>> {
    let letters = service.dead_letters(&caller, query.after, MAX_LETTERS).await?;
    let shown = letters.into_iter().map(|(letter, payload)| ShownLetter {
        id: letter.id,
        letter,
        payload: String::from_utf8_lossy(&payload).into_owned(),
    });
    Ok(Json(shown.collect()))
}

async fn remove_dead_letters(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Json(Ids { ids }): Json<Ids>,
) -> Answer<usize> {
    Ok(Json(service.remove_dead_letters(&caller, &ids).await?))
}

/// Says who calls, and bounds what is sent.
async fn admit(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    match admitted(&service, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => Failure(error).into_response(),
    }
}

async fn admitted(service: &Service, request: Request) -> Result<Request, ServiceError> {
    let (mut parts, body) = request.into_parts();
    let named = parts.headers.get(TENANT_HEADER).map(|value| value.to_str().unwrap_or_default());
    let tenant = named.unwrap_or(DEFAULT_TENANT);
    if let Err(error) = tenant.parse::<TenantId>() {
        return Err(ServiceError::invalid(format!("not a tenant: {error}")));
    }
    let account = service.settings().account(tenant).into();
    parts.extensions.insert(Caller { tenant: tenant.into(), account });
    let body = Limited::new(body, MAX_CALL_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the request is longer than {MAX_CALL_BYTES} bytes, the longest there is");
            ServiceError::new(ErrorCode::RequestTooLarge, message)
        } else {
            ServiceError::new(ErrorCode::InvalidRequestContent, "the request was cut short; send it again")
        }
    })?;
    Ok(Request::from_parts(parts, Body::from(body.to_bytes())))
}

async fn nothing_here() -> Failure {
    Failure(ServiceError::new(ErrorCode::UnknownOperation, "this daemon runs no functions"))
}

/// The routes, for `/v1/…` of the control socket; without functions, refusals that say so.
pub fn function_routes(service: Option<Arc<Service>>) -> Router {
    let Some(service) = service else {
        return Router::new()
            .route("/v1/lambda/{*rest}", axum::routing::any(nothing_here))
            .route("/v1/functions/{*rest}", axum::routing::any(nothing_here))
            .route("/v1/dead-letters", axum::routing::any(nothing_here));
    };
    Router::new()
        .route("/v1/functions/{name}/logs", get(logs))
        .route("/v1/functions/{name}/stats", get(stats))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/v1/dead-letters/remove", post(remove_dead_letters))
        .with_state(Arc::clone(&service))
        .nest("/v1/lambda", routes(Arc::clone(&service)))
        .layer(from_fn_with_state(service, admit))
}
