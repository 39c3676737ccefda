//! A sandbox: an OCI bundle on a root file system, run by an OCI runtime, in the foreground
//! ([`run`]) or as one of many that serve functions ([`Running`]).
//!
//! Invariants: a sandbox that ended leaves no process, mount, cgroup or file behind; what a
//! killed worker leaves is found by its name and removed ([`clear_orphans`]); a limit that
//! was asked for is in force or the start fails.

mod bundle;
mod cgroup;
mod network;
mod place;
mod pool;
mod process;
mod run;
mod running;
mod spawn;
mod sys;
mod user;
mod worker;

pub use bundle::{Mount, MountKind, Network, PRIVATE_TMP_HOME, Request};
pub use cgroup::Usage;
pub use network::Bridge;
pub use pool::{LOG_ADDRESS, Pool, PoolSettings, RUNTIME_API, Shell};
pub use process::{Named, Process, Processes};
pub use run::{Outcome, Settings, Signals, clear_orphans, run};
pub use running::{Connector, FUNCTION_USER, Observer, Output, Prepared, Running};
pub use user::Identity;
pub(crate) use worker::{bound as bound_worker, claim_merging};

use std::io;
use std::path::PathBuf;

/// Why a sandbox did not run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The image's configuration is not what it should be.
    #[error("the image's configuration cannot be read; push the image again from a sound source")]
    Config(#[source] serde_json::Error),
    /// Neither the image nor the caller says what to run.
    #[error("the image has no entrypoint and no command; say what to run after --")]
    NoCommand,
    /// The user does not exist in the image.
    #[error("user {user:?}: {reason}")]
    User {
        /// The user as asked for.
        user: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A mount, environment or other request that makes no sense.
    #[error("{0}")]
    Request(String),
    /// The OCI runtime is not installed.
    #[error(
        "OCI runtime {runtime:?} is not on PATH; install it (apt-get install crun) or choose another with --oci-runtime"
    )]
    NoRuntime {
        /// Which runtime.
        runtime: String,
    },
    /// The OCI runtime would not start the sandbox, which is mostly for what it was asked to run.
    #[error("{runtime} refused to start the sandbox: {said}")]
    Refused {
        /// Which runtime.
        runtime: String,
        /// What it wrote to its log.
        said: String,
    },
    /// A system call failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl SandboxError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests;
