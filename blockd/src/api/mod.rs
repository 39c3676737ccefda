//! The control socket: HTTP with JSON on a Unix socket that only its owner may use.
//!
//! | call | meaning |
//! |---|---|
//! | `POST /v1/instances` | open; with `"lease": true` the instance ends with the connection |
//! | `GET /v1/instances` | list |
//! | `GET /v1/instances/{id}` | one, by id |
//! | `POST /v1/instances/{id}/started` | end the start of an instance opened as starting |
//! | `DELETE /v1/instances?target=…` | close, by id or by where it is mounted |
//! | `GET /v1/status` | tiers, counters, latencies |
//! | `GET /metrics` | the same for Prometheus |
//! | `… /v1/lambda/…` | the Lambda API of the tenant in header `Lantern-Tenant` |
//! | `GET /v1/functions/{name}/logs?bytes=…` | the newest log lines of a function |
//! | `GET /v1/functions/{name}/stats` | what its sandboxes do |
//! | `GET /v1/dead-letters?after=…` | the tenant's oldest dead letters, from the first id after that one on |
//! | `POST /v1/dead-letters/remove` | remove those with these ids |

pub mod access_keys;
mod client;
mod control;
mod function_socket;
pub mod lambda;
mod prometheus;
pub mod sigv4;
pub mod status;

pub use client::{Client, Lease};
pub use control::serve;
pub use function_socket::{DEFAULT_TENANT, Ids, ShownLetter, ShownStats, TENANT_HEADER, function_routes};

use crate::worker::OpenRequest;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/instances`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenBody {
    /// What to open.
    pub open: OpenRequest,
    /// Whether the instance ends with the connection that opened it.
    pub lease: bool,
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong and what to do, causes included.
    pub error: String,
    /// Exit code of a command that ends with this error.
    pub exit_code: u8,
}

/// Longest body that either side reads, in bytes: image configurations are at most 8 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;
