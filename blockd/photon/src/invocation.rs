//! An invocation, its reply, and why it may come to nothing.

use crate::function::{Function, FunctionKey};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Name of an invocation: random, so that it cannot be guessed by those who were not given it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// The name of an invocation that was accepted earlier and is run again; `None` if it was
    /// never one.
    #[must_use]
    pub fn of_accepted(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(|id| Self(id.to_string().into()))
    }

    /// As in `Lambda-Runtime-Aws-Request-Id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked of a function.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its name.
    pub request_id: RequestId,
    /// The event, as it came; at most what the front door lets in.
    pub payload: Bytes,
    /// Client context as JSON, if any.
    pub client_context: Option<String>,
    /// `X-Amzn-Trace-Id` of the caller, if any.
    pub trace_id: Option<String>,
}

impl Invocation {
    /// One with nothing but a payload.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { request_id: RequestId::new(), payload: payload.into(), client_context: None, trace_id: None }
    }
}

/// What a function answered, or how it failed. Either way the invocation was billed.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The answer, or the error as JSON (`errorMessage`, `errorType`, perhaps `stackTrace`).
    pub payload: Bytes,
    /// Content type that the runtime gave.
    pub content_type: Option<String>,
    /// `Unhandled` where the function failed; the value of `X-Amz-Function-Error`.
    pub function_error: Option<String>,
    /// The last of what it logged, with the platform's START, END and REPORT lines; at most 4 KiB.
    pub log_tail: Bytes,
    /// From the hand-over to the runtime to the answer.
    pub duration: Duration,
    /// Whether a sandbox was started for it.
    pub cold: bool,
}

/// Why an invocation did not reach a function, or was lost on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// No capacity now: too many invocations, starts, or too little memory. Try again later.
    #[error("{reason}")]
    Throttled {
        /// Which limit, and what to do.
        reason: String,
    },
    /// Its image cannot be had or mounted.
    #[error("the image of function {function} cannot be used: {reason}")]
    Image {
        /// Which function.
        function: FunctionKey,
        /// Why, with advice.
        reason: String,
    },
    /// The sandbox could not be started.
    #[error("a sandbox of function {function} could not be started: {reason}")]
    Sandbox {
        /// Which function.
        function: FunctionKey,
        /// Why.
        reason: String,
    },
    /// The worker is shutting down.
    #[error("this worker is shutting down; ask another")]
    ShuttingDown,
}

/// An error as the Runtime API has it: JSON with `errorType` and `errorMessage`.
#[must_use]
pub fn error_json(kind: &str, message: &str) -> Bytes {
    serde_json::json!({"errorType": kind, "errorMessage": message}).to_string().into()
}

/// How many sandboxes a function has and what they do.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FunctionStats {
    /// Sandboxes that serve.
    pub sandboxes: usize,
    /// Sandboxes that are prepared up to their first instruction.
    pub prepared: usize,
    /// Sandboxes that are starting.
    pub starting: usize,
    /// Sandboxes that end once their invocations have.
    pub draining: usize,
    /// Invocations in sandboxes.
    pub in_flight: usize,
    /// Invocations that wait for one.
    pub waiting: usize,
    /// Most invocations at once in a sandbox, as measured and declared.
    pub concurrency_limit: usize,
    /// Memory of a sandbox without invocations, in bytes, as estimated.
    pub base_bytes: u64,
    /// Memory that one more invocation adds, in bytes, as estimated.
    pub increment_bytes: u64,
    /// CPU time of one invocation in microseconds, as estimated.
    pub cpu_us: u64,
    /// Invocations since the worker started.
    pub invocations: u64,
    /// Those that failed in the function.
    pub errors: u64,
    /// Those that were refused.
    pub throttled: u64,
    /// Sandboxes started.
    pub starts: u64,
    /// Invocations over their deadline.
    pub timeouts: u64,
    /// Sandboxes replaced because an invocation could not be stopped.
    pub quarantined: u64,
    /// Each sandbox.
    pub each: Vec<SandboxStats>,
}

/// One sandbox.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SandboxStats {
    /// Its name on this worker.
    pub id: String,
    /// `starting`, `serving` or `closing`.
    pub state: String,
    /// Invocations in it.
    pub in_flight: usize,
    /// Memory in bytes without file cache, when it was last looked at.
    pub memory_bytes: u64,
    /// From its start to its first `next`, in milliseconds.
    pub start_ms: u64,
    /// Its processes, as this host numbers them.
    pub pids: Vec<i32>,
}

/// Whoever runs invocations: the dispatcher, or a double in tests of the front door.
#[async_trait]
pub trait Invoker: Send + Sync {
    /// Runs an invocation to its end. Cancel-safe: dropped, the invocation goes on and its
    /// answer is thrown away.
    ///
    /// # Errors
    /// [`InvokeError`] where it did not run.
    async fn invoke(&self, function: Arc<Function>, invocation: Invocation) -> Result<Reply, InvokeError>;

    /// Ends the sandboxes of all revisions of a function but `keep`, once their invocations have.
    async fn retire(&self, function: &FunctionKey, keep: Option<&str>);

    /// What a function's sandboxes do; zeros for one that was never invoked.
    fn stats(&self, function: &FunctionKey) -> FunctionStats;

    /// The newest log lines of a function, oldest first, at most `most` bytes.
    fn logs(&self, function: &FunctionKey, most: usize) -> Vec<LogLine>;
}

/// One line that a function or the platform logged.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The invocation, where it is known.
    pub request_id: Option<String>,
    /// The sandbox.
    pub sandbox: String,
    /// Without the line's end; cut at 256 KiB.
    pub text: String,
}
