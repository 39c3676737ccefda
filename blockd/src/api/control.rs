//! The daemon's side of the control socket.
//!
//! Invariant: a leased instance is closed when its connection ends, however the client
//! ended; nothing a client sends makes the daemon fail.

use super::function_socket::function_routes;
use super::{ErrorBody, MAX_BODY_BYTES, OpenBody, prometheus};
use crate::functions::Service;
use crate::report_kind;
use crate::starts::TooManyStarts;
use crate::worker::{InstanceInfo, Worker};
use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use tokio::net::UnixListener;

type Shared = Arc<Worker>;

struct Failed(StatusCode, ErrorBody);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        let exit_code = report_kind::exit_code(&error);
        let too_many = error.chain().any(|cause| cause.is::<TooManyStarts>());
        let status = match exit_code {
            _ if too_many => StatusCode::TOO_MANY_REQUESTS,
            2 | 4 => StatusCode::BAD_REQUEST,
            3 => StatusCode::NOT_FOUND,
            5 => StatusCode::SERVICE_UNAVAILABLE,
            6 => StatusCode::FORBIDDEN,
            7 => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, ErrorBody { error: format!("{error:#}"), exit_code })
    }
}

fn no_instance(id: &str) -> Failed {
    let error = format!("no instance {id:?}; `blockd ps` lists them");
    Failed(StatusCode::NOT_FOUND, ErrorBody { error, exit_code: 3 })
}

/// Closes a leased instance when the connection that holds it ends.
struct LeaseGuard {
    worker: Shared,
    id: String,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let (worker, id) = (Arc::clone(&self.worker), std::mem::take(&mut self.id));
        tokio::spawn(async move {
            if let Err(error) = worker.close(&id).await {
                tracing::debug!(%error, "a leased instance was closed before its lease ended");
            }
        });
    }
}

async fn open(State(worker): State<Shared>, Json(body): Json<OpenBody>) -> Result<Response, Failed> {
    // a client that goes away in the middle must not leave a half-made mount: a task of its own
    let opening = tokio::spawn({
        let worker = Arc::clone(&worker);
        async move { worker.open(&body.open).await.map(|info| (LeaseGuard { worker, id: info.id.clone() }, info)) }
    });
    let (guard, info) = opening.await.map_err(anyhow::Error::from)??;
    let mut line = serde_json::to_vec(&info).map_err(anyhow::Error::from)?;
    line.push(b'\n');
    if !body.lease {
        let mut guard = guard;
        // an unknown id: the guard closes nothing
        guard.id.clear();
        return Ok(([(header::CONTENT_TYPE, "application/json")], line).into_response());
    }
    let first = stream::once(async move { Ok::<_, std::convert::Infallible>(line) });
    let rest = stream::once(async move {
        let _held = guard;
        std::future::pending().await
    });
    Ok(Body::from_stream(first.chain(rest)).into_response())
}

async fn list(State(worker): State<Shared>) -> Json<Vec<InstanceInfo>> {
    Json(worker.list())
}

async fn info(State(worker): State<Shared>, Path(id): Path<String>) -> Result<Json<InstanceInfo>, Failed> {
    worker.info(&id).map(Json).ok_or_else(|| no_instance(&id))
}

async fn started(State(worker): State<Shared>, Path(id): Path<String>) -> Result<Json<InstanceInfo>, Failed> {
    worker.started(&id);
    worker.info(&id).map(Json).ok_or_else(|| no_instance(&id))
}

#[derive(Debug, Deserialize)]
struct CloseQuery {
    target: String,
}

async fn close(
    State(worker): State<Shared>,
    Query(query): Query<CloseQuery>,
) -> Result<Json<InstanceInfo>, Failed> {
    let id = worker.find(&query.target).ok_or_else(|| no_instance(&query.target))?;
    Ok(Json(worker.close(&id).await?))
}

async fn status(State(worker): State<Shared>) -> Response {
    Json(worker.status()).into_response()
}

async fn metrics(State((worker, functions)): State<(Shared, Option<Arc<Service>>)>) -> Response {
    let kind = [(header::CONTENT_TYPE, cache::prometheus::CONTENT_TYPE)];
    // the processes of all sandboxes are looked up in files
    let rendered =
        tokio::task::spawn_blocking(move || prometheus::render(&worker.status(), functions.as_deref()));
    (kind, rendered.await.unwrap_or_default()).into_response()
}

/// Serves the worker, and its functions if it runs any, on `socket` until `stop` ends. A socket
/// file of a dead daemon is replaced; the caller holds the lock that says there is no living one.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(
    worker: Shared,
    functions: Option<Arc<Service>>,
    socket: &FilePath,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    match tokio::fs::remove_file(socket).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", socket.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", socket.display()))?;
    let router = Router::new()
        .route("/v1/instances", post(open).get(list).delete(close))
        .route("/v1/instances/{id}", get(info))
        .route("/v1/instances/{id}/started", post(started))
        .route("/v1/status", get(status))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::clone(&worker))
        .merge(Router::new().route("/metrics", get(metrics)).with_state((worker, functions.clone())))
        .merge(function_routes(functions));
    // leases keep their connections open for ever, so there is nothing graceful to wait for
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the control socket failed")?,
        () = stop => {}
    }
    let _ = tokio::fs::remove_file(socket).await;
    Ok(())
}
