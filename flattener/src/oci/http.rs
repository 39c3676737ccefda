//! The HTTP client under the registry protocol: TLS, limits, and what its failures mean.

use super::error::SourceFault;
use super::registry::retry_after;
use super::source::SourceOptions;
use base64::Engine;
use reqwest::header::HeaderValue;
use reqwest::{Client, Response, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest error text that is read and the part of it that is shown, in bytes.
const ERROR_MAX: u64 = 16 << 10;
const ERROR_SHOWN: usize = 300;
/// Redirects that are followed; registries need one or two.
const REDIRECTS_MAX: usize = 10;

/// A failed request and what it says about trying again.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) fault: SourceFault,
    pub(super) retry_after: Option<Duration>,
}

impl Fault {
    /// Whether the same request may succeed later.
    pub(super) fn passes(&self) -> bool {
        self.fault.kind() == origin::store::ErrorKind::Unavailable
    }
}

impl From<SourceFault> for Fault {
    fn from(fault: SourceFault) -> Self {
        Self { fault, retry_after: None }
    }
}

impl From<Fault> for SourceFault {
    fn from(fault: Fault) -> Self {
        fault.fault
    }
}

/// A client with the system's certificates and the given ones.
pub(super) fn client(options: &SourceOptions) -> Result<Client, SourceFault> {
    let settings = |what: String| SourceFault::Settings(what);
    let mut roots = rustls::RootCertStore::empty();
    // What the system has that cannot be read is skipped; the handshake tells when it matters.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in &options.ca_certs {
        let unusable = || settings(format!("{} is not a file of PEM certificates", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|_| unusable())?;
        let mut count = 0;
        for certificate in certificates {
            roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
            count += 1;
        }
        if count == 0 {
            return Err(unusable());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| settings(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let follow = redirect::Policy::custom(|attempt| {
        let downgrade = attempt.url().scheme() != "https"
            && attempt.previous().iter().any(|before| before.scheme() == "https");
        if downgrade {
            attempt.error("a redirect from https to plain http is refused")
        } else if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(follow)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout)
        .user_agent(concat!("lantern-flattener/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| settings(error.to_string()))
}

/// A header that debug output and HTTP tables treat as secret; `None` when it cannot be one.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Basic authorization.
pub(super) fn basic(username: &str, password: &str) -> HeaderValue {
    let pair = Zeroizing::new(format!("{username}:{password}"));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    sensitive(&format!("Basic {}", *encoded)).expect("base64 is made of header characters")
}

/// A request that got no whole answer. URLs are left out: redirect targets carry signatures.
pub(super) fn network(host: &str, what: &dyn fmt::Display, error: reqwest::Error) -> Fault {
    let source = Box::new(error.without_url());
    SourceFault::Network { host: host.into(), what: what.to_string(), source }.into()
}

/// A request that was not answered in time.
pub(super) fn timed_out(host: &str, what: &dyn fmt::Display, elapsed: tokio::time::error::Elapsed) -> Fault {
    SourceFault::Network { host: host.into(), what: what.to_string(), source: Box::new(elapsed) }.into()
}

/// The whole body, if it is no longer than `limit`.
pub(super) async fn body(
    mut response: Response,
    limit: u64,
    host: &str,
    what: &str,
) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| network(host, &what, error))? {
        bytes.extend_from_slice(&chunk);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(SourceFault::TooLong { what: format!("the answer to {what}"), limit }.into());
        }
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// An answer that is not success, with what it says and `advice`.
pub(super) async fn status(response: Response, host: &str, what: &str, advice: &str) -> Fault {
    let status = response.status().as_u16();
    let retry_after = retry_after(&response);
    let text = body(response, ERROR_MAX, host, what).await.unwrap_or_default();
    let said = match serde_json::from_slice::<Errors>(&text) {
        Ok(errors) => {
            let items = errors.errors.iter().map(|item| format!("{} {}", item.code, item.message));
            items.collect::<Vec<_>>().join(", ")
        }
        Err(_) => String::from_utf8_lossy(&text).into_owned(),
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let said: String = said.trim().chars().map(printable).take(ERROR_SHOWN).collect();
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    let detail = format!("{said}{advice}");
    let fault = SourceFault::Status { host: host.into(), status, what: what.into(), detail };
    Fault { fault, retry_after }
}
