//! The listener: plain HTTP/1.1 on TCP. TLS is to be ended in front of it; signatures keep
//! requests from being changed on the way, not from being read.
//!
//! Invariants: connections are bounded, and those above the bound are told so and closed; a
//! connection that is slow to send heads or bodies, or to take answers, is closed.

use super::auth::{Guard, guard};
use super::patient::Patient;
use super::routes;
use crate::api::access_keys::AccessKeys;
use crate::functions::Service;
use axum::middleware::from_fn_with_state;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Limits of the front door.
#[derive(Debug, Clone)]
pub struct DoorSettings {
    /// Who may sign requests.
    pub keys: AccessKeys,
    /// The region that signatures must name; any, if none is set.
    pub region: Option<String>,
    /// Connections at the same time: each waiting caller holds one.
    pub max_connections: usize,
    /// Bytes of bodies in memory at the same time.
    pub max_body_memory: usize,
    /// For how long a connection may be idle, or take to send the head of a request.
    pub head_time: Duration,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// For how long a peer may take nothing of an answer.
    pub write_time: Duration,
    /// How long requests under way may take to end when the door closes.
    pub grace: Duration,
}

impl DoorSettings {
    /// The defaults, for these keys.
    #[must_use]
    pub const fn new(keys: AccessKeys) -> Self {
        Self {
            keys,
            region: None,
            max_connections: 4096,
            max_body_memory: 512 << 20,
            head_time: Duration::from_secs(60),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}

/// Longest head of a request, in bytes: client contexts are the longest headers, 3.5 KiB.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The pause after an accept failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection above the bound is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-amzn-errortype: ServiceUnavailableException\r\n\
    retry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn turn_away(stream: &TcpStream) {
    // as far as it goes without waiting: an empty socket buffer takes it
    let _ = stream.try_write(FULL);
}

/// Serves `service` on `listener` until `stop` ends and requests under way have, or their
/// grace is over.
///
/// # Errors
/// None at present: what can fail was done when the listener was made.
pub async fn serve(
    service: Arc<Service>,
    settings: DoorSettings,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let state = Arc::new(Guard::new(&settings));
    let router = routes(service).layer(from_fn_with_state(state, guard));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.head_time).max_buf_size(MAX_HEAD_BYTES);
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the functions' door was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turn_away(&stream);
            continue;
        };
        // answers are whole when they are written; waiting for more only delays them
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Patient::new(stream, settings.write_time));
        let connection = http.serve_connection(stream, TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the functions' door ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(settings.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests to the functions' door were still under way when it closed");
    }
    Ok(())
}
