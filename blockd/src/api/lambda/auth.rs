//! What stands in front of the API on the network: who calls, and how much they may send.
//!
//! Invariants: nobody without a known key and a current date gets their body read into
//! memory; all bodies in memory together stay within a budget, held until the answer; nothing
//! reaches a handler unverified.

use super::refuse;
use super::server::DoorSettings;
use crate::api::access_keys::AccessKeys;
use crate::api::sigv4::claim;
use crate::functions::service::{MAX_CALL_BYTES, MAX_EVENT_BYTES};
use crate::functions::time::now_ms;
use crate::functions::{Caller, ErrorCode, ServiceError};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use photon::invocation::RequestId;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies above this are hashed away from the async threads: 64 KiB are some 0.2 ms without
/// hardware help.
const INLINE_BYTES: usize = 64 << 10;
/// The unit of the memory budget, in bytes: a semaphore counts to 2^29 in it.
const UNIT: usize = 1024;
/// A refused caller may send this much more before the connection is closed on it, so that
/// it sees the answer.
const MAX_DRAINED_BYTES: usize = 32 << 20;
/// And for so long.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What the guard needs.
#[derive(Debug)]
pub(super) struct Guard {
    keys: AccessKeys,
    region: Option<String>,
    body_time: Duration,
    memory: Arc<Semaphore>,
}

impl Guard {
    pub(super) fn new(settings: &DoorSettings) -> Self {
        let units = settings.max_body_memory.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            keys: settings.keys.clone(),
            region: settings.region.clone(),
            body_time: settings.body_time,
            memory: Arc::new(Semaphore::new(units)),
        }
    }

    /// Room for a body, at once or not at all.
    fn room(&self, headers: &HeaderMap, most: usize) -> Result<OwnedSemaphorePermit, ServiceError> {
        let stated = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes: usize = stated.unwrap_or(most);
        if bytes > most {
            return Err(too_large(most));
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| too_large(most))?;
        Arc::clone(&self.memory).try_acquire_many_owned(units).map_err(|_| {
            ServiceError::throttled(
                "CallerRateLimitExceeded",
                "Rate Exceeded: requests under way fill the memory for bodies (max_body_memory_bytes); send again later",
            )
        })
    }

    async fn read(&self, body: Body, most: usize) -> Result<Bytes, ServiceError> {
        let reading = Limited::new(body, most).collect();
        match tokio::time::timeout(self.body_time, reading).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most)),
            Ok(Err(_)) => {
                Err(ServiceError::new(ErrorCode::InvalidRequestContent, "the request was cut short"))
            }
            Err(_) => Err(ServiceError::new(ErrorCode::RequestTimeout, "the request did not arrive in time")),
        }
    }
}

fn too_large(most: usize) -> ServiceError {
    let message = format!("Request must be smaller than {most} bytes for this operation");
    ServiceError::new(ErrorCode::RequestTooLarge, message)
}

/// The longest body of a request to that path.
fn longest(path: &str, headers: &HeaderMap) -> usize {
    let is_event = || headers.get("x-amz-invocation-type").is_some_and(|kind| kind == "Event");
    if path.ends_with("/invocations") && !is_event() { MAX_CALL_BYTES } else { MAX_EVENT_BYTES }
}

async fn digest(body: Bytes) -> Result<String, ServiceError> {
    let hash = |body: &Bytes| hex::encode(Sha256::digest(body));
    if body.len() <= INLINE_BYTES {
        return Ok(hash(&body));
    }
    let hashed = tokio::task::spawn_blocking(move || hash(&body)).await;
    hashed.map_err(|error| ServiceError::service(error.to_string()))
}

/// A verified request: who sent it, its body, and the room that takes.
type Verified = (Caller, Bytes, OwnedSemaphorePermit);

async fn verify(guard: &Guard, parts: &Parts, body: &mut Option<Body>) -> Result<Verified, ServiceError> {
    let claim = claim(parts, &guard.keys, guard.region.as_deref(), now_ms() / 1000)?;
    let most = longest(parts.uri.path(), &parts.headers);
    let room = guard.room(&parts.headers, most)?;
    let bytes = guard.read(body.take().unwrap_or_default(), most).await?;
    let digest = digest(bytes.clone()).await?;
    Ok((claim.verify(parts, &digest)?, bytes, room))
}

/// Lets verified requests through.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let id = RequestId::new();
    let (mut parts, body) = request.into_parts();
    let mut body = Some(body);
    match verify(&guard, &parts, &mut body).await {
        Ok((caller, bytes, _room)) => {
            parts.extensions.insert(caller);
            parts.extensions.insert(id);
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
        Err(error) => {
            tracing::debug!(%error, request = id.as_str(), "a request was refused at the door");
            if let Some(body) = body {
                drain(body).await;
            }
            refuse(error, &id)
        }
    }
}

/// Reads what a refused caller still sends, and keeps nothing of it.
async fn drain(mut body: Body) {
    let draining = async {
        let mut left = MAX_DRAINED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // an answer that is not seen is no worse than none
    let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
}
