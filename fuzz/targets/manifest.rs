//! Manifests as they come from a store: the clear part, damaged trailers repaired.

#![no_main]

use bytes::Bytes;
use fuzz::{tenant_key, with_trailer};
use image_format::manifest::{DecodeError, SealedManifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::copy_from_slice(data);
    let mut decoded = SealedManifest::decode(bytes.clone());
    if matches!(decoded, Err(DecodeError::Checksum)) {
        bytes = with_trailer(data).expect("longer than its trailer").into();
        decoded = SealedManifest::decode(bytes.clone());
    }
    let Ok(sealed) = decoded else { return };
    let chunks = sealed.head().device_len / u64::from(sealed.head().chunk_size.bytes());
    assert!(sealed.entries().iter().all(|entry| u64::from(entry.index.0) < chunks));
    assert!(sealed.entries().is_sorted_by(|a, b| a.index < b.index));
    // Authentic only as the seed was; then nothing but the fields that later versions may
    // use can differ from what we would write.
    if let Ok(manifest) = sealed.open(&tenant_key()) {
        assert_eq!(manifest.seal(&tenant_key()).len(), bytes.len());
    }
});
