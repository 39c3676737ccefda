//! Manifests: golden bytes, round trips, truncation, bit flips, wrong keys.

use super::*;
use crate::envelope::TenantKey;
use crate::ids::ChunkId;
use crate::seal::{ChunkKey, Codec};
use crate::units::{CHUNK_SIZE, ChunkIndex};
use bytes::Bytes;
use proptest::prelude::*;

fn key() -> TenantKey {
    TenantKey::from_bytes([9; 32])
}

fn manifest(indices: &[u32], config: &[u8]) -> Manifest {
    let head = ManifestHead {
        image: format!("sha256:{}", "cd".repeat(32)).parse().unwrap(),
        layout_policy: 1,
        chunk_size: CHUNK_SIZE,
        device_len: 1000 * u64::from(CHUNK_SIZE.bytes()),
        root: "r1".parse().unwrap(),
        tenant: "local".parse().unwrap(),
    };
    let entry = |&index: &u32| Entry {
        index: ChunkIndex(index),
        id: ChunkId::of(&index.to_le_bytes()),
        stored_len: index + 1,
        codec: if index % 2 == 0 { Codec::Zstd } else { Codec::Plain },
    };
    let keys = indices.iter().map(|_| ChunkKey::from_bytes([3; 32])).collect();
    Manifest::new(head, indices.iter().map(entry).collect(), keys, config.to_vec()).unwrap()
}

#[test]
fn golden_manifest() {
    let bytes = manifest(&[0, 1, 7, 999], b"{}").seal(&key());
    assert_eq!(bytes.len(), 256 + 4 * 40 + (32 + 4 * 32 + 2 + 16) + 32);
    assert_eq!(hex::encode(&bytes[..32]), "4c414e5445524e4d010001000000080000000000000000000000401f00000000");
    assert_eq!(
        blake3::hash(&bytes).to_string(),
        "645354b1cf56607798328ea13a02d06a7eab2d9a2c71697867e3fd154ff18070"
    );
}

#[test]
fn size_stays_within_the_promise() {
    let indices: Vec<u32> = (0..1000).collect();
    let bytes = manifest(&indices, b"").seal(&key());
    assert!(bytes.len() <= 96 * 1000, "{} bytes for 1000 chunks", bytes.len());
}

#[test]
fn another_tenants_key_opens_nothing() {
    let sealed = SealedManifest::decode(manifest(&[1], b"{}").seal(&key()).into()).unwrap();
    let error = sealed.open(&TenantKey::from_bytes([8; 32])).unwrap_err();
    assert!(matches!(error, DecodeError::Envelope { .. }));
}

/// The checksum is no authenticity: a forger can compute it. The envelope notices.
#[test]
fn a_forged_clear_part_does_not_open() {
    let mut bytes = manifest(&[1, 2], b"{}").seal(&key());
    bytes[256 + 8] ^= 1;
    let end = bytes.len() - 32;
    let trailer = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(trailer.as_bytes());
    let sealed = SealedManifest::decode(bytes.into()).unwrap();
    assert!(matches!(sealed.open(&key()), Err(DecodeError::Envelope { .. })));
}

#[test]
fn a_promise_of_more_chunks_than_bytes_is_refused_before_allocating() {
    let mut bytes = manifest(&[1], b"{}").seal(&key());
    bytes[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(SealedManifest::decode(bytes.into()), Err(DecodeError::Length { .. })));
}

#[test]
fn impossible_parts_are_refused() {
    let good = manifest(&[1, 2], b"");
    let (head, entries) = (good.head().clone(), good.entries().to_vec());
    let key = || ChunkKey::from_bytes([0; 32]);
    let mut swapped = entries.clone();
    swapped.swap(0, 1);
    assert!(matches!(
        Manifest::new(head.clone(), swapped, vec![key(), key()], vec![]),
        Err(InvalidManifest::Index { position: 1, .. })
    ));
    assert!(matches!(
        Manifest::new(head.clone(), entries.clone(), vec![key()], vec![]),
        Err(InvalidManifest::KeyCount { keys: 1, entries: 2 })
    ));
    let mut long = entries.clone();
    long[0].stored_len = CHUNK_SIZE.bytes() + 1;
    assert!(matches!(
        Manifest::new(head.clone(), long, vec![key(), key()], vec![]),
        Err(InvalidManifest::StoredLength { position: 0, .. })
    ));
    let short = ManifestHead { device_len: 1, ..head };
    assert!(matches!(
        Manifest::new(short, entries, vec![key(), key()], vec![]),
        Err(InvalidManifest::DeviceLength(1))
    ));
}

proptest! {
    #[test]
    fn round_trip(indices in proptest::collection::btree_set(0u32..1000, 0..50), config in proptest::collection::vec(any::<u8>(), 0..100)) {
        let indices: Vec<u32> = indices.into_iter().collect();
        let original = manifest(&indices, &config);
        let sealed = SealedManifest::decode(original.seal(&key()).into()).unwrap();
        prop_assert_eq!(sealed.entries(), original.entries());
        let opened = sealed.open(&key()).unwrap();
        prop_assert_eq!(opened.head(), original.head());
        prop_assert_eq!(opened.entries(), original.entries());
        prop_assert_eq!(opened.config(), original.config());
        for (position, &index) in indices.iter().enumerate() {
            prop_assert_eq!(opened.position(ChunkIndex(index)), Some(position));
            prop_assert_eq!(opened.key(position), original.key(position));
        }
    }

    #[test]
    fn damage_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let bytes = manifest(&[1, 5, 9], b"{\"x\":1}").seal(&key());
        let at = at.index(bytes.len());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        let whole = SealedManifest::decode(flipped.into()).and_then(|sealed| sealed.open(&key()));
        prop_assert!(whole.is_err());
        prop_assert!(SealedManifest::decode(Bytes::copy_from_slice(&bytes[..at])).is_err());
    }

    #[test]
    fn any_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), header in any::<bool>()) {
        let mut bytes = bytes;
        if header {
            bytes.splice(0..0, *b"LANTERNM\x01\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00");
        }
        prop_assert!(SealedManifest::decode(bytes.into()).is_err());
    }
}
