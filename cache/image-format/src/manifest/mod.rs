//! The manifest: which chunk lies where in an image's device, and, for its tenant only,
//! the keys that open them (ATC'23 section 3.1). Byte map: docs/formats.md, "Manifest".
//!
//! Invariants: entries ascend strictly by index and lie inside the device; there is one
//! key per entry; 72 bytes a chunk on the wire. The clear part suffices to list an image's
//! chunks (garbage collection, verification of a store) without any key.

mod decode;
mod encode;
mod model;

pub use decode::{DecodeError, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, SealedManifest};
pub use model::{Entry, InvalidManifest, Manifest, ManifestHead};

#[cfg(test)]
mod tests;
