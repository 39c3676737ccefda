//! Sandboxes: one image's command in isolation, on a root file system that somebody else
//! provides. Knows OCI runtimes and the kernel's limits; knows nothing of chunks.

pub mod function;
pub mod image_config;
pub mod invocation;
pub mod logs;
pub mod rootfs;
pub mod runtime_api;
pub mod sandbox;
