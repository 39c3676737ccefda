//! Invocations as HTTP requests, for images that serve HTTP and know nothing of the Runtime
//! API: the worker is the runtime client, one call of `next` per slot.
//!
//! An invocation is `POST /` with the event as body. 2xx is its answer, anything else the
//! function's failure. An invocation over its deadline is stopped by closing its connection.
//!
//! Invariant: as many requests are under way as there are invocations in flight; answers are
//! bounded.

use crate::invocation::error_json;
use crate::runtime_api::{Answer, Bodies, Slots, Task};
use crate::sandbox::{Connector, Running};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a connection to the sandbox may take: it is on this host's loopback.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks whether the server is ready.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How much of a failed answer is told.
const MOST_ERROR_BYTES: usize = 16 * 1024;

/// How the sandbox's server is reached.
#[derive(Debug)]
pub struct Target {
    connector: Connector,
    port: u16,
    /// Largest answer in bytes.
    most_response_bytes: usize,
    bodies: Bodies,
}

type Connection = SendRequest<Full<Bytes>>;

impl Target {
    /// The server at `port` of the sandbox; its answers are read into `bodies`.
    #[must_use]
    pub fn new(running: &Running, port: u16, most_response_bytes: usize, bodies: Bodies) -> Arc<Self> {
        Arc::new(Self { connector: running.connector(), port, most_response_bytes, bodies })
    }

    async fn open(self: &Arc<Self>) -> io::Result<Connection> {
        let stream = self.connector.connect(self.port, CONNECT_PATIENCE).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            // its end is seen by whoever sends on it
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Waits until the server answers 2xx at `path`, or accepts connections where no path is
    /// given. Runs for ever if it never does; cancel-safe.
    pub async fn ready(self: &Arc<Self>, path: Option<&str>) {
        loop {
            if let Ok(mut connection) = self.open().await {
                let Some(path) = path else { return };
                let request = Request::get(path).header("host", "sandbox").body(Full::default());
                if let Ok(request) = request
                    && let Ok(answer) = connection.send_request(request).await
                    && answer.status().is_success()
                {
                    return;
                }
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Serves one slot until the sandbox ends.
    pub async fn serve_slot(self: Arc<Self>, slots: Arc<Slots>) {
        let mut kept = None;
        loop {
            let (abort, mut aborted) = oneshot::channel();
            let Some(delivery) = slots.next(None, Some(abort)).await else { return };
            let task = delivery.take();
            let id = task.invocation.request_id.clone();
            let connection = kept.take();
            tokio::select! {
                outcome = self.run(&task, connection) => {
                    let (answer, connection) = outcome;
                    kept = connection;
                    // refused where it expired in this very moment: its caller knows
                    let _ = slots.answer(&id, answer);
                }
                _ = &mut aborted => {}
            }
        }
    }

    async fn run(self: &Arc<Self>, task: &Task, kept: Option<Connection>) -> (Answer, Option<Connection>) {
        match self.request(task, kept).await {
            Ok((answer, connection)) => (answer, Some(connection)),
            Err(error) => {
                let message = format!("the function's server failed: {error}");
                (failure("Runtime.ExitError", &message), None)
            }
        }
    }

    async fn request(
        self: &Arc<Self>,
        task: &Task,
        kept: Option<Connection>,
    ) -> Result<(Answer, Connection), Box<dyn std::error::Error + Send + Sync>> {
        let mut connection = match kept {
            Some(kept) if !kept.is_closed() => kept,
            _ => self.open().await?,
        };
        connection.ready().await?;
        let invocation = &task.invocation;
        let deadline = task.deadline_at.duration_since(std::time::UNIX_EPOCH)?.as_millis();
        let mut request = Request::post("/")
            .header("host", "sandbox")
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", invocation.request_id.as_str())
            .header("lambda-runtime-deadline-ms", deadline.to_string());
        if let Some(trace) = &invocation.trace_id {
            request = request.header("x-amzn-trace-id", trace);
        }
        let request = request.body(Full::new(invocation.payload.clone()))?;
        let answer = connection.send_request(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let read = self.bodies.read(&mut answer.into_body(), self.most_response_bytes).await?;
        let body = read.payload;
        if status.is_success() {
            let content_type = headers.get(hyper::header::CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok()).map(String::from);
            return Ok((Answer::Response { payload: body, content_type }, connection));
        }
        let said = String::from_utf8_lossy(&body[..body.len().min(MOST_ERROR_BYTES)]).into_owned();
        Ok((failure(&format!("Http.{}", status.as_u16()), &said), connection))
    }
}

fn failure(kind: &str, message: &str) -> Answer {
    Answer::Error { payload: error_json(kind, message) }
}
