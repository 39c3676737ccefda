//! How every command names its store: flags over `LANTERN_*` environment over a TOML file,
//! checked into one [`StoreSettings`] with nothing left to interpret.

use crate::catalog::Catalog;
use crate::dir::{self, DirStore};
use crate::intercept::Intercepted;
use crate::keyring::Keyring;
use crate::retry::{Retry, RetrySettings};
use crate::s3::{self, S3Settings, S3Store};
use crate::store::{Origin, OriginError};
use crate::throttle::{Line, Throttle};
use image_format::ids::{IdError, RootId, TenantId};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The settings file that is read where none is named.
pub const DEFAULT_CONFIG: &str = "/etc/lantern/lantern.toml";

/// Longest settings file that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Where images are stored and whose they are.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The store: file:///directory or s3://bucket/prefix
    #[arg(long, env = "LANTERN_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Root (generation) of the store to use [default: r1]
    #[arg(long, env = "LANTERN_ROOT", value_name = "ROOT")]
    pub root: Option<String>,
    /// Whose images they are [default: local]
    #[arg(long, env = "LANTERN_TENANT", value_name = "TENANT")]
    pub tenant: Option<String>,
    /// File with the tenants' keys [default: /etc/lantern/keyring.toml for root, else
    /// ~/.config/lantern/keyring.toml]
    #[arg(long, env = "LANTERN_KEYRING", value_name = "FILE")]
    pub keyring: Option<PathBuf>,
    /// Endpoint of an S3 server other than AWS, e.g. http://127.0.0.1:9000
    #[arg(long, env = "LANTERN_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: the AWS configuration's, else us-east-1]
    #[arg(long, env = "LANTERN_S3_REGION", value_name = "REGION")]
    pub s3_region: Option<String>,
    /// Address buckets as endpoint/bucket instead of bucket.endpoint
    #[arg(long, env = "LANTERN_S3_PATH_STYLE")]
    pub s3_path_style: bool,
    /// Use the store as if it were behind a slow line, to measure what that means: lan, near,
    /// s3, or MILLISECONDS,MEGABYTES (to the first byte; per second)
    #[arg(long, env = "LANTERN_SLOW_LINE", value_name = "LINE")]
    pub slow_line: Option<Line>,
    /// Settings file [default: /etc/lantern/lantern.toml if it exists]
    #[arg(long, env = "LANTERN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The `[store]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreTable {
    /// As `--store`.
    pub url: Option<String>,
    /// As `--root`.
    pub root: Option<String>,
    /// As `--tenant`.
    pub tenant: Option<String>,
    /// As `--keyring`.
    pub keyring: Option<PathBuf>,
    /// As `--s3-endpoint`.
    pub s3_endpoint: Option<String>,
    /// As `--s3-region`.
    pub s3_region: Option<String>,
    /// As `--s3-path-style`.
    pub s3_path_style: bool,
}

/// How an S3 store is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Options {
    /// Endpoint other than AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// `endpoint/bucket` addresses.
    pub path_style: bool,
}

/// A checked choice of store, root and tenant.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// `file:///…` or `s3://…`.
    pub url: String,
    /// Root to use.
    pub root: RootId,
    /// Whose images.
    pub tenant: TenantId,
    /// The keyring file.
    pub keyring: PathBuf,
    /// How S3 is reached.
    pub s3: S3Options,
    /// A line to imitate in front of the store.
    pub slow_line: Option<Line>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No store was named.
    #[error("no store: pass --store file:///directory or s3://bucket/prefix, or set LANTERN_STORE")]
    NoStore,
    /// Not a URL of a known kind.
    #[error("{0:?} is not a store: use file:///directory or s3://bucket/prefix")]
    Url(String),
    /// Not a root or tenant id.
    #[error("bad --{setting}")]
    Id {
        /// Which setting.
        setting: &'static str,
        /// Why.
        source: IdError,
    },
    /// The settings file cannot be read.
    #[error("settings file {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings file has unknown keys or wrong values.
    #[error("settings file {path} is not valid: {reason}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

