//! Calls to nodes over HTTP/2: one connection a node, made when first needed.
//!
//! Invariants: one attempt to connect at a time per node, which outlives the call that began
//! it; a connection that does not answer pings is given up, so that calls after a partition
//! find a new one; answers are read to a limit.

use super::{CallError, CallKind, Transport};
use crate::members::{Members, Node};
use crate::wire::MAX_RECORD_LEN;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use image_format::ids::ChunkId;
use rustls::pki_types::ServerName;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Flow-control window of a stream: several shards, so that a reply is never cut short.
const STREAM_WINDOW: u32 = 4 << 20;
/// Of a connection: as many replies as may be under way.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// A shard arrives in one frame.
const MAX_FRAME: u32 = 1 << 20;
/// Silence after which a connection is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long that sign may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// A secret shared by a fleet and its clients. Prints as `<redacted>`.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Fewest characters of a secret.
    pub const MIN_LEN: usize = 16;

    /// Takes a secret of at least [`Self::MIN_LEN`] printable characters; white space around
    /// it is not part of it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        (printable && text.len() >= Self::MIN_LEN).then(|| Self(text.into()))
    }

    /// The value of the `authorization` header that shows the secret.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", self.0)).expect("the secret is printable");
        value.set_sensitive(true);
        value
    }

    /// Whether a header shows this secret. Takes the same time wherever it differs.
    #[must_use]
    pub fn is_shown_by(&self, header: &[u8]) -> bool {
        // hashes of a fixed length are compared in constant time by the library
        header
            .strip_prefix(b"Bearer ")
            .is_some_and(|shown| blake3::hash(shown) == blake3::hash(self.0.as_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// How nodes are called.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Longest attempt to connect, TLS included.
    pub connect_timeout: Duration,
    /// The fleet's shared secret.
    pub secret: Option<Secret>,
    /// TLS; plain where there is none.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name that the nodes' certificates carry, where it is not the address's host.
    pub tls_name: Option<String>,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), secret: None, tls: None, tls_name: None }
    }
}

/// A request body of at most two buffers.
#[derive(Debug, Default)]
struct Buffers(VecDeque<Bytes>);

impl Body for Buffers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|buffer| Ok(Frame::data(buffer))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|buffer| buffer.len() as u64).sum())
    }
}

type Sender = SendRequest<Buffers>;

#[derive(Debug, Default)]
struct Peer {
    sender: Mutex<Option<Sender>>,
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Peer {
    fn sender(&self) -> MutexGuard<'_, Option<Sender>> {
        // replaced whole
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> Option<Sender> {
        self.sender().clone().filter(|sender| !sender.is_closed())
    }
}

/// Calls over HTTP/2, with TLS where it is configured.
#[derive(Debug)]
pub struct HttpTransport {
    settings: TransportSettings,
    authorization: Option<HeaderValue>,
    peers: Mutex<HashMap<String, Arc<Peer>>>,
}

impl HttpTransport {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: TransportSettings) -> Self {
        let authorization = settings.secret.as_ref().map(Secret::header);
        Self { settings, authorization, peers: Mutex::default() }
    }

    fn peer(&self, address: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(address) {
            return Arc::clone(peer);
        }
        Arc::clone(peers.entry(address.into()).or_default())
    }

    async fn sender(&self, node: &Node) -> Result<Sender, CallError> {
        let peer = self.peer(&node.address);
        if let Some(sender) = peer.living() {
            return Ok(sender);
        }
        let turn = Arc::clone(&peer.connecting).lock_owned().await;
        if let Some(sender) = peer.living() {
            return Ok(sender);
        }
        let (settings, node) = (self.settings.clone(), node.clone());
        // a task of its own: a caller in a hurry must not undo the connection for the others
        let connecting = tokio::spawn(async move {
            let connected = tokio::time::timeout(settings.connect_timeout, connect(&settings, &node)).await;
            let outcome = match connected {
                Ok(outcome) => outcome,
                Err(_) => Err(failed(&node, CallKind::Unreachable, &"no connection in time")),
            };
            if let Ok(sender) = &outcome {
                *peer.sender() = Some(sender.clone());
            }
            drop(turn);
            outcome
        });
        connecting.await.expect("connecting returns errors and does not panic")
    }

