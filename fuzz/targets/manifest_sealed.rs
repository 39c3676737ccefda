//! Manifests that are authentic: the input's clear part with its length fields and envelope
//! made right, as a tenant that seals nonsense would. What opens is written back alike.

#![no_main]

use bytes::Bytes;
use fuzz::tenant_key;
use image_format::envelope;
use image_format::manifest::SealedManifest;
use libfuzzer_sys::fuzz_target;

const HEADER_LEN: usize = 256;
const ENTRY_LEN: usize = 40;
/// Offsets in the header, docs/formats.md.
const COMPATIBLE: std::ops::Range<usize> = 20..24;
const COUNT: std::ops::Range<usize> = 64..68;
const SEALED_LEN: std::ops::Range<usize> = 68..72;
const SPARE: usize = 75;

fuzz_target!(|data: &[u8]| {
    // The first byte says how many entries; what follows them is sealed.
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((clear, inner)) = rest.split_at_checked(HEADER_LEN + usize::from(count) * ENTRY_LEN) else {
        return;
    };
    let mut bytes = clear.to_vec();
    bytes[COUNT].copy_from_slice(&u32::from(count).to_le_bytes());
    let sealed_len = u32::try_from(inner.len() + envelope::OVERHEAD).expect("inputs are short");
    bytes[SEALED_LEN].copy_from_slice(&sealed_len.to_le_bytes());
    let sealed = envelope::seal(&tenant_key(), &bytes, inner);
    bytes.extend_from_slice(&sealed);
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());

    let Ok(sealed) = SealedManifest::decode(Bytes::from(bytes.clone())) else { return };
    let Ok(manifest) = sealed.open(&tenant_key()) else { return };
    assert_eq!(manifest.entries().len(), usize::from(count));
    assert_eq!(manifest.config(), &inner[usize::from(count) * 32..]);
    for (position, entry) in manifest.entries().iter().enumerate() {
        assert_eq!(manifest.position(entry.index), Some(position));
    }
    let again = manifest.seal(&tenant_key());
    // Two fields are for later versions, which may fill what version 1 leaves zero.
    if bytes[COMPATIBLE] == [0; 4] && bytes[SPARE] == 0 {
        assert_eq!(again, bytes);
    }
    let reopened = SealedManifest::decode(again.into()).and_then(|sealed| sealed.open(&tenant_key()));
    let reopened = reopened.expect("what was sealed opens");
    assert_eq!((reopened.head(), reopened.entries()), (manifest.head(), manifest.entries()));
    assert_eq!(reopened.config(), manifest.config());
});
