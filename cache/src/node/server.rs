//! Connections of a node: HTTP/2 (and HTTP/1.1 for scrapers), plain or TLS.
//!
//! Invariants: connections, streams of a connection and requests under way are bounded, and
//! what is above a bound is refused at once; a request whose body or answer stalls, and a
//! connection on which nothing happens, is cut after a stated time; when told to stop, the
//! node finishes what is under way within a grace period.

use super::Node;
use super::api::{self, Held};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// What a node puts up with. Memory is at most about `connections` times 1 MiB of windows,
/// plus `requests` times `record_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at the same time.
    pub connections: usize,
    /// Requests of one connection at the same time.
    pub streams: u32,
    /// Requests of all connections at the same time; more are answered 503 at once.
    pub requests: usize,
    /// Longest record that is taken, in bytes.
    pub record_bytes: usize,
    /// Longest request, from its headers to its answer's last byte.
    pub request: Duration,
    /// How long a connection may be without any request.
    pub idle: Duration,
    /// How long what is under way may take when the node stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            streams: 256,
            requests: 1024,
            record_bytes: 1 << 20,
            request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            grace: Duration::from_secs(10),
        }
    }
}

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest TLS handshake, and longest wait for HTTP/1.1 headers.
const HELLO: Duration = Duration::from_secs(5);
/// Flow-control windows in bytes: bodies of a few records at a time.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// A record arrives in one frame: eight frames of the usual 16 KiB cost as many times the
/// bookkeeping.
const MAX_FRAME: u32 = 256 << 10;
/// Largest header list in bytes.
const MAX_HEADERS: u32 = 8 << 10;

/// The requests of one connection.
#[derive(Debug, Default)]
struct Requests {
    next: u64,
    begun: HashMap<u64, Instant>,
    last: Option<Instant>,
}

/// A request until its answer was sent.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Mutex<Requests>>, u64);

impl UnderWay {
    fn begin(requests: &Arc<Mutex<Requests>>) -> Self {
        let mut of = requests.lock().unwrap_or_else(PoisonError::into_inner);
        of.next += 1;
        let number = of.next;
        of.begun.insert(number, Instant::now());
        Self(Arc::clone(requests), number)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut of = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        of.begun.remove(&self.1);
        of.last = Some(Instant::now());
    }
}

/// What a look at a connection finds.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Fine,
    Idle,
    Stalled,
}

fn look(requests: &Mutex<Requests>, opened: Instant, limits: &Limits) -> Look {
    let of = requests.lock().unwrap_or_else(PoisonError::into_inner);
    if of.begun.values().any(|begun| begun.elapsed() > limits.request + LOOK_EVERY) {
        return Look::Stalled;
    }
    if of.begun.is_empty() && of.last.unwrap_or(opened).elapsed() > limits.idle {
        return Look::Idle;
    }
    Look::Fine
}

/// Serves a node until `stop` ends, then finishes what is under way.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(node.limits.connections));
    let requests = Arc::new(Semaphore::new(node.limits.requests));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // out of file descriptors, most likely: others end meanwhile
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            Node::count(&node.counters.refused_connections);
            continue;
        };
        let (node, tls) = (Arc::clone(&node), tls.clone());
        let (requests, stopped) = (Arc::clone(&requests), stopped.clone());
        connections.spawn(async move {
            node.counters.connections.fetch_add(1, Ordering::Relaxed);
            greet(&node, stream, tls, &requests, stopped).await;
            node.counters.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(node.limits.grace, finished).await.is_err() {
        tracing::warn!("clients did not finish in time and are cut");
    }
    Ok(())
}

async fn greet(
    node: &Arc<Node>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    requests: &Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return converse(node, stream, requests, stopped).await };
    match tokio::time::timeout(HELLO, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(node, stream, requests, stopped).await,
        Ok(Err(error)) => {
            Node::count(&node.counters.refused_unauthorised);
            tracing::debug!(%error, "TLS refused");
        }
        Err(_) => Node::count(&node.counters.cut_connections),
    }
}

async fn converse<S>(
    node: &Arc<Node>,
    stream: S,
    permits: &Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let opened = Instant::now();
    let requests = Arc::new(Mutex::new(Requests::default()));
    let service = service_fn(|request: Request<Incoming>| {
        let (node, permits) = (Arc::clone(node), Arc::clone(permits));
        let under_way = UnderWay::begin(&requests);
        async move {
            // operators' requests get through when shards do not
            let shard = request.uri().path().starts_with("/v1/shards/");
            let permit = permits.try_acquire_owned().ok();
            if shard && permit.is_none() {
                Node::count(&node.counters.refused_busy);
                return Ok::<_, Infallible>(api::busy());
            }
            let held = Held { _permit: permit, _request: under_way };
            Ok(api::answer(&node, request, held).await)
        }
    });
    let builder = builder(&node.limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut ending = None;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "connection ended");
                }
                return;
            }
            _ = looks.tick() => match look(&requests, opened, &node.limits) {
                Look::Fine => {}
                Look::Stalled => break,
                Look::Idle if ending.is_none() => {
                    connection.as_mut().graceful_shutdown();
                    ending = Some(Instant::now());
                }
                Look::Idle => {}
            },
            _ = stopped.wait_for(|stopped| *stopped), if ending.is_none() => {
                connection.as_mut().graceful_shutdown();
                ending = Some(Instant::now());
            }
        }
        if ending.is_some_and(|since| since.elapsed() > node.limits.grace) {
            break;
        }
    }
    Node::count(&node.counters.cut_connections);
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HELLO)
        .max_buf_size(MAX_HEADERS as usize * 2);
    builder
}
