//! The Lambda Runtime API (2018-06-01) inside each sandbox, and what Lantern adds to it: a
//! log per invocation and the shared object store (docs/runtimes.md).

mod body;
mod room;
mod server;
mod slots;
pub mod store;

pub use body::{Bodies, BodyError};
pub use room::WorkerRoom;
pub use server::{Api, ApiSettings, Initialisation};
pub use slots::{Answer, AnswerError, OnFree, Progress, Slots, Stop, Task};
