//! Settings of a worker: flags over `LANTERN_*` environment over the `[worker]` table of the
//! settings file, checked into [`WorkerSettings`].
//!
//! Invariant: deadlines are in order, so that the innermost gives up first: a chunk before
//! the FUSE request, the FUSE request before the kernel reports a hung task.

mod functions;
mod sandboxes;

pub use functions::{FunctionsArgs, FunctionsSettings, FunctionsTable};
pub use sandboxes::{SandboxArgs, SandboxSettings, SandboxTable};

use crate::api::access_keys::AccessKeyError;
use cache::policy::PolicyKind;
use cache::prefetch::WindowSettings;
use cache::read_path::ReadPathSettings;
use cache::size::size;
use cache::ssd::{Contents, SsdSettings};
use fleet::settings::{L2Args, L2Error, L2Settings, L2Table};
use origin::settings::{SettingsError, StoreArgs, StoreSettings, StoreTable, read_config};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// The guest's own patience: the kernel reports tasks that hang for longer.
const GUEST_DEADLINE: Duration = Duration::from_secs(120);
/// A FUSE request is given this much longer than the chunk under it.
const FUSE_MARGIN: Duration = Duration::from_secs(10);

/// Flags of every command that may start a worker.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerArgs {
    /// Where the SSD tier lives [default: /var/lib/lantern]
    #[arg(long, env = "LANTERN_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// Where sockets and mounts live [default: /run/lantern]
    #[arg(long, env = "LANTERN_RUN_DIR", value_name = "DIRECTORY")]
    pub run_dir: Option<PathBuf>,
    /// Memory for plaintext chunks [default: 512M]
    #[arg(long, env = "LANTERN_MEMORY_CACHE", value_name = "SIZE", value_parser = size)]
    pub memory_cache: Option<u64>,
    /// Local disk for sealed chunks; 0 for none [default: 20G]
    #[arg(long, env = "LANTERN_SSD_CACHE", value_name = "SIZE", value_parser = size)]
    pub ssd_cache: Option<u64>,
    /// Local disk that is left free for others [default: 2G]
    #[arg(long, env = "LANTERN_SSD_HEADROOM", value_name = "SIZE", value_parser = size)]
    pub ssd_headroom: Option<u64>,
    /// How long a read waits for a chunk before it fails [default: 20]
    #[arg(long, env = "LANTERN_CHUNK_DEADLINE", value_name = "SECONDS")]
    pub chunk_deadline: Option<u64>,
    /// Fetch only what is demanded, no neighbours
    #[arg(long, env = "LANTERN_NO_PREFETCH")]
    pub no_prefetch: bool,
    /// Instances that may be starting at the same time; more are refused at once [default: 16]
    #[arg(long, env = "LANTERN_MAX_STARTS", value_name = "N")]
    pub max_starts: Option<usize>,
    /// Requests to the store at the same time [default: 64]
    #[arg(long, env = "LANTERN_ORIGIN_CONCURRENCY", value_name = "N")]
    pub origin_concurrency: Option<usize>,
    /// OCI runtime that runs sandboxes [default: crun]
    #[arg(long, env = "LANTERN_OCI_RUNTIME", value_name = "PROGRAM")]
    pub oci_runtime: Option<String>,
    /// The remote cache.
    #[command(flatten)]
    pub l2: L2Args,
}

/// Flags of the commands that talk to a daemon, or clean up after one.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientArgs {
    /// Where the daemon's socket and mounts live [default: /run/lantern]
    #[arg(long, env = "LANTERN_RUN_DIR", value_name = "DIRECTORY")]
    pub run_dir: Option<PathBuf>,
    /// Settings file [default: /etc/lantern/lantern.toml if it exists]
    #[arg(long, env = "LANTERN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ClientArgs {
    /// Where the daemon is, and the OCI runtime of the settings file.
    ///
    /// # Errors
    /// The settings file cannot be read or says nonsense.
    pub fn resolve(self) -> Result<(Directories, String), ConfigError> {
        let file = config_file(&StoreArgs { config: self.config, ..StoreArgs::default() })?;
        let args = WorkerArgs { run_dir: self.run_dir, ..WorkerArgs::default() };
        Ok((args.directories(&file.worker), args.oci_runtime(&file.worker)))
    }
}

