//! The writer: any OCI image in; sealed chunks and a manifest out; the same bytes every time.

pub mod ext4;
pub mod layer;
pub mod oci;
pub mod tree;
