//! What a function is to this worker: whose it is, what runs it, and its limits.
//!
//! Invariant: a [`Function`] never changes. A new configuration is a new value with a new
//! revision, and a sandbox runs one revision of one function of one tenant for all its life.

use std::collections::BTreeMap;
use std::time::Duration;

/// Identity of a function on a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionKey {
    /// Whose it is.
    pub tenant: String,
    /// Its name, unique for the tenant.
    pub name: String,
}

impl std::fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// How the processes of a sandbox come to their invocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// The image's own entrypoint speaks the Lambda Runtime API.
    Image,
    /// The image serves HTTP; invocations are requests to it.
    Http {
        /// Where it listens, on loopback.
        port: u16,
        /// Path that answers 200 once it is ready; without one, a connection is enough.
        ready_path: Option<String>,
    },
    /// Our Python runtime: the handler is imported once, photons are forks of that process.
    Python {
        /// Whether a photon ends with its invocation instead of taking the next one.
        fork_per_invocation: bool,
    },
    /// Our Java runtime: photons are threads with static fields of their own.
    Java,
}

/// What network a function's sandboxes have besides the Runtime API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FunctionNetwork {
    /// Nothing else.
    #[default]
    None,
    /// The worker's bridge: out, but neither to nor from other sandboxes.
    Bridge,
}

/// One revision of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Whose it is and its name.
    pub key: FunctionKey,
    /// Which revision; unique.
    pub revision: String,
    /// The image, by digest or name.
    pub image: String,
    /// What runs it.
    pub runtime: Runtime,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; with our own runtimes, its first word is the handler.
    pub command: Option<Vec<String>>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Environment variables over the image's.
    pub env: BTreeMap<String, String>,
    /// Longest invocation.
    pub timeout: Duration,
    /// Most memory of a sandbox, in bytes, where the owner declared one.
    pub memory_bytes: Option<u64>,
    /// Most CPU of a sandbox, in thousandths of a CPU, where the owner declared it.
    pub cpu_millis: Option<u64>,
    /// Most bytes below a sandbox's `/tmp`.
    pub tmp_bytes: u64,
    /// Most invocations at once in one sandbox. What measurement allows may be less.
    pub max_concurrency: usize,
    /// Whether the owner declared that; else fewer are tried first.
    pub concurrency_declared: bool,
    /// Most invocations at once in all sandboxes, where the owner limits them.
    pub reserved_concurrency: Option<usize>,
    /// Network.
    pub network: FunctionNetwork,
    /// ARN told to the handler.
    pub arn: String,
}