/// The `[worker]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as the flags of the same names")]
pub struct WorkerTable {
    pub state_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub memory_cache_bytes: Option<u64>,
    pub ssd_cache_bytes: Option<u64>,
    pub ssd_headroom_bytes: Option<u64>,
    pub chunk_deadline_seconds: Option<u64>,
    pub max_starts: Option<usize>,
    pub origin_concurrency: Option<usize>,
    pub policy: PolicyKind,
    pub window: Option<WindowSettings>,
    pub oci_runtime: Option<String>,
}

/// The whole settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the tables say it")]
pub struct ConfigFile {
    pub store: StoreTable,
    pub worker: WorkerTable,
    pub l2: L2Table,
    pub functions: FunctionsTable,
    pub sandboxes: SandboxTable,
    /// For `cache-node`, which reads it from the same file.
    pub node: Option<serde::de::IgnoredAny>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Those of the store, or the file itself.
    #[error(transparent)]
    Store(#[from] SettingsError),
    /// Those of the remote cache.
    #[error(transparent)]
    L2(#[from] L2Error),
    /// Who may sign requests.
    #[error(transparent)]
    AccessKeys(#[from] AccessKeyError),
    /// A door that nobody can pass.
    #[error(
        "--functions-listen needs --access-keys FILE, or `access_keys` in the [functions] table: requests are signed"
    )]
    NoAccessKeys,
    /// Not a region.
    #[error("region {0:?} must be lower-case letters, digits and -, such as us-east-1")]
    Region(String),
    /// Not a bridge.
    #[error("{0}")]
    Bridge(String),
    /// A limit in the settings file that would allow nothing.
    #[error("{0} in the settings file must be at least 1")]
    NoLimit(&'static str),
    /// A limit of none is no limit.
    #[error("--{0} must be at least 1")]
    Zero(&'static str),
    /// The deadlines would fire in the wrong order.
    #[error("--chunk-deadline {0} is too long: it must be 1 to {max} seconds, below the kernel's own patience", max = (GUEST_DEADLINE - FUSE_MARGIN).as_secs() - 1)]
    Deadline(u64),
}

/// Where a worker keeps things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Survives restarts: the SSD tier.
    pub state: PathBuf,
    /// Gone with the boot: sockets and mounts.
    pub run: PathBuf,
}

impl Directories {
    /// Where the daemon's socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("blockd.sock")
    }
}

/// Checked settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The store.
    pub store: StoreSettings,
    /// Where things are kept.
    pub directories: Directories,
    /// The read path.
    pub read_path: ReadPathSettings,
    /// The SSD tier, if there is one.
    pub ssd: Option<SsdSettings>,
    /// The remote cache, if there is one.
    pub l2: Option<L2Settings>,
    /// Instances that may be starting at the same time.
    pub max_starts: usize,
    /// Longest FUSE request.
    pub fuse_deadline: Duration,
}

/// Starts at the same time where nothing is said. With all caches empty, what all workers'
/// starts ask for at once must come within the chunk deadline (docs/capacity.md): 16 suits
/// some hundred workers on one S3 prefix.
const DEFAULT_MAX_STARTS: usize = 16;

impl WorkerArgs {
    /// Where things are kept, from flags and file.
    #[must_use]
    pub fn directories(&self, file: &WorkerTable) -> Directories {
        let choose = |flag: &Option<PathBuf>, file: &Option<PathBuf>, default: &str| {
            flag.clone().or_else(|| file.clone()).unwrap_or_else(|| default.into())
        };
        Directories {
            state: choose(&self.state_dir, &file.state_dir, "/var/lib/lantern"),
            run: choose(&self.run_dir, &file.run_dir, "/run/lantern"),
        }
    }