/// Reads a settings file into its raw tables; the default where `path` is `None` and there
/// is no [`DEFAULT_CONFIG`].
///
/// # Errors
/// [`SettingsError`] if a named file is missing or any file is not valid.
pub fn read_config<T: Default + serde::de::DeserializeOwned>(
    path: Option<&Path>,
) -> Result<T, SettingsError> {
    use std::io::Read;
    let named = path.unwrap_or(Path::new(DEFAULT_CONFIG));
    let failed = |source| SettingsError::Read { path: named.to_path_buf(), source };
    let mut text = String::new();
    match std::fs::File::open(named) {
        Ok(file) => drop(file.take(MAX_CONFIG_BYTES).read_to_string(&mut text).map_err(failed)?),
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(T::default());
        }
        Err(error) => return Err(failed(error)),
    }
    toml::from_str(&text)
        .map_err(|error| SettingsError::Parse { path: named.to_path_buf(), reason: error.to_string() })
}

fn id<T: std::str::FromStr<Err = IdError>>(text: &str, setting: &'static str) -> Result<T, SettingsError> {
    text.parse().map_err(|source| SettingsError::Id { setting, source })
}

impl StoreArgs {
    /// Joins flags and environment with the file's table and checks the result.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that is missing or wrong.
    pub fn resolve(self, file: StoreTable) -> Result<StoreSettings, SettingsError> {
        let url = self.store.or(file.url).ok_or(SettingsError::NoStore)?;
        if dir::directory_of(&url).is_none() && s3::parse_url(&url).is_none() {
            return Err(SettingsError::Url(url));
        }
        Ok(StoreSettings {
            url,
            root: id(self.root.or(file.root).as_deref().unwrap_or("r1"), "root")?,
            tenant: id(self.tenant.or(file.tenant).as_deref().unwrap_or("local"), "tenant")?,
            keyring: self.keyring.or(file.keyring).unwrap_or_else(default_keyring),
            s3: S3Options {
                endpoint: self.s3_endpoint.or(file.s3_endpoint),
                region: self.s3_region.or(file.s3_region),
                path_style: self.s3_path_style || file.s3_path_style,
            },
            slow_line: self.slow_line,
        })
    }
}

fn default_keyring() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or(home.map(|h| h.join(".config")));
    match config {
        Some(config) if !rustix::process::geteuid().is_root() => config.join("lantern/keyring.toml"),
        _ => PathBuf::from("/etc/lantern/keyring.toml"),
    }
}

impl StoreSettings {
    /// Opens the store.
    ///
    /// # Errors
    /// [`OriginError`] if the store cannot be reached or is not usable.
    pub async fn open(&self) -> Result<Arc<dyn Origin>, OriginError> {
        let store = self.open_as_it_is().await?;
        Ok(match self.slow_line {
            Some(line) => Arc::new(Intercepted::new(store, Throttle::new(line))),
            None => store,
        })
    }

    async fn open_as_it_is(&self) -> Result<Arc<dyn Origin>, OriginError> {
        if let Some(directory) = dir::directory_of(&self.url) {
            let directory = directory.to_path_buf();
            let opened = tokio::task::spawn_blocking(move || DirStore::open(directory)).await;
            return Ok(Arc::new(opened.expect("opening returns errors and does not panic")?));
        }
        let store = S3Store::open(&self.url, &self.s3, S3Settings::default()).await?;
        Ok(Arc::new(Intercepted::new(Arc::new(store), Retry::new(RetrySettings::default()))))
    }

    /// The tenant's keyring.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        Keyring::new(&self.keyring)
    }

    /// Opens the store as the tenant sees it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn catalog(&self) -> Result<Catalog, OriginError> {
        let origin = self.open().await?;
        Ok(Catalog::new(origin, Arc::new(self.keyring()), self.root.clone(), self.tenant.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let file: StoreTable = toml::from_str("url = 's3://b/p'\ntenant = 'team'\nroot = 'r2'").unwrap();
        let args =
            StoreArgs { store: Some("file:///x".into()), root: Some("r3".into()), ..StoreArgs::default() };
        let settings = args.resolve(file).unwrap();
        assert_eq!(settings.url, "file:///x");
        assert_eq!((settings.root.as_str(), settings.tenant.as_str()), ("r3", "team"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let resolve = |args: StoreArgs| args.resolve(StoreTable::default()).unwrap_err().to_string();
        assert!(resolve(StoreArgs::default()).contains("--store"));
        assert!(resolve(StoreArgs { store: Some("/x".into()), ..StoreArgs::default() }).contains("/x"));
        let bad =
            StoreArgs { store: Some("file:///x".into()), tenant: Some("A".into()), ..StoreArgs::default() };
        assert!(resolve(bad).contains("tenant"));
        assert!(toml::from_str::<StoreTable>("ulr = 'x'").is_err(), "unknown keys are refused");
    }
}
