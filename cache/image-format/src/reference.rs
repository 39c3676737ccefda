//! A reference: the object that says which image a name means today. Small, replaced when
//! the name moves, sealed under the tenant's key with its own name as associated data, so
//! that no one can answer one name with another's image. Byte map: docs/formats.md,
//! "Reference".

use crate::envelope::{self, NotAuthentic, TenantKey};
use crate::ids::{ImageDigest, ImageId};
use crate::names::ObjectName;
use crate::wire::{Reader, Short};

const MAGIC: &[u8; 8] = b"LANTERNR";
const VERSION: u16 = 1;
/// Length of every version 1 reference in bytes.
pub const REFERENCE_LEN: usize = 16 + envelope::OVERHEAD + INNER_LEN;
const INNER_LEN: usize = 32 + 32 + 8 + 8 + 4;

/// Which image a name means, with the sizes that a listing shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The manifest to fetch.
    pub image: ImageId,
    /// Digest of the OCI image it was made from.
    pub digest: ImageDigest,
    /// Length of the device in bytes.
    pub device_len: u64,
    /// Bytes of its stored chunks.
    pub stored_bytes: u64,
    /// Number of its stored chunks.
    pub chunk_count: u32,
}

/// Why bytes are not a reference of this tenant under this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a version 1 reference.
    #[error("not a Lantern reference of version 1: truncated, damaged, or written by a later version")]
    Malformed,
    /// The envelope does not open.
    #[error("reference does not open")]
    Envelope(#[from] NotAuthentic),
}

impl From<Short> for ReferenceError {
    fn from(_: Short) -> Self {
        Self::Malformed
    }
}

fn associated(header: &[u8], name: &ObjectName) -> Vec<u8> {
    [header, name.to_string().as_bytes()].concat()
}

impl Reference {
    /// The reference as stored under `name`.
    #[must_use]
    pub fn seal(&self, key: &TenantKey, name: &ObjectName) -> Vec<u8> {
        let mut out = Vec::with_capacity(REFERENCE_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        let mut inner = Vec::with_capacity(INNER_LEN);
        inner.extend_from_slice(self.image.as_bytes());
        inner.extend_from_slice(self.digest.as_bytes());
        inner.extend_from_slice(&self.device_len.to_le_bytes());
        inner.extend_from_slice(&self.stored_bytes.to_le_bytes());
        inner.extend_from_slice(&self.chunk_count.to_le_bytes());
        let sealed = envelope::seal(key, &associated(&out, name), &inner);
        out.extend_from_slice(&sealed);
        out
    }

    /// Reads what [`Self::seal`] stored under `name`.
    ///
    /// # Errors
    /// [`ReferenceError`] for other bytes, another key or another name.
    pub fn open(bytes: &[u8], key: &TenantKey, name: &ObjectName) -> Result<Self, ReferenceError> {
        if bytes.len() != REFERENCE_LEN {
            return Err(ReferenceError::Malformed);
        }
        let (header, sealed) = bytes.split_at(16);
        let mut reader = Reader::new(header);
        if reader.take(8)? != MAGIC || reader.u16()? != VERSION || reader.rest() != [0; 6] {
            return Err(ReferenceError::Malformed);
        }
        let inner = envelope::open(key, &associated(header, name), sealed)?;
        let mut reader = Reader::new(&inner);
        Ok(Self {
            image: ImageId::from_bytes(reader.array()?),
            digest: ImageDigest::from_bytes(reader.array()?),
            device_len: reader.u64()?,
            stored_bytes: reader.u64()?,
            chunk_count: reader.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RootId;

    #[test]
    fn opens_only_under_its_own_name_and_key() {
        let root: RootId = "r1".parse().unwrap();
        let tenant = "local".parse().unwrap();
        let name = |text: &str| ObjectName::reference(&root, &tenant, text).unwrap();
        let key = TenantKey::from_bytes([1; 32]);
        let reference = Reference {
            image: ImageId::from_bytes([2; 32]),
            digest: ImageDigest::from_bytes([3; 32]),
            device_len: 1 << 40,
            stored_bytes: 12_345,
            chunk_count: 77,
        };
        let bytes = reference.seal(&key, &name("python:3.12"));
        assert_eq!(bytes.len(), REFERENCE_LEN);
        assert_eq!(Reference::open(&bytes, &key, &name("python:3.12")).unwrap(), reference);
        assert!(Reference::open(&bytes, &key, &name("python:3.13")).is_err());
        assert!(Reference::open(&bytes, &TenantKey::from_bytes([2; 32]), &name("python:3.12")).is_err());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(Reference::open(&changed, &key, &name("python:3.12")).is_err(), "byte {at}");
            assert!(Reference::open(&bytes[..at], &key, &name("python:3.12")).is_err(), "cut at {at}");
        }
        assert_eq!(
            blake3::hash(&bytes).to_string(),
            "15b1ba1f35158cd3789e4e30a9de685dcacec4897a5042d5b642ff9b1038014e"
        );
    }
}
