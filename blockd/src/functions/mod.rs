//! Functions on this worker: what is stored of them, who may change it, and how invocations
//! reach whoever runs them. The doors (`api/lambda`, the control socket) only translate.
//!
//! Invariants: what was answered with success is on disk first (definitions, accepted
//! events); the way of an invocation touches no disk; whatever a caller can make grow has a
//! limit in [`settings::ServiceSettings`].

pub mod dead_letters;
pub mod definition;
pub mod destination;
pub mod environment;
pub mod error;
pub mod images;
pub mod input;
pub mod name;
pub mod queue;
mod record;
pub mod registry;
mod retry;
mod runner;
pub mod service;
pub mod settings;
pub mod store;
pub mod time;

pub use error::{ErrorCode, ServiceError};
pub use service::{Caller, Service};
pub use settings::ServiceSettings;
