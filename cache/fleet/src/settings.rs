//! How every command names the fleet: flags over `LANTERN_*` environment over the `[l2]`
//! table of the settings file, checked into one [`L2Settings`].

use crate::client::{Fleet, FleetError, FleetSettings};
use crate::membership::{LOOK_EVERY, Membership, MembershipError};
use crate::stripe::Code;
use crate::transport::{HttpTransport, Secret, TlsError, TlsFiles, TransportSettings, client_config};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest secret file that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 4096;
/// Bounds of the deadline in milliseconds.
const DEADLINE_MS: std::ops::RangeInclusive<u64> = 1..=10_000;

/// The remote cache, if there is one.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Remote cache")]
pub struct L2Args {
    /// The cache nodes: file:/path (TOML, read again when it changes), dns:name:port, or
    /// host:port,host:port,… [default: no remote cache]
    #[arg(long, env = "LANTERN_L2", value_name = "FLEET")]
    pub l2: Option<String>,
    /// Use the nodes of this zone alone
    #[arg(long, env = "LANTERN_L2_ZONE", value_name = "ZONE")]
    pub l2_zone: Option<String>,
    /// Shards of a chunk, as data+parity; the same for all clients of a fleet [default: 4+1]
    #[arg(long, env = "LANTERN_L2_STRIPE", value_name = "K+M")]
    pub l2_stripe: Option<String>,
    /// After this many milliseconds the store is asked instead [default: 50]
    #[arg(long, env = "LANTERN_L2_DEADLINE_MS", value_name = "MS")]
    pub l2_deadline_ms: Option<u64>,
    /// File with the fleet's shared secret
    #[arg(long, env = "LANTERN_L2_SECRET_FILE", value_name = "FILE")]
    pub l2_secret_file: Option<PathBuf>,
    /// Speak TLS, and trust nodes whose certificate this authority signed (PEM)
    #[arg(long, env = "LANTERN_L2_CA", value_name = "FILE")]
    pub l2_ca: Option<PathBuf>,
    /// Our own certificate, for nodes that ask for one (PEM)
    #[arg(long, env = "LANTERN_L2_CERT", value_name = "FILE", requires = "l2_key")]
    pub l2_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "LANTERN_L2_KEY", value_name = "FILE", requires = "l2_cert")]
    pub l2_key: Option<PathBuf>,
    /// Name in the nodes' certificates, where it is not the host of their address
    #[arg(long, env = "LANTERN_L2_TLS_NAME", value_name = "NAME")]
    pub l2_tls_name: Option<String>,
}

/// The `[l2]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as the flags of the same names")]
pub struct L2Table {
    pub fleet: Option<String>,
    pub zone: Option<String>,
    pub stripe: Option<String>,
    pub deadline_ms: Option<u64>,
    pub secret_file: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub tls_name: Option<String>,
}

/// A checked choice of fleet.
#[derive(Debug, Clone)]
pub struct L2Settings {
    /// Where the list of nodes comes from.
    pub membership: Membership,
    /// How the fleet is used.
    pub fleet: FleetSettings,
    /// How nodes are called.
    pub transport: TransportSettings,
}

