//! The registry protocol (OCI distribution, Docker Registry v2) as far as pulling needs it.
//!
//! Ours rather than `oci-client`: that one reads manifests and errors without a bound, keeps
//! tokens of any age, knows neither refresh tokens nor retries. Invariants: nothing longer
//! than asked is kept in memory; credentials go only to the registry and, over TLS unless the
//! registry itself is plain, to the token server it names; plain HTTP is spoken only to hosts
//! that were named for it; every wait is bounded and every retry counted.

use super::challenge::{self, Challenge};
use super::credentials::{Credential, Places};
use super::error::SourceFault;
use super::http;
use super::manifest::{ACCEPT, DOCUMENT_MAX};
use super::reference::RegistryRef;
use super::source::SourceOptions;
use crate::layer::Digest;
use reqwest::header::{
    ACCEPT as ACCEPT_HEADER, AUTHORIZATION, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Longest answer of a token server in bytes.
const TOKEN_MAX: u64 = 1 << 20;
/// Longest wait for a whole document or token: a server that trickles does not hold us up.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(120);
/// First wait before a retry; it doubles.
const BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait before a retry, also when the server asks for more.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// One repository of a registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    reference: RegistryRef,
    base: Url,
    plain: bool,
    retries: u32,
    credential: Option<Credential>,
    authorization: Mutex<Authorization>,
}

