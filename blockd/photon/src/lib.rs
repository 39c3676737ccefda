//! Sandboxes and photons: an image's command in isolation, on a root file system that somebody
//! else provides, and many invocations of a function in one of them. Knows OCI runtimes, the
//! kernel's limits and the Lambda Runtime API; knows nothing of chunks, or of who may invoke what.

pub mod dispatch;
pub mod function;
pub mod http_mode;
pub mod image_config;
pub mod invocation;
pub mod launch;
pub mod logs;
pub mod policy;
pub mod rootfs;
pub mod runtime_api;
pub mod runtimes;
pub mod sandbox;
