//! Manifest to bytes. The layout is specified in docs/formats.md, "Manifest", version 1.

use super::model::Manifest;
use crate::envelope::{self, TenantKey};
use crate::seal::{CIPHER_AES256_CTR, HASH_BLAKE3};
use crate::wire::put_label;
use zeroize::Zeroizing;

pub(super) const MAGIC: &[u8; 8] = b"LANTERNM";
pub(super) const VERSION: u16 = 1;
pub(super) const ENVELOPE_SYNTHETIC_GCM: u8 = 1;
pub(super) const HEADER_LEN: usize = 256;
pub(super) const ENTRY_LEN: usize = 40;
pub(super) const TRAILER_LEN: usize = 32;

impl Manifest {
    /// The manifest as stored: clear part, envelope under the tenant's key, trailer.
    /// Equal manifests and keys give equal bytes.
    #[must_use]
    pub fn seal(&self, key: &TenantKey) -> Vec<u8> {
        let inner = self.inner();
        let mut out = self.clear(inner.len() + envelope::OVERHEAD);
        let sealed = envelope::seal(key, &out, &inner);
        out.extend_from_slice(&sealed);
        let trailer = blake3::hash(&out);
        out.extend_from_slice(trailer.as_bytes());
        out
    }

    fn inner(&self) -> Zeroizing<Vec<u8>> {
        let mut inner = Zeroizing::new(Vec::with_capacity(self.keys().len() * 32 + self.config().len()));
        for key in self.keys() {
            inner.extend_from_slice(key.expose());
        }
        inner.extend_from_slice(self.config());
        inner
    }

    fn clear(&self, sealed_len: usize) -> Vec<u8> {
        let head = self.head();
        let count = u32::try_from(self.entries().len()).expect("indices are u32 and unique");
        let sealed_len = u32::try_from(sealed_len).expect("keys and config are bounded below 4 GiB");
        let mut out = Vec::with_capacity(HEADER_LEN + self.entries().len() * ENTRY_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&head.layout_policy.to_le_bytes());
        out.extend_from_slice(&head.chunk_size.bytes().to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes()); // incompatible features
        out.extend_from_slice(&0_u32.to_le_bytes()); // compatible features
        out.extend_from_slice(&head.device_len.to_le_bytes());
        out.extend_from_slice(head.image.as_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&sealed_len.to_le_bytes());
        out.extend_from_slice(&[HASH_BLAKE3, CIPHER_AES256_CTR, ENVELOPE_SYNTHETIC_GCM, 0]);
        put_label(&mut out, head.root.as_str());
        put_label(&mut out, head.tenant.as_str());
        out.resize(HEADER_LEN, 0);
        for entry in self.entries() {
            out.extend_from_slice(&entry.index.0.to_le_bytes());
            let tagged = entry.stored_len | u32::from(entry.codec.to_wire()) << 24;
            out.extend_from_slice(&tagged.to_le_bytes());
            out.extend_from_slice(entry.id.as_bytes());
        }
        out
    }
}
