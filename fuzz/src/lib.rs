//! What the fuzz targets and the seed generator share: fixed keys, and repairs of the
//! checksums that would otherwise keep a fuzzer outside the decoders.
//!
//! Invariant: everything is a function of its arguments, so a crashing input crashes again.

pub mod files;
pub mod filesystems;
pub mod images;
pub mod layers;
pub mod tar;
pub mod trees;

use image_format::envelope::TenantKey;
use image_format::ids::{RootId, TenantId};
use image_format::names::ObjectName;
use image_format::seal::{ChunkKey, Salt};

/// Bytes of a BLAKE3 trailer.
const TRAILER_LEN: usize = 32;

/// The tenant key of every seed and target.
#[must_use]
pub fn tenant_key() -> TenantKey {
    TenantKey::from_bytes([7; 32])
}

/// A chunk key; chunks sealed by [`salt`] have others.
#[must_use]
pub fn chunk_key() -> ChunkKey {
    ChunkKey::from_bytes([9; 32])
}

/// The root of every seed.
///
/// # Panics
/// Never: the label is valid.
#[must_use]
pub fn root() -> RootId {
    "r1".parse().expect("a valid label")
}

/// The tenant of every seed.
///
/// # Panics
/// Never: the label is valid.
#[must_use]
pub fn tenant() -> TenantId {
    "local".parse().expect("a valid label")
}

/// The dedup domain of every seed.
#[must_use]
pub fn salt() -> Salt {
    Salt::derive(&root(), &[0; 32])
}

/// The name that references of seeds are sealed under.
///
/// # Panics
/// Never: the name is valid.
#[must_use]
pub fn reference_name() -> ObjectName {
    ObjectName::reference(&root(), &tenant(), "docker.io/library/app:1").expect("a valid name")
}

/// The same bytes with their last 32 replaced by the BLAKE3 hash of what is before; `None`
/// if there are fewer.
#[must_use]
pub fn with_trailer(bytes: &[u8]) -> Option<Vec<u8>> {
    let body = &bytes[..bytes.len().checked_sub(TRAILER_LEN)?];
    Some([body, blake3::hash(body).as_bytes()].concat())
}
