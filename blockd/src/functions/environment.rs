//! The environment of a function: AWS's limits on it, and the settings that Lantern reads
//! from it because the Lambda API has no field for them.
//!
//! | variable | values | default |
//! |---|---|---|
//! | `LANTERN_RUNTIME` | `image`, `http`, `python`, `java` | `image` |
//! | `LANTERN_MAX_CONCURRENCY` | 1 to 1024 invocations at once in a sandbox | 1 for `image`, else 64 |
//! | `LANTERN_HTTP_PORT` | 1 to 65535 without 9001 and 9002 | 8080 |
//! | `LANTERN_HTTP_READY_PATH` | a path that answers 200 | a connection is enough |
//! | `LANTERN_PYTHON_FORK` | `slot`, `invocation` | `slot` |
//! | `LANTERN_CPUS` | 0.01 to 1000 | not limited |
//! | `LANTERN_NETWORK` | `none`, `bridge` | `none` |
//!
//! Handlers do not see these. `LANTERN_CLASSPATH`, `LANTERN_STORE_BYTES` and other names that
//! begin with `LANTERN_JAVA_` or `LANTERN_PYTHON_` are for the runtimes and are passed on.

use super::error::ServiceError;
use crate::cpus::cpus;
use photon::function::{FunctionNetwork, Runtime};
use photon::sandbox::{LOG_ADDRESS, RUNTIME_API};
use std::collections::BTreeMap;

/// Most bytes of all names and values together, as on AWS.
const MAX_BYTES: usize = 4096;

/// Most invocations at once in one sandbox that can be asked for.
pub const MAX_CONCURRENCY: usize = 1024;

/// Where one's own runtimes and HTTP images have no limit of their own; measurement sets a
/// lower one.
const DEFAULT_CONCURRENCY: usize = 64;

const DEFAULT_HTTP_PORT: u16 = 8080;
/// Where the worker listens inside a sandbox.
const WORKER_PORTS: [u16; 2] = [RUNTIME_API.port(), LOG_ADDRESS.port()];

/// What the worker sets itself, and what AWS keeps for itself.
const RESERVED: [&str; 20] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "LANTERN_LOG_ADDRESS",
];

/// Beginnings of names that are for our runtimes inside the sandbox.
const PASSED_ON: [&str; 4] = ["LANTERN_JAVA_", "LANTERN_PYTHON_", "LANTERN_CLASSPATH", "LANTERN_STORE_BYTES"];

const SETTINGS: [&str; 7] = [
    "LANTERN_RUNTIME",
    "LANTERN_MAX_CONCURRENCY",
    "LANTERN_HTTP_PORT",
    "LANTERN_HTTP_READY_PATH",
    "LANTERN_PYTHON_FORK",
    "LANTERN_CPUS",
    "LANTERN_NETWORK",
];

/// What the variables of a function mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// What the handler sees.
    pub variables: BTreeMap<String, String>,
    /// What runs it.
    pub runtime: Runtime,
    /// Most invocations at once in one sandbox, if the variables say.
    pub max_concurrency: Option<usize>,
    /// Most CPU, in thousandths.
    pub cpu_millis: Option<u64>,
    /// Network.
    pub network: FunctionNetwork,
}

impl Environment {
    /// Checks the variables and takes out Lantern's own.
    ///
    /// # Errors
    /// [`ServiceError`] names the variable and what it may be.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, ServiceError> {
        check_names(given)?;
        let setting = |name: &str| given.get(name).map(String::as_str);
        let max_concurrency = setting("LANTERN_MAX_CONCURRENCY").map(concurrency).transpose()?;
        let cpu_millis = setting("LANTERN_CPUS")
            .map(|text| cpus(text).map_err(|why| ServiceError::invalid(format!("LANTERN_CPUS: {why}"))))
            .transpose()?;
        let network = match setting("LANTERN_NETWORK") {
            None | Some("none") => FunctionNetwork::None,
            Some("bridge") => FunctionNetwork::Bridge,
            Some(other) => return Err(refused("LANTERN_NETWORK", other, "none or bridge")),
        };
        let variables = given.iter().filter(|(name, _)| !SETTINGS.contains(&name.as_str()));
        Ok(Self {
            variables: variables.map(|(name, value)| (name.clone(), value.clone())).collect(),
            runtime: runtime(setting)?,
            max_concurrency,
            cpu_millis,
            network,
        })
    }

    /// Most invocations at once in one sandbox: by variable, as declared elsewhere, or what
    /// suits the runtime.
    #[must_use]
    pub fn concurrency(&self, declared: Option<usize>) -> usize {
        self.max_concurrency.or(declared).unwrap_or(match self.runtime {
            Runtime::Image => 1,
            _ => DEFAULT_CONCURRENCY,
        })
    }
}

