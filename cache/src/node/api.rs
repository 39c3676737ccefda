//! Requests of a node: what is asked, whether it may be, what is answered.
//!
//! ```text
//! GET|HEAD|PUT|DELETE /v1/shards/{chunk id}     records
//! GET  /v1/shards?fan=00…ff                     ids of a 256th of the records, a line each
//! GET  /v1/status   PUT|DELETE /v1/draining     POST|GET /v1/scrub
//! GET  /metrics     GET /healthz
//! ```

use super::{Level, Node};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use image_format::ids::ChunkId;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Bytes handed to the connection at a time: less than a shard, so that an answer whose
/// reader stalls still holds its place and is seen to.
const FRAME: usize = 64 * 1024;

/// What is held while an answer is under way.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) _permit: Option<OwnedSemaphorePermit>,
    pub(super) _request: super::server::UnderWay,
}

/// An answer's body in frames.
#[derive(Debug)]
pub(super) struct Answer {
    left: Bytes,
    held: Option<Held>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            self.held = None;
            return Poll::Ready(None);
        }
        let take = self.left.len().min(FRAME);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(take)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

pub(super) type Reply = Response<Answer>;

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Answer { left: body.into(), held: None });
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

fn say(status: StatusCode, text: &str) -> Reply {
    reply(status, "text/plain", text.to_string())
}

fn json(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(StatusCode::OK, "application/json", body),
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn wrong_method() -> Reply {
    say(StatusCode::METHOD_NOT_ALLOWED, "this path takes other methods")
}

/// The answer to a request above the limit.
pub(super) fn busy() -> Reply {
    say(StatusCode::SERVICE_UNAVAILABLE, "too many requests under way")
}

/// Answers one request. `held` ends with the answer's last byte.
pub(super) async fn answer(node: &Arc<Node>, request: Request<Incoming>, held: Held) -> Reply {
    let mut reply = route(node, request).await;
    if !reply.body().left.is_empty() {
        reply.body_mut().held = Some(held);
    }
    reply
}

async fn route(node: &Arc<Node>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    if path == "/healthz" {
        return say(StatusCode::OK, "ok\n");
    }
    if let Some(secret) = &node.secret {
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if !shown.is_some_and(|shown| secret.is_shown_by(shown)) {
            Node::count(&node.counters.refused_unauthorised);
            return say(StatusCode::UNAUTHORIZED, "show the fleet's secret");
        }
    }
    if let Some(id) = path.strip_prefix("/v1/shards/") {
        let Ok(id) = id.parse::<ChunkId>() else { return invalid(node, "not a chunk id") };
        return shard(node, id, request).await;
    }
    match (path, request.method().as_str()) {
        ("/v1/shards", "GET") => list(node, request.uri().query().unwrap_or("")).await,
        ("/v1/status", "GET") => json(&node.status()),
        ("/metrics", "GET") => {
            reply(StatusCode::OK, crate::prometheus::CONTENT_TYPE, node.status().prometheus())
        }
        ("/v1/draining", "PUT" | "DELETE") => {
            node.draining.store(request.method() == Method::PUT, Ordering::Relaxed);
            json(&node.status())
        }
        ("/v1/scrub", "POST") => {
            if node.begin_scrub() {
                let node = Arc::clone(node);
                tokio::spawn(async move { node.scrub().await });
            }
            json(&*node.scrub_status())
        }
        ("/v1/scrub", "GET") => json(&*node.scrub_status()),
        ("/v1/shards" | "/v1/status" | "/metrics" | "/v1/draining" | "/v1/scrub", _) => wrong_method(),
        _ => say(StatusCode::NOT_FOUND, "no such path"),
    }
}

fn invalid(node: &Node, text: &str) -> Reply {
    Node::count(&node.counters.refused_invalid);
    say(StatusCode::BAD_REQUEST, text)
}

fn disk_failed(node: &Node, id: &ChunkId, error: &std::io::Error) -> Reply {
    Node::count(&node.counters.errors);
    tracing::warn!(chunk = %id, %error, "the disk failed");
    say(StatusCode::INTERNAL_SERVER_ERROR, "the node's disk failed")
}

async fn shard(node: &Arc<Node>, id: ChunkId, request: Request<Incoming>) -> Reply {
    let begun = Instant::now();
    match request.method().as_str() {
        "GET" => match node.store.get(&id).await {
            Ok(Some((record, level))) => {
                node.counters.sent_bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
                let operation = match level {
                    Level::Memory => &node.operations.get_memory,
                    Level::Ssd => &node.operations.get_ssd,
                };
                operation.record(begun.elapsed());
                reply(StatusCode::OK, "application/octet-stream", record)
            }
            Ok(None) => {
                node.operations.miss.record(begun.elapsed());
                say(StatusCode::NOT_FOUND, "")
            }
            Err(error) => disk_failed(node, &id, &error),
        },
        "HEAD" => {
            let status = if node.store.contains(&id) { StatusCode::OK } else { StatusCode::NOT_FOUND };
            say(status, "")
        }
        "PUT" => put(node, id, request, begun).await,
        "DELETE" => match node.store.remove(&id).await {
            Ok(()) => say(StatusCode::NO_CONTENT, ""),
            Err(error) => disk_failed(node, &id, &error),
        },
        _ => wrong_method(),
    }
}

async fn put(node: &Arc<Node>, id: ChunkId, request: Request<Incoming>, begun: Instant) -> Reply {
    if node.draining.load(Ordering::Relaxed) {
        Node::count(&node.counters.refused_busy);
        return say(StatusCode::SERVICE_UNAVAILABLE, "draining");
    }
    let limit = node.limits.record_bytes;
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        Node::count(&node.counters.refused_invalid);
        return say(StatusCode::PAYLOAD_TOO_LARGE, "longer than a record may be here");
    }
    let body = Limited::new(request.into_body(), limit).collect();
    let body = match tokio::time::timeout(node.limits.request, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return invalid(node, "the body broke off, or is longer than a record may be here"),
        Err(_) => return say(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let received = Instant::now();
    node.counters.received_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    let stored = node.store.put(id, body);
    node.operations.put_store.record(received.elapsed());
    node.operations.put.record(begun.elapsed());
    match stored {
        // in memory only: the disk is slower than the network just now
        Ok(false) => say(StatusCode::ACCEPTED, ""),
        Ok(true) => say(StatusCode::CREATED, ""),
        Err(error) => invalid(node, &error.to_string()),
    }
}

async fn list(node: &Arc<Node>, query: &str) -> Reply {
    let fan = query.strip_prefix("fan=").filter(|fan| fan.len() == 2);
    let Some(fan) = fan.and_then(|fan| u8::from_str_radix(fan, 16).ok()) else {
        return invalid(node, "ask with ?fan=00 to ?fan=ff");
    };
    match node.store.list(fan).await {
        Ok(ids) => {
            let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
            reply(StatusCode::OK, "text/plain", lines)
        }
        Err(error) => disk_failed(node, &ChunkId::from_bytes([fan; 32]), &error),
    }
}
