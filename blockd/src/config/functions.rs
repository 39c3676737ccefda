//! Settings of a worker's functions: flags over `LANTERN_*` environment over the
//! `[functions]` table of the settings file.

use super::ConfigError;
use crate::api::access_keys::AccessKeys;
use crate::api::lambda::DoorSettings;
use crate::functions::ServiceSettings;
use crate::functions::name::is_region;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Flags of the daemon.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Functions")]
pub struct FunctionsArgs {
    /// Serve the AWS Lambda API here, such as 127.0.0.1:9000. Plain HTTP: end TLS in front of
    /// it [default: only the Unix socket]
    #[arg(long, env = "LANTERN_FUNCTIONS_LISTEN", value_name = "ADDRESS")]
    pub functions_listen: Option<SocketAddr>,
    /// TOML file of the access keys that requests are signed with, mode 0600:
    /// [keys.ID] secret = "…" tenant = "local" account = "000000000000"
    #[arg(long, env = "LANTERN_ACCESS_KEYS", value_name = "FILE")]
    pub access_keys: Option<PathBuf>,
    /// Region of ARNs, and the one that signatures must name [default: us-east-1 in ARNs, any
    /// in signatures]
    #[arg(long, env = "LANTERN_FUNCTIONS_REGION", value_name = "REGION")]
    pub functions_region: Option<String>,
}

/// The `[functions]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as the flags of the same names, and the limits of the settings")]
pub struct FunctionsTable {
    pub listen: Option<SocketAddr>,
    pub access_keys: Option<PathBuf>,
    pub region: Option<String>,
    pub max_functions: Option<usize>,
    pub max_connections: Option<usize>,
    pub max_body_memory_bytes: Option<usize>,
    pub max_events: Option<usize>,
    pub max_event_bytes: Option<u64>,
    pub event_concurrency: Option<usize>,
    pub max_dead_letters: Option<usize>,
    pub max_dead_letter_bytes: Option<u64>,
}

/// Checked settings of a worker's functions.
#[derive(Debug, Clone)]
pub struct FunctionsSettings {
    /// What is kept, and its limits.
    pub service: ServiceSettings,
    /// Where the Lambda API is served, and its limits; nowhere, if nothing was said.
    pub door: Option<(SocketAddr, DoorSettings)>,
}

impl FunctionsArgs {
    /// Joins flags, environment and file and checks the result. Functions are kept in
    /// `state_dir`.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is missing or wrong.
    pub fn resolve(self, file: FunctionsTable, state_dir: &Path) -> Result<FunctionsSettings, ConfigError> {
        let keys = match self.access_keys.or(file.access_keys) {
            Some(path) => AccessKeys::read(&path)?,
            None => AccessKeys::default(),
        };
        let region = self.functions_region.or(file.region);
        if let Some(region) = region.as_ref().filter(|region| !is_region(region)) {
            return Err(ConfigError::Region(region.clone()));
        }
        let mut service = ServiceSettings::new(state_dir.join("functions.redb"));
        service.accounts = keys.accounts();
        if let Some(region) = &region {
            service.region.clone_from(region);
        }
        let events = &mut service.events;
        for (setting, given, value) in [
            ("functions.max_functions", file.max_functions, &mut service.max_functions),
            ("functions.max_events", file.max_events, &mut events.max_events),
            ("functions.event_concurrency", file.event_concurrency, &mut events.concurrency),
            ("functions.max_dead_letters", file.max_dead_letters, &mut events.max_dead_letters),
        ] {
            *value = at_least_one(setting, given)?.unwrap_or(*value);
        }
        events.max_bytes = file.max_event_bytes.unwrap_or(events.max_bytes);
        events.max_dead_letter_bytes = file.max_dead_letter_bytes.unwrap_or(events.max_dead_letter_bytes);
        let Some(address) = self.functions_listen.or(file.listen) else {
            return Ok(FunctionsSettings { service, door: None });
        };
        if keys.is_empty() {
            return Err(ConfigError::NoAccessKeys);
        }
        let mut door = DoorSettings::new(keys);
        door.region = region;
        for (setting, given, value) in [
            ("functions.max_connections", file.max_connections, &mut door.max_connections),
            ("functions.max_body_memory_bytes", file.max_body_memory_bytes, &mut door.max_body_memory),
        ] {
            *value = at_least_one(setting, given)?.unwrap_or(*value);
        }
        Ok(FunctionsSettings { service, door: Some((address, door)) })
    }
}

fn at_least_one(setting: &'static str, given: Option<usize>) -> Result<Option<usize>, ConfigError> {
    if given == Some(0) { Err(ConfigError::NoLimit(setting)) } else { Ok(given) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    fn resolve(args: FunctionsArgs, file: &str) -> Result<FunctionsSettings, String> {
        let table = toml::from_str(file).map_err(|error| error.to_string())?;
        args.resolve(table, Path::new("/state")).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    #[test]
    fn nothing_said_is_the_socket_alone() {
        let settings = resolve(FunctionsArgs::default(), "").unwrap();
        assert!(settings.door.is_none());
        assert_eq!(settings.service.file, Path::new("/state/functions.redb"));
        assert_eq!(settings.service.region, "us-east-1");
    }

    #[test]
    fn a_door_needs_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        let key = b"[keys.ABC]\nsecret = '0123456789abcdef'\ntenant = 'team'\naccount = '123456789012'\n";
        std::io::Write::write_all(&mut file, key).unwrap();
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let args = FunctionsArgs { functions_listen: listen, ..FunctionsArgs::default() };
        assert!(resolve(args.clone(), "").unwrap_err().contains("--access-keys"));
        let args =
            FunctionsArgs { access_keys: Some(path), functions_region: Some("eu-west-1".into()), ..args };
        let settings = resolve(args, "max_events = 5\nmax_connections = 7").unwrap();
        let (_, door) = settings.door.unwrap();
        assert_eq!(
            (door.keys.len(), door.max_connections, door.region.as_deref()),
            (1, 7, Some("eu-west-1"))
        );
        assert_eq!(
            (settings.service.events.max_events, settings.service.account("team")),
            (5, "123456789012")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let none = FunctionsArgs::default;
        assert!(resolve(none(), "max_events = 0").unwrap_err().contains("max_events"));
        assert!(resolve(none(), "region = 'US EAST'").unwrap_err().contains("US EAST"));
        assert!(resolve(none(), "max_event = 1").unwrap_err().contains("max_event"));
        assert!(resolve(none(), "access_keys = '/nonexistent'").unwrap_err().contains("/nonexistent"));
    }
}
