//! What is kept of a function. Checked when it was made (`input.rs`); what a sandbox needs of
//! it becomes a [`Function`].
//!
//! Invariant: `revision` changes with everything that a sandbox is made of, so that one
//! revision is one kind of sandbox; concurrency, tags and what happens to events do not
//! change it.

use super::environment::Environment;
use super::error::ServiceError;
use photon::function::{Function, FunctionKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Version of the stored form. Fields may be added with a default; else it counts up.
pub const STORED_VERSION: u32 = 1;

/// What replaces the image's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Its entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    /// Its command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
}

impl ImageConfig {
    /// Whether it replaces nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to events that were accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventConfig {
    /// How often a failed event is tried again: 0 to 2.
    pub maximum_retry_attempts: Option<u32>,
    /// For how long: 60 to 21600 seconds.
    pub maximum_event_age_seconds: Option<u32>,
    /// ARN that is told of failures.
    pub on_failure: Option<String>,
    /// ARN that is told of successes.
    pub on_success: Option<String>,
    /// When this was said.
    pub last_modified_ms: u64,
}

/// A function as its owner defined it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct Definition {
    pub version: u32,
    pub tenant: String,
    pub name: String,
    pub account: String,
    pub arn: String,
    pub role: String,
    pub description: String,
    /// As given.
    pub image_uri: String,
    /// What it meant when it was given.
    pub digest: String,
    pub image_bytes: u64,
    pub architecture: String,
    pub image_config: ImageConfig,
    pub timeout_seconds: u32,
    /// `None`: not declared; what it needs is measured.
    pub memory_mib: Option<u32>,
    pub tmp_mib: u32,
    /// As given, Lantern's settings included.
    pub environment: BTreeMap<String, String>,
    /// `PerExecutionEnvironmentMaxConcurrency`.
    pub declared_concurrency: Option<u32>,
    pub dead_letter: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub reserved_concurrency: Option<u32>,
    pub event_config: Option<EventConfig>,
    /// Changes with what a sandbox is made of.
    pub revision: String,
    pub last_modified_ms: u64,
}

impl Definition {
    /// Whose it is and its name.
    #[must_use]
    pub fn key(&self) -> FunctionKey {
        FunctionKey { tenant: self.tenant.clone(), name: self.name.clone() }
    }

    /// What a sandbox needs of it.
    ///
    /// # Errors
    /// [`ServiceError`] if the environment says nonsense.
    pub fn function(&self) -> Result<Function, ServiceError> {
        let environment = Environment::parse(&self.environment)?;
        let declared = self.declared_concurrency.and_then(|most| usize::try_from(most).ok());
        let max_concurrency = environment.concurrency(declared);
        let concurrency_declared = environment.is_declared(declared);
        let given = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
        Ok(Function {
            key: self.key(),
            revision: self.revision.clone(),
            image: self.digest.clone(),
            runtime: environment.runtime,
            entrypoint: given(&self.image_config.entry_point),
            command: given(&self.image_config.command),
            working_dir: self.image_config.working_directory.clone(),
            env: environment.variables,
            timeout: Duration::from_secs(self.timeout_seconds.into()),
            memory_bytes: self.memory_mib.map(|mib| u64::from(mib) << 20),
            cpu_millis: environment.cpu_millis,
            tmp_bytes: u64::from(self.tmp_mib) << 20,
            max_concurrency,
            concurrency_declared,
            reserved_concurrency: self.reserved_concurrency.and_then(|most| usize::try_from(most).ok()),
            network: environment.network,
            arn: self.arn.clone(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use photon::function::Runtime;

    /// A definition with nothing special about it.
    pub(crate) fn plain(tenant: &str, name: &str) -> Definition {
        Definition {
            version: STORED_VERSION,
            tenant: tenant.into(),
            name: name.into(),
            account: "000000000000".into(),
            arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{name}"),
            role: String::new(),
            description: String::new(),
            image_uri: "app".into(),
            digest: format!("sha256:{}", "0".repeat(64)),
            image_bytes: 7,
            architecture: "x86_64".into(),
            image_config: ImageConfig::default(),
            timeout_seconds: 3,
            memory_mib: None,
            tmp_mib: 512,
            environment: BTreeMap::new(),
            declared_concurrency: None,
            dead_letter: None,
            tags: BTreeMap::new(),
            reserved_concurrency: None,
            event_config: None,
            revision: "r".into(),
            last_modified_ms: 0,
        }
    }

    #[test]
    fn a_function_of_it() {
        let mut definition = plain("local", "app");
        definition.environment =
            BTreeMap::from([("LANTERN_RUNTIME".into(), "java".into()), ("AB".into(), "c".into())]);
        definition.memory_mib = Some(256);
        definition.declared_concurrency = Some(9);
        definition.image_config.command = vec!["pkg.Class".into()];
        let function = definition.function().unwrap();
        assert_eq!(function.runtime, Runtime::Java);
        assert_eq!((function.memory_bytes, function.tmp_bytes), (Some(256 << 20), 512 << 20));
        assert_eq!((function.max_concurrency, function.env.len()), (9, 1));
        assert_eq!(function.command.as_deref(), Some(&["pkg.Class".to_owned()][..]));
        assert_eq!((function.entrypoint, function.image), (None, definition.digest));
    }

    #[test]
    fn what_is_stored_reads_back() {
        let definition = plain("local", "app");
        let bytes = serde_json::to_vec(&definition).unwrap();
        assert_eq!(serde_json::from_slice::<Definition>(&bytes).unwrap(), definition);
    }
}
