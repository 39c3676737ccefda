//! TLS between clients and nodes: certificates from PEM files, both ways.
//!
//! Invariants: a client trusts the fleet's own authority and no public one; HTTP/2 alone is
//! spoken inside TLS.

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where certificates lie, as PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signed the other side's certificate.
    pub authority: Option<PathBuf>,
    /// Our certificate with its chain.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is no PEM of that kind.
    #[error("{what} in {path} cannot be used: {reason}")]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate without its key, or the other way round.
    #[error("a TLS certificate needs its key and the other way round; name both files")]
    Half,
    /// A client that would trust nobody.
    #[error("TLS needs the file of the authority that signed the nodes' certificates")]
    NoAuthority,
    /// The parts do not go together.
    #[error("the TLS certificates do not go together: {0}")]
    Setup(String),
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn file(what: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { what, path: path.into(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let read = CertificateDer::pem_file_iter(path).map_err(|error| file(what, path, &error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| file(what, path, &error))?;
    if found.is_empty() { Err(file(what, path, &"there is none")) } else { Ok(found) }
}

impl TlsFiles {
    fn pair(&self) -> Result<Option<Pair>, TlsError> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(key);
                let read = read.map_err(|error| file("private key", key, &error))?;
                Ok(Some((certificates(certificate)?, read)))
            }
            _ => Err(TlsError::Half),
        }
    }

    fn roots(&self) -> Result<Option<RootCertStore>, TlsError> {
        let Some(path) = &self.authority else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| file("authority", path, &error))?;
        }
        Ok(Some(roots))
    }
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// What a client of the fleet speaks TLS with. Reads the files.
///
/// # Errors
/// [`TlsError`] names the file that is missing or wrong.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = files.roots()?.ok_or(TlsError::NoAuthority)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(setup)?.with_root_certificates(roots);
    let mut config = match files.pair()? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(setup)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What a node speaks TLS with; clients must show a certificate where `files` names an
/// authority. Reads the files.
///
/// # Errors
/// [`TlsError`] names the file that is missing or wrong.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = files.pair()?.ok_or(TlsError::Half)?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(setup)?;
    let builder = match files.roots()? {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(setup)?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(setup)?;
    // scrapers and curl speak HTTP/1.1
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