/// Settings of the fleet that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum L2Error {
    /// A command that needs the fleet was given none.
    #[error("no remote cache: pass --l2, or set LANTERN_L2")]
    Missing,
    /// The list of nodes.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The fleet itself.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Not a stripe.
    #[error("{0:?} is no stripe: use data+parity, 1 to 16 and 0 to 8, as 4+1")]
    Stripe(String),
    /// Not a deadline.
    #[error("{0} ms is no deadline for the remote cache: use 1 to 10000")]
    Deadline(u64),
    /// The secret's file.
    #[error("secret file {path} cannot be used: {reason}")]
    Secret {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Reads a shared secret from a file.
///
/// # Errors
/// [`L2Error::Secret`] if it cannot be read or holds no secret.
pub fn read_secret(path: &Path) -> Result<Secret, L2Error> {
    use std::io::Read;
    let failed = |reason: String| L2Error::Secret { path: path.into(), reason };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    Secret::new(&text).ok_or_else(|| {
        failed(format!("it must hold at least {} printable characters without spaces", Secret::MIN_LEN))
    })
}

/// A stripe from `4+1`.
fn stripe(text: &str) -> Option<Code> {
    let (data, parity) = text.split_once('+')?;
    Code::new(data.parse().ok()?, parity.parse().ok()?).ok()
}

impl L2Args {
    /// Joins flags and environment with the file's table; `None` if no fleet is named.
    ///
    /// # Errors
    /// [`L2Error`] names the setting that is wrong.
    pub fn resolve(self, file: L2Table) -> Result<Option<L2Settings>, L2Error> {
        let Some(named) = self.l2.or(file.fleet).filter(|named| !named.is_empty()) else { return Ok(None) };
        let mut fleet = FleetSettings { zone: self.l2_zone.or(file.zone), ..FleetSettings::default() };
        if let Some(text) = self.l2_stripe.or(file.stripe) {
            fleet.code = stripe(&text).ok_or(L2Error::Stripe(text))?;
        }
        if let Some(ms) = self.l2_deadline_ms.or(file.deadline_ms) {
            if !DEADLINE_MS.contains(&ms) {
                return Err(L2Error::Deadline(ms));
            }
            fleet.deadline = Duration::from_millis(ms);
        }
        let files = TlsFiles {
            authority: self.l2_ca.or(file.ca),
            certificate: self.l2_cert.or(file.cert),
            key: self.l2_key.or(file.key),
        };
        let transport = TransportSettings {
            secret: self.l2_secret_file.or(file.secret_file).as_deref().map(read_secret).transpose()?,
            tls: if files == TlsFiles::default() { None } else { Some(client_config(&files)?) },
            tls_name: self.l2_tls_name.or(file.tls_name),
            ..TransportSettings::default()
        };
        Ok(Some(L2Settings { membership: named.parse()?, fleet, transport }))
    }
}

impl L2Settings {
    /// Opens the fleet and follows its membership until the last clone of the fleet's user
    /// drops the returned task.
    ///
    /// # Errors
    /// [`L2Error`] if the list of nodes cannot be read or makes no fleet. A name that cannot
    /// be resolved is no error: the fleet stays empty until it can.
    pub async fn open(&self) -> Result<(Fleet, Following), L2Error> {
        let transport = Arc::new(HttpTransport::new(self.transport.clone()));
        let fleet = match self.membership.members().await {
            Ok(members) => Fleet::new(self.fleet.clone(), members, transport)?,
            // a start needs no network: the name may be known later
            Err(error @ MembershipError::Resolve { .. }) => {
                tracing::warn!(%error, "going on without the remote cache until its nodes are known");
                Fleet::without_members(self.fleet.clone(), transport)
            }
            Err(error) => return Err(error.into()),
        };
        let (membership, followed) = (self.membership.clone(), fleet.clone());
        let task = tokio::spawn(async move { membership.follow(&followed, LOOK_EVERY).await });
        Ok((fleet, Following(task)))
    }
}

/// The task that follows the fleet's membership; it ends when this is dropped.
#[derive(Debug)]
pub struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let table: L2Table = toml::from_str("fleet = 'a:1'\nstripe = '2+1'\nzone = 'z'").unwrap();
        let args = L2Args { l2: Some("b:1,c:1".into()), l2_deadline_ms: Some(7), ..L2Args::default() };
        let settings = args.resolve(table).unwrap().unwrap();
        assert!(matches!(&settings.membership, Membership::Fixed(members) if members.nodes().len() == 2));
        assert_eq!((settings.fleet.code.data(), settings.fleet.code.parity()), (2, 1));
        assert_eq!(settings.fleet.deadline, Duration::from_millis(7));
        assert_eq!(settings.fleet.zone.as_deref(), Some("z"));
        assert!(L2Args::default().resolve(L2Table::default()).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |change: fn(&mut L2Args)| {
            let mut args = L2Args { l2: Some("a:1".into()), ..L2Args::default() };
            change(&mut args);
            args.resolve(L2Table::default()).unwrap_err().to_string()
        };
        assert!(with(|args| args.l2 = Some("nowhere".into())).contains("nowhere"));
        assert!(with(|args| args.l2_stripe = Some("0+1".into())).contains("0+1"));
        assert!(with(|args| args.l2_deadline_ms = Some(0)).contains("0 ms"));
        assert!(with(|args| args.l2_secret_file = Some("/nonexistent".into())).contains("/nonexistent"));
        assert!(with(|args| args.l2_ca = Some("/nonexistent".into())).contains("/nonexistent"));
    }
}