impl Environment {
    /// Whether somebody vouches for that number: its owner, or the nature of a runtime that
    /// takes one invocation after the other.
    #[must_use]
    pub fn is_declared(&self, declared: Option<usize>) -> bool {
        self.max_concurrency.or(declared).is_some() || self.runtime == Runtime::Image
    }
}

fn refused(name: &str, value: &str, may_be: &str) -> ServiceError {
    ServiceError::invalid(format!("environment variable {name} is {value:?}; it may be {may_be}"))
}

fn concurrency(text: &str) -> Result<usize, ServiceError> {
    let number = text.parse().ok().filter(|number| (1..=MAX_CONCURRENCY).contains(number));
    number.ok_or_else(|| refused("LANTERN_MAX_CONCURRENCY", text, "1 to 1024"))
}

fn runtime<'a>(setting: impl Fn(&str) -> Option<&'a str>) -> Result<Runtime, ServiceError> {
    let runtime = match setting("LANTERN_RUNTIME") {
        None | Some("image") => Runtime::Image,
        Some("java") => Runtime::Java,
        Some("http") => Runtime::Http { port: port(setting("LANTERN_HTTP_PORT"))?, ready_path: None },
        Some("python") => Runtime::Python { fork_per_invocation: false },
        Some(other) => return Err(refused("LANTERN_RUNTIME", other, "image, http, python or java")),
    };
    let for_http = matches!(runtime, Runtime::Http { .. });
    for name in ["LANTERN_HTTP_PORT", "LANTERN_HTTP_READY_PATH"] {
        if !for_http && setting(name).is_some() {
            return Err(ServiceError::invalid(format!("{name} is for LANTERN_RUNTIME=http; set that too")));
        }
    }
    Ok(match (runtime, setting("LANTERN_HTTP_READY_PATH"), setting("LANTERN_PYTHON_FORK")) {
        (Runtime::Http { port, .. }, Some(path), None) => {
            let fits = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
            if !fits {
                return Err(refused("LANTERN_HTTP_READY_PATH", path, "a path such as /ready"));
            }
            Runtime::Http { port, ready_path: Some(path.into()) }
        }
        (Runtime::Python { .. }, None, Some("invocation")) => Runtime::Python { fork_per_invocation: true },
        (runtime @ Runtime::Python { .. }, None, Some("slot")) => runtime,
        (Runtime::Python { .. }, _, Some(other)) => {
            return Err(refused("LANTERN_PYTHON_FORK", other, "slot or invocation"));
        }
        (_, _, Some(_)) => {
            return Err(ServiceError::invalid(
                "LANTERN_PYTHON_FORK is for LANTERN_RUNTIME=python; set that too",
            ));
        }
        (runtime, _, None) => runtime,
    })
}

fn port(text: Option<&str>) -> Result<u16, ServiceError> {
    let Some(text) = text else { return Ok(DEFAULT_HTTP_PORT) };
    let port = text.parse().ok().filter(|&port: &u16| port > 0);
    let port = port.ok_or_else(|| refused("LANTERN_HTTP_PORT", text, "1 to 65535"))?;
    if WORKER_PORTS.contains(&port) {
        return Err(ServiceError::invalid(format!(
            "environment variable LANTERN_HTTP_PORT is \"{port}\": ports {} and {} of a sandbox are the worker's; \
             choose another",
            WORKER_PORTS[0], WORKER_PORTS[1]
        )));
    }
    Ok(port)
}

