//! Settings of functions' sandboxes: flags over `LANTERN_*` environment over the
//! `[sandboxes]` table of the settings file.

use super::ConfigError;
use cache::size::size;
use photon::dispatch::DispatcherSettings;
use photon::launch::LaunchSettings;
use photon::sandbox::{self, Bridge, PoolSettings};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Flags of the daemon.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Sandboxes of functions")]
pub struct SandboxArgs {
    /// Sandboxes of all functions; more invocations wait or are refused [default: 256]
    #[arg(long, env = "LANTERN_MAX_SANDBOXES", value_name = "N")]
    pub max_sandboxes: Option<usize>,
    /// Memory of all sandboxes [default: three quarters of the host's]
    #[arg(long, env = "LANTERN_SANDBOX_MEMORY", value_name = "SIZE", value_parser = size)]
    pub sandbox_memory: Option<u64>,
    /// How long an idle sandbox is kept [default: 600]
    #[arg(long, env = "LANTERN_KEEP_ALIVE", value_name = "SECONDS")]
    pub keep_alive: Option<u64>,
    /// How long a runtime may take to come up [default: 30]
    #[arg(long, env = "LANTERN_INIT_TIMEOUT", value_name = "SECONDS")]
    pub init_timeout: Option<u64>,
    /// Sandboxes prepared ahead: directory, control groups, network namespace [default: 16]
    #[arg(long, env = "LANTERN_POOL", value_name = "N")]
    pub pool: Option<usize>,
    /// Sandboxes prepared ahead with an interface on the bridge [default: 0]
    #[arg(long, env = "LANTERN_POOL_BRIDGED", value_name = "N")]
    pub pool_bridged: Option<usize>,
    /// Sandboxes of functions in use that are prepared up to their first instruction, beyond the
    /// pool; 0 for none [default: 4]
    #[arg(long, env = "LANTERN_PREPARED", value_name = "N")]
    pub prepared: Option<usize>,
    /// Let the kernel merge equal pages of Python photons (KSM, which must run), of one tenant at
    /// a time: less memory, but who can time a write learns what the tenant's other photons have
    #[arg(long, env = "LANTERN_MERGE_MEMORY")]
    pub merge_memory: bool,
    /// Bridge of functions with LANTERN_NETWORK=bridge: name=address/prefix
    /// [default: lantern0=100.100.0.1/16]
    #[arg(long, env = "LANTERN_BRIDGE", value_name = "BRIDGE", value_parser = bridge)]
    pub bridge: Option<Bridge>,
    /// Where the jars of the Java runtime are [default: runtimes/java beside this program, or
    /// /usr/share/lantern/runtimes/java]
    #[arg(long, env = "LANTERN_JAVA_RUNTIME", value_name = "DIRECTORY")]
    pub java_runtime: Option<PathBuf>,
}

/// The `[sandboxes]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as the flags of the same names, and further limits")]
pub struct SandboxTable {
    pub max_sandboxes: Option<usize>,
    pub memory_bytes: Option<u64>,
    pub keep_alive_seconds: Option<u64>,
    pub init_timeout_seconds: Option<u64>,
    pub pool: Option<usize>,
    pub pool_bridged: Option<usize>,
    pub prepared: Option<usize>,
    pub merge_memory: Option<bool>,
    pub bridge: Option<String>,
    pub java_runtime: Option<PathBuf>,
    /// Invocations of a function that wait without a slot on its way to them.
    pub max_waiting: Option<usize>,
    /// How long one waits for a slot.
    pub max_wait_seconds: Option<u64>,
    /// Bytes of a sandbox's shared object store.
    pub store_bytes: Option<u64>,
    /// Memory limit of a sandbox whose function declares none.
    pub default_memory_bytes: Option<u64>,
}

/// Where the jars are looked for.
const JAVA_RUNTIME: &str = "/usr/share/lantern/runtimes/java";

fn bridge(text: &str) -> Result<Bridge, String> {
    let refused =
        || format!("{text:?} is not a bridge; use name=address/prefix, such as lantern0=100.100.0.1/16");
    let (name, network) = text.split_once('=').ok_or_else(refused)?;
    let (address, prefix) = network.split_once('/').ok_or_else(refused)?;
    let named = (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let prefix: u8 = prefix.parse().map_err(|_| refused())?;
    if !named || !(8..=30).contains(&prefix) {
        return Err(refused());
    }
    Ok(Bridge { name: name.into(), address: address.parse().map_err(|_| refused())?, prefix })
}

/// Memory of this host in bytes.
fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(1 << 30, |kib| kib * 1024)
}

