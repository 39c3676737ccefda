//! The writer: any OCI image in; sealed chunks and a manifest out; the same bytes every time.

pub mod commands;
pub mod ext4;
pub mod fetch;
pub mod layer;
pub mod oci;
pub mod pipeline;
pub mod progress;
pub mod push;
pub mod report;
pub mod tree;