fn check_names(given: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_BYTES {
        return Err(ServiceError::invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you \
             have provided exceeded the {MAX_BYTES} bytes limit; they have {bytes} bytes"
        )));
    }
    for (name, value) in given {
        let plain = name.len() >= 2
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if RESERVED.contains(&name.as_str()) {
            return Err(ServiceError::invalid(format!(
                "Lambda was unable to configure your environment variables because the environment variables \
                 you have provided contains reserved keys that are currently not supported for modification. \
                 Reserved keys used in this request: {name}"
            )));
        }
        if !plain || value.contains('\0') {
            return Err(ServiceError::invalid(format!(
                "environment variable {name:?}: names are a letter and then letters, digits and _, at least \
                 two in all; values have no NUL"
            )));
        }
        let passed_on = PASSED_ON.iter().any(|start| name.starts_with(start));
        if name.starts_with("LANTERN_") && !passed_on && !SETTINGS.contains(&name.as_str()) {
            return Err(ServiceError::invalid(format!(
                "{name} is no setting of a function; there are {}",
                SETTINGS.join(", ")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Environment, String> {
        let pairs = text.split(' ').filter(|word| !word.is_empty()).map(|word| word.split_once('=').unwrap());
        let given = pairs.map(|(name, value)| (name.into(), value.into())).collect();
        Environment::parse(&given).map_err(|error| error.message)
    }

    #[test]
    fn settings_are_taken_out() {
        let none = parse("HOME_DIR=/x LANTERN_JAVA_EXCLUDE=a").unwrap();
        assert_eq!(none.runtime, Runtime::Image);
        assert_eq!((none.concurrency(None), none.concurrency(Some(7))), (1, 7));
        assert_eq!(none.variables.len(), 2);
        let http =
            "LANTERN_RUNTIME=http LANTERN_HTTP_PORT=80 LANTERN_HTTP_READY_PATH=/up LANTERN_CPUS=0.5 AB=c";
        let http = parse(http).unwrap();
        assert_eq!(http.runtime, Runtime::Http { port: 80, ready_path: Some("/up".into()) });
        assert_eq!((http.concurrency(None), http.cpu_millis, http.variables.len()), (64, Some(500), 1));
        let python = "LANTERN_RUNTIME=python LANTERN_PYTHON_FORK=invocation LANTERN_NETWORK=bridge";
        let python = parse(&format!("{python} LANTERN_MAX_CONCURRENCY=1024")).unwrap();
        assert_eq!(python.runtime, Runtime::Python { fork_per_invocation: true });
        assert_eq!((python.concurrency(Some(1)), python.network), (1024, FunctionNetwork::Bridge));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("AWS_REGION=x", "AWS_REGION"),
            ("LANTERN_LOG_ADDRESS=x", "LANTERN_LOG_ADDRESS"),
            ("LANTERN_RUNTIM=http", "LANTERN_RUNTIM"),
            ("LANTERN_RUNTIME=ruby", "python"),
            ("LANTERN_MAX_CONCURRENCY=0", "1 to 1024"),
            ("LANTERN_MAX_CONCURRENCY=1025", "1 to 1024"),
            ("LANTERN_HTTP_PORT=80", "LANTERN_RUNTIME=http"),
            ("LANTERN_RUNTIME=http LANTERN_HTTP_PORT=0", "65535"),
            ("LANTERN_RUNTIME=http LANTERN_HTTP_PORT=9001", "choose another"),
            ("LANTERN_RUNTIME=http LANTERN_HTTP_PORT=9002", "choose another"),
            ("LANTERN_RUNTIME=http LANTERN_HTTP_READY_PATH=up", "path"),
            ("LANTERN_PYTHON_FORK=slot", "LANTERN_RUNTIME=python"),
            ("LANTERN_RUNTIME=python LANTERN_PYTHON_FORK=thread", "slot or invocation"),
            ("LANTERN_CPUS=0", "LANTERN_CPUS"),
            ("LANTERN_NETWORK=host", "bridge"),
            ("1A=x", "1A"),
            ("A=x", "at least"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        let long = format!("AB={}", "x".repeat(4095));
        assert!(parse(&long).unwrap_err().contains("4096"));
        assert!(parse(&long[..long.len() - 1]).is_ok());
    }
}