    /// The OCI runtime, from flags and file.
    #[must_use]
    pub fn oci_runtime(&self, file: &WorkerTable) -> String {
        self.oci_runtime.clone().or_else(|| file.oci_runtime.clone()).unwrap_or_else(|| "crun".into())
    }

    /// Joins flags, environment and file and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is missing or wrong.
    pub fn resolve(self, store: StoreArgs, file: ConfigFile) -> Result<WorkerSettings, ConfigError> {
        let store = store.resolve(file.store)?;
        let directories = self.directories(&file.worker);
        let defaults = ReadPathSettings::default();
        let seconds = self.chunk_deadline.or(file.worker.chunk_deadline_seconds);
        let seconds = seconds.unwrap_or(defaults.chunk_deadline_ms / 1000);
        let fuse_deadline = Duration::from_secs(seconds).saturating_add(FUSE_MARGIN);
        if seconds == 0 || fuse_deadline >= GUEST_DEADLINE {
            return Err(ConfigError::Deadline(seconds));
        }
        let mut window = file.worker.window.unwrap_or_default();
        if self.no_prefetch {
            window.first = 0;
        }
        let max_starts = self.max_starts.or(file.worker.max_starts).unwrap_or(DEFAULT_MAX_STARTS);
        let origin_concurrency =
            self.origin_concurrency.or(file.worker.origin_concurrency).unwrap_or(defaults.origin_concurrency);
        if max_starts == 0 || origin_concurrency == 0 {
            return Err(ConfigError::Zero(if max_starts == 0 { "max-starts" } else { "origin-concurrency" }));
        }
        let l2 = self.l2.clone().resolve(file.l2)?;
        let read_path = ReadPathSettings {
            origin_concurrency,
            memory_bytes: self
                .memory_cache
                .or(file.worker.memory_cache_bytes)
                .unwrap_or(defaults.memory_bytes),
            policy: file.worker.policy,
            chunk_deadline_ms: seconds * 1000,
            window,
            ..defaults
        };
        let capacity_bytes = self.ssd_cache.or(file.worker.ssd_cache_bytes).unwrap_or(20 << 30);
        let ssd = (capacity_bytes > 0).then(|| SsdSettings {
            directory: directories.state.join("ssd"),
            capacity_bytes,
            headroom_bytes: self.ssd_headroom.or(file.worker.ssd_headroom_bytes).unwrap_or(2 << 30),
            policy: file.worker.policy,
            contents: Contents::Chunks,
        });
        Ok(WorkerSettings { store, directories, read_path, ssd, l2, max_starts, fuse_deadline })
    }
}

/// Reads the settings file that the store's flags name.
///
/// # Errors
/// [`ConfigError`] if it cannot be read or is not valid.
pub fn config_file(store: &StoreArgs) -> Result<ConfigFile, ConfigError> {
    Ok(read_config(store.config.as_deref())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oci_runtime_is_from_the_flag_then_the_file() {
        let file: ConfigFile = toml::from_str("[worker]\noci_runtime = 'runc'").unwrap();
        assert_eq!(WorkerArgs::default().oci_runtime(&file.worker), "runc");
        let flag = WorkerArgs { oci_runtime: Some("youki".into()), ..WorkerArgs::default() };
        assert_eq!(flag.oci_runtime(&file.worker), "youki");
        assert_eq!(WorkerArgs::default().oci_runtime(&WorkerTable::default()), "crun");
    }

    #[test]
    fn deadlines_stay_in_order() {
        let resolve = |seconds| {
            let store = StoreArgs { store: Some("file:///x".into()), ..StoreArgs::default() };
            WorkerArgs { chunk_deadline: Some(seconds), ..WorkerArgs::default() }
                .resolve(store, ConfigFile::default())
        };
        let settings = resolve(100).unwrap();
        assert!(Duration::from_millis(settings.read_path.chunk_deadline_ms) < settings.fuse_deadline);
        assert!(settings.fuse_deadline < GUEST_DEADLINE);
        for seconds in [0, 110, u64::MAX] {
            assert!(matches!(resolve(seconds), Err(ConfigError::Deadline(_))), "{seconds}");
        }
    }
}