/// What the dispatcher needs, and the jars to install first.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// The dispatcher's; its directories are in the worker's run directory.
    pub dispatcher: DispatcherSettings,
    /// The Java runtime's jars, if they are anywhere.
    pub jars: Option<PathBuf>,
}

impl SandboxArgs {
    /// Joins flags, environment and file and checks the result. `run_dir` is the worker's own.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is wrong.
    pub fn resolve(
        self,
        file: SandboxTable,
        (runtime, run_dir, region, max_starts): (String, &Path, String, usize),
    ) -> Result<SandboxSettings, ConfigError> {
        let most_sandboxes = self.max_sandboxes.or(file.max_sandboxes).unwrap_or(256);
        if most_sandboxes == 0 {
            return Err(ConfigError::Zero("max-sandboxes"));
        }
        let from_file = file.bridge.as_deref().map(bridge).transpose().map_err(ConfigError::Bridge)?;
        let defaults = PoolSettings::default();
        let pool = PoolSettings {
            plain: self.pool.or(file.pool).unwrap_or(defaults.plain),
            bridged: self.pool_bridged.or(file.pool_bridged).unwrap_or(defaults.bridged),
            bridge: self.bridge.or(from_file).unwrap_or(defaults.bridge),
        };
        let seconds = |flag: Option<u64>, file: Option<u64>, default| {
            Duration::from_secs(flag.or(file).unwrap_or(default))
        };
        let dispatcher = DispatcherSettings {
            sandbox: sandbox::Settings {
                runtime,
                run_dir: run_dir.to_path_buf(),
                grace: Duration::from_secs(2),
                started: None,
            },
            pool,
            prepared: self.prepared.or(file.prepared).unwrap_or(4),
            merge_memory: self.merge_memory || file.merge_memory.unwrap_or(false),
            launch: LaunchSettings {
                runtimes: run_dir.join("runtimes"),
                region,
                default_memory_bytes: file.default_memory_bytes.unwrap_or(2 << 30),
            },
            most_starts: max_starts,
            most_sandboxes,
            memory_bytes: self.sandbox_memory.or(file.memory_bytes).unwrap_or_else(|| host_memory() / 4 * 3),
            most_waiting: file.max_waiting.unwrap_or(1000),
            longest_wait: seconds(None, file.max_wait_seconds, 60),
            init_timeout: seconds(self.init_timeout, file.init_timeout_seconds, 30),
            keep_alive: seconds(self.keep_alive, file.keep_alive_seconds, 600),
            most_response_bytes: 6 << 20,
            store_bytes: file.store_bytes.unwrap_or(64 << 20),
            watch_interval: Duration::from_millis(250),
        };
        Ok(SandboxSettings { dispatcher, jars: self.java_runtime.or(file.java_runtime).or_else(jars) })
    }
}

/// The jars where they are by default, if they are.
fn jars() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let beside = program.parent()?.join("runtimes/java");
    [beside, PathBuf::from(JAVA_RUNTIME)].into_iter().find(|path| path.join("lantern-agent.jar").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges() {
        let made = bridge("br0=10.1.0.1/24").unwrap();
        assert_eq!((made.name.as_str(), made.prefix), ("br0", 24));
        for bad in [
            "",
            "br0",
            "br0=10.1.0.1",
            "br0=x/24",
            "br0=10.1.0.1/31",
            "a b=10.1.0.1/24",
            "averyveryverylongname=10.1.0.1/24",
        ] {
            assert!(bridge(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_have_sane_defaults() {
        let given = || ("crun".into(), Path::new("/run/x"), "us-east-1".into(), 16);
        let settings = SandboxArgs::default().resolve(SandboxTable::default(), given()).unwrap().dispatcher;
        assert_eq!((settings.most_sandboxes, settings.most_starts), (256, 16));
        assert!(settings.memory_bytes > 0 && settings.keep_alive == Duration::from_secs(600));
        let none = SandboxArgs { max_sandboxes: Some(0), ..SandboxArgs::default() };
        assert!(none.resolve(SandboxTable::default(), given()).is_err());
    }
}