/// What requests carry at the moment.
#[derive(Debug, Default)]
struct Authorization {
    header: Option<HeaderValue>,
    /// What was wanted last, for refusals that do not say it again.
    challenge: Option<Challenge>,
    /// Counts renewals, so that of many refused requests one renews and all use it.
    generation: u64,
}

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Object<'o> {
    /// By tag or digest.
    Manifest(&'o str),
    /// By digest, from an offset.
    Blob(&'o Digest, u64),
}

impl Registry {
    /// Reads credentials and prepares the client; sends nothing.
    pub(super) async fn open(reference: &RegistryRef, options: &SourceOptions) -> Result<Self, SourceFault> {
        let plain = options.plain_http.contains(&reference.host);
        let host = if reference.host == "docker.io" { "registry-1.docker.io" } else { &reference.host };
        let base = format!("{}://{host}/v2/{}/", if plain { "http" } else { "https" }, reference.repository);
        let base = Url::parse(&base).map_err(|_| SourceFault::Settings(format!("{host} is not a host")))?;
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(Into::into);
        let credential = Places::new(options.auth_file.as_deref(), variable).find(reference).await?;
        Ok(Self(Arc::new(Inner {
            client: http::client(options)?,
            reference: reference.clone(),
            base,
            plain,
            retries: options.retries,
            credential,
            authorization: Mutex::default(),
        })))
    }

    /// The registry, for people.
    pub(super) fn host(&self) -> &str {
        &self.0.reference.host
    }

    /// How often a request is repeated after trouble that may pass.
    pub(super) fn retries(&self) -> u32 {
        self.0.retries
    }

    /// The document under a tag or digest; the caller verifies it.
    pub(super) async fn document(&self, object: Object<'_>) -> Result<Vec<u8>, SourceFault> {
        let mut attempt = 0;
        loop {
            let fetched = async {
                let response = self.get(object).await?;
                http::body(response, DOCUMENT_MAX, self.host(), &object.to_string()).await
            };
            let fetched = match tokio::time::timeout(DOCUMENT_TIMEOUT, fetched).await {
                Ok(fetched) => fetched,
                Err(elapsed) => Err(http::timed_out(self.host(), &object, elapsed)),
            };
            match fetched {
                Err(fault) if fault.passes() && attempt < self.0.retries => {
                    self.pause(&fault, attempt).await;
                    attempt += 1;
                }
                other => return other.map_err(SourceFault::from),
            }
        }
    }

    /// Waits before attempt number `attempt + 1`.
    pub(super) async fn pause(&self, fault: &http::Fault, attempt: u32) {
        let wait = BACKOFF.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
        let wait = fault.retry_after.map_or(wait, |asked| asked.clamp(wait, BACKOFF_MAX));
        tracing::debug!(host = self.host(), attempt, ?wait, fault = %fault.fault, "asking the registry again");
        tokio::time::sleep(wait).await;
    }

    /// Sends one request; a refused one is repeated once with fresh authorization.
    pub(super) async fn get(&self, object: Object<'_>) -> Result<Response, http::Fault> {
        let (response, generation) = self.send(object).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let refused =
            status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && generation > 0);
        if !refused || !self.authorize(&response, generation).await? {
            return Err(self.refusal(response, object).await);
        }
        let (response, _) = self.send(object).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response, object).await) }
    }

    async fn send(&self, object: Object<'_>) -> Result<(Response, u64), http::Fault> {
        let path = match object {
            Object::Manifest(name) => format!("manifests/{name}"),
            Object::Blob(digest, _) => format!("blobs/{digest}"),
        };
        let url = self.0.base.join(&path).map_err(|_| SourceFault::Internal)?;
        let mut request = self.0.client.get(url);
        match object {
            Object::Manifest(_) => request = request.header(ACCEPT_HEADER, ACCEPT.join(", ")),
            Object::Blob(_, 0) => {}
            Object::Blob(_, from) => request = request.header(RANGE, format!("bytes={from}-")),
        }
        let generation = {
            let authorization = self.0.authorization.lock().await;
            if let Some(header) = &authorization.header {
                request = request.header(AUTHORIZATION, header.clone());
            }
            authorization.generation
        };
        let response = request.send().await.map_err(|error| http::network(self.host(), &object, error))?;
        Ok((response, generation))
    }

    async fn refusal(&self, response: Response, object: Object<'_>) -> http::Fault {
        let advice = match response.status().as_u16() {
            401 | 403 if self.0.credential.is_none() => {
                "; no credentials were found for it: log in with `skopeo login` or give an auth file"
            }
            401 | 403 => "; the credentials found for it do not suffice",
            404 => "; check name and tag",
            _ => "",
        };
        http::status(response, self.host(), &object.to_string(), advice).await
    }

    /// Renews what requests carry, after `refused` one of generation `generation`. Tells
    /// whether trying again makes sense.
    async fn authorize(&self, refused: &Response, generation: u64) -> Result<bool, http::Fault> {
        let headers = refused.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> =
            headers.filter_map(|header| challenge::parse(header.to_str().ok()?)).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        // Held across the request on purpose: the others wait for its outcome.
        let mut authorization = self.0.authorization.lock().await;
        if authorization.generation != generation {
            return Ok(true);
        }
        let challenge = bearer.or(challenges.first()).or(authorization.challenge.as_ref()).cloned();
        let Some(challenge) = challenge else { return Ok(false) };
        let header = match (&challenge, &self.0.credential) {
            (Challenge::Bearer { realm, service }, _) => self.token(realm, service.as_deref()).await?,
            (Challenge::Basic, Some(Credential::Basic { username, password })) if generation == 0 => {
                http::basic(username, password)
            }
            // Basic credentials do not become better by repeating them.
            (Challenge::Basic, _) => return Ok(false),
        };
        authorization.header = Some(header);
        authorization.challenge = Some(challenge);
        authorization.generation += 1;
        Ok(true)
    }

    /// Asks the token server for a pull token.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, http::Fault> {
        let protocol = |reason| SourceFault::Protocol { host: self.host().to_owned(), reason };
        let url = Url::parse(realm).map_err(|_| protocol("the realm of its token server is not a URL"))?;
        let secure = url.scheme() == "https" || (self.0.plain && url.scheme() == "http");
        if !secure {
            return Err(protocol("its token server is not reached by https").into());
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let what = "the request for a token";
        let scope = format!("repository:{}:pull", self.0.reference.repository);
        let mut pairs: Vec<(&str, &str)> = vec![("scope", &scope)];
        pairs.extend(service.map(|service| ("service", service)));
        let request = match &self.0.credential {
            Some(Credential::Identity(token)) => {
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "lantern"),
                ]);
                self.0.client.post(url).form(&pairs)
            }
            Some(Credential::Basic { username, password }) => {
                let header = http::basic(username, password);
                self.0.client.get(url).query(&pairs).header(AUTHORIZATION, header)
            }
            None => self.0.client.get(url).query(&pairs),
        };
        let request = request.timeout(DOCUMENT_TIMEOUT);
        let response = request.send().await.map_err(|error| http::network(&host, &what, error))?;
        if !response.status().is_success() {
            let advice = "; check the credentials for the registry";
            return Err(http::status(response, &host, what, advice).await);
        }
        let body = Zeroizing::new(http::body(response, TOKEN_MAX, &host, what).await?);
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| SourceFault::Protocol { host: host.clone(), reason: "its token is not JSON" })?;
        let token = token
            .token
            .or(token.access_token)
            .ok_or(SourceFault::Protocol { host: host.clone(), reason: "its answer holds no token" })?;
        http::sensitive(&format!("Bearer {}", *token))
            .ok_or_else(|| SourceFault::Protocol { host, reason: "its token cannot be sent" }.into())
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<Zeroizing<String>>,
    #[serde(default)]
    access_token: Option<Zeroizing<String>>,
}

impl std::fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(name) => write!(f, "the request for manifest {name}"),
            Self::Blob(digest, _) => write!(f, "the request for blob {digest}"),
        }
    }
}

/// The wait that a `Retry-After` header asks for, where it is in seconds.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
