//! Sandboxes: one image's command in isolation, on a root file system that somebody else
//! provides. Knows OCI runtimes and the kernel's limits; knows nothing of chunks.

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
