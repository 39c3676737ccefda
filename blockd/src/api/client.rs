//! The command's side of the control socket.

use super::{ErrorBody, MAX_BODY_BYTES, OpenBody, TENANT_HEADER};
use crate::report_kind::RemoteError;
use crate::worker::{InstanceInfo, OpenRequest};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// A daemon on this host.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// An instance that ends when this is dropped.
#[derive(Debug)]
pub struct Lease {
    info: InstanceInfo,
    _connection: (SendRequest<Full<Bytes>>, Incoming),
}

impl Lease {
    /// The instance.
    #[must_use]
    pub const fn info(&self) -> &InstanceInfo {
        &self.info
    }
}

fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

impl Client {
    /// The daemon at `socket`, if one answers there.
    pub async fn find(socket: &Path) -> Option<Self> {
        UnixStream::connect(socket).await.ok().map(|_| Self { socket: socket.to_path_buf() })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>)> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| format!("no daemon answers at {}", self.socket.display()))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "blockd")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await.context("the daemon went away")?;
        if response.status().is_success() {
            return Ok((sender, response));
        }
        let bytes = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let bytes = bytes.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(ErrorBody { error, exit_code }) => Err(RemoteError { message: error, exit_code }.into()),
            Err(_) => bail!("the daemon refused: {}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// Asks about functions, as `tenant`: status, headers and body of whatever the answer is.
    ///
    /// # Errors
    /// If the daemon does not answer; refusals are answers.
    pub async fn functions(
        &self,
        tenant: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| format!("no daemon answers at {}", self.socket.display()))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("blockd"));
        headers.insert(TENANT_HEADER, HeaderValue::from_str(tenant)?);
        let response = sender.send_request(request).await.context("the daemon went away")?;
        let (parts, body) = response.into_parts();
        let bytes = Limited::new(body, MAX_BODY_BYTES).collect().await;
        let bytes = bytes.map_err(|error| anyhow::anyhow!(error)).context("the daemon's answer was cut")?;
        Ok(Response::from_parts(parts, bytes.to_bytes()))
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T> {
        let (_sender, response) = self.send(method, path, body).await?;
        let bytes = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let bytes = bytes.map_err(|error| anyhow::anyhow!(error)).context("the daemon's answer was cut")?;
        serde_json::from_slice(&bytes.to_bytes()).context("the daemon speaks another version; restart it")
    }

    /// Opens an instance that stays until it is closed.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn open(&self, open: OpenRequest) -> Result<InstanceInfo> {
        let body = serde_json::to_vec(&OpenBody { open, lease: false })?;
        self.call(Method::POST, "/v1/instances", body).await
    }

    /// Opens an instance for as long as the lease is held.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn lease(&self, open: OpenRequest) -> Result<Lease> {
        let body = serde_json::to_vec(&OpenBody { open, lease: true })?;
        let (sender, response) = self.send(Method::POST, "/v1/instances", body).await?;
        let mut incoming = response.into_body();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let frame = incoming.frame().await.context("the daemon went away")??;
            line.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if line.len() > MAX_BODY_BYTES {
                bail!("the daemon's answer is too long");
            }
        }
        let info = serde_json::from_slice(&line).context("the daemon speaks another version; restart it")?;
        Ok(Lease { info, _connection: (sender, incoming) })
    }

    /// All instances.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn list(&self) -> Result<Vec<InstanceInfo>> {
        self.call(Method::GET, "/v1/instances", Vec::new()).await
    }

    /// One instance.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn info(&self, id: &str) -> Result<InstanceInfo> {
        self.call(Method::GET, &format!("/v1/instances/{}", encode(id)), Vec::new()).await
    }

    /// Says that an instance opened as starting has started.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn started(&self, id: &str) -> Result<InstanceInfo> {
        self.call(Method::POST, &format!("/v1/instances/{}/started", encode(id)), Vec::new()).await
    }

    /// Closes the instance with this id, or mounted at this path.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn close(&self, target: &str) -> Result<InstanceInfo> {
        self.call(Method::DELETE, &format!("/v1/instances?target={}", encode(target)), Vec::new()).await
    }

    /// What the daemon is doing.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn status(&self) -> Result<serde_json::Value> {
        self.call(Method::GET, "/v1/status", Vec::new()).await
    }
}