    /// One call of an operator's: any path, an empty body. Returns the status and at most
    /// `limit` bytes of the answer. Bounded by `patience`.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer, or a longer one.
    pub async fn ask(
        &self,
        node: &Node,
        method: &str,
        path: &str,
        limit: usize,
        patience: Duration,
    ) -> Result<(u16, Bytes), CallError> {
        let asked = async {
            let method = Method::from_bytes(method.as_bytes())
                .map_err(|error| failed(node, CallKind::Refused, &error))?;
            let response = self.send(node, method, path, Buffers::default()).await?;
            let status = response.status();
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                return Err(refusal(node, status));
            }
            let body = Limited::new(response.into_body(), limit).collect().await;
            let body = body.map_err(|error| failed(node, CallKind::Protocol, &Chain(&*error)))?;
            Ok((status.as_u16(), body.to_bytes()))
        };
        let late = |_| failed(node, CallKind::Late, &format_args!("no answer within {patience:?}"));
        tokio::time::timeout(patience, asked).await.map_err(late)?
    }

    async fn send(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: Buffers,
    ) -> Result<Response<Incoming>, CallError> {
        let mut sender = self.sender(node).await?;
        let scheme = if self.settings.tls.is_some() { "https" } else { "http" };
        let mut request = Request::builder().method(method).uri(format!("{scheme}://{}{path}", node.address));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(body).map_err(|error| failed(node, CallKind::Refused, &error))?;
        if let Err(error) = sender.ready().await {
            return Err(failed(node, CallKind::Stale, &error));
        }
        sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let error = error.into_error();
            let stale = unsent || error.is_canceled() || error.is_closed();
            let kind = if stale { CallKind::Stale } else { CallKind::Unreachable };
            failed(node, kind, &Chain(&error))
        })
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

fn failed(node: &Node, kind: CallKind, message: &dyn fmt::Display) -> CallError {
    CallError { kind, node: node.name.clone(), message: message.to_string() }
}

async fn connect(settings: &TransportSettings, node: &Node) -> Result<Sender, CallError> {
    let unreachable = |error: &dyn fmt::Display| failed(node, CallKind::Unreachable, error);
    let stream = TcpStream::connect(&node.address).await.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let Some(tls) = &settings.tls else { return speak(stream, node).await };
    let host = node.address.rsplit_once(':').map_or(node.address.as_str(), |(host, _)| host);
    let name = settings.tls_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_string();
    let name = ServerName::try_from(name).map_err(|error| failed(node, CallKind::Refused, &error))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await;
    speak(stream.map_err(|error| failed(node, CallKind::Refused, &error))?, node).await
}

async fn speak<S>(stream: S, node: &Node) -> Result<Sender, CallError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| failed(node, CallKind::Unreachable, &Chain(&error)))?;
    let name = node.name.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(node = name, error = %Chain(&error), "connection ended");
        }
    });
    Ok(sender)
}

fn path(id: &ChunkId) -> String {
    format!("/v1/shards/{id}")
}

/// What a status other than success means.
fn refusal(node: &Node, status: StatusCode) -> CallError {
    let (kind, message) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (CallKind::Refused, "does not accept our secret or certificate; check both sides' settings")
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            (CallKind::Busy, "is busy or draining")
        }
        StatusCode::INSUFFICIENT_STORAGE => (CallKind::Busy, "takes nothing at the moment"),
        _ if status.is_client_error() => (CallKind::Refused, "refuses the request"),
        _ => (CallKind::Protocol, "answers with an error"),
    };
    failed(node, kind, &format_args!("{message} ({status})"))
}

#[async_trait]
impl Transport for HttpTransport {
    async fn get(&self, node: &Node, id: &ChunkId) -> Result<Option<Bytes>, CallError> {
        let response = self.send(node, Method::GET, &path(id), Buffers::default()).await?;
        match response.status() {
            StatusCode::OK => {
                let body = Limited::new(response.into_body(), MAX_RECORD_LEN).collect().await;
                let body = body.map_err(|error| failed(node, CallKind::Unreachable, &Chain(&*error)))?;
                Ok(Some(body.to_bytes()))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refusal(node, status)),
        }
    }

    async fn put(&self, node: &Node, id: &ChunkId, record: [Bytes; 2]) -> Result<(), CallError> {
        let response = self.send(node, Method::PUT, &path(id), Buffers(record.into())).await?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(refusal(node, status)) }
    }

    async fn remove(&self, node: &Node, id: &ChunkId) -> Result<(), CallError> {
        let response = self.send(node, Method::DELETE, &path(id), Buffers::default()).await?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(refusal(node, status)) }
    }

    fn retain(&self, members: &Members) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // dropping the last sender ends the connection once its calls are answered
        peers.retain(|address, _| members.nodes().iter().any(|node| node.address == *address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_or_not() {
        assert!(Secret::new("short").is_none());
        assert!(Secret::new("with spaces in the middle").is_none());
        let secret = Secret::new(" 0123456789abcdef\n").unwrap();
        assert!(secret.is_shown_by(secret.header().as_bytes()));
        for wrong in [&b"Bearer 0123456789abcdeX"[..], b"Bearer ", b"", b"0123456789abcdef"] {
            assert!(!secret.is_shown_by(wrong));
        }
        assert_eq!(format!("{secret:?}"), "<redacted>");
    }
}
