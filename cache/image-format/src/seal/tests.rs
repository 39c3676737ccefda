//! Sealing: known answers, round trips, and what must not open.

use super::*;
use crate::chunk::SealedChunk;
use crate::units::CHUNK_SIZE;
use proptest::prelude::*;

fn sealer(compression: Compression) -> Sealer {
    let salt = Salt::derive(&"r1".parse().unwrap(), &[0; 32]);
    Sealer::new(salt, compression).unwrap()
}

fn open(output: &SealedOutput) -> Result<PlainChunk, OpenError> {
    let verified = SealedChunk::new(output.bytes.clone()).verify(&output.id).unwrap();
    Opener::new().open(verified, &output.key, output.codec, CHUNK_SIZE)
}

fn sample() -> Vec<u8> {
    let mut plain: Vec<u8> = (0..CHUNK_SIZE.bytes()).map(|i| u8::try_from(i % 251).unwrap()).collect();
    plain[399_999] = 1;
    plain[400_000..].fill(0);
    plain
}

/// The law of docs/formats.md as bytes: if this fails, the format has changed.
#[test]
fn golden_sealed_chunk() {
    let output = sealer(Compression::Off).seal(&sample()).unwrap();
    assert_eq!(output.bytes.len(), 400_000);
    assert_eq!(hex::encode(&output.bytes[..16]), "105ce232f5c03ffdcf6091f1ec686397");
    assert_eq!(output.id.to_string(), "cc7660dffb759fae5115d657de06c728d8aa35447926013df063a797c77f2c1f");
    assert_eq!(
        hex::encode(output.key.expose()),
        "abba8e3e5b696e7f2a5fcb916e25bbb78a6d493a2cabd9e2135e4c6a6211c771"
    );
}

/// The same computation from first principles, with the primitives called directly.
#[test]
fn sealing_follows_the_formula() {
    let plain = sample();
    let output = sealer(Compression::Off).seal(&plain).unwrap();
    let mut salt = blake3::Hasher::new_derive_key("lantern 2026-11 chunk salt v1");
    salt.update(&[0; 32]).update(b"r1");
    let key = blake3::keyed_hash(salt.finalize().as_bytes(), &plain[..400_000]);
    let mut expected = plain[..400_000].to_vec();
    ChunkCipher::new(key.as_bytes().into(), &[0; 16].into()).apply_keystream(&mut expected);
    assert_eq!(output.bytes, expected);
    assert_eq!(output.id, ChunkId::of(&expected));
}

#[test]
fn zeros_are_not_sealed() {
    assert!(sealer(Compression::Off).seal(&vec![0; CHUNK_SIZE.as_usize()]).is_none());
    assert!(sealer(Compression::Zstd(1)).seal(&[]).is_none());
}

#[test]
fn compression_is_kept_only_where_it_pays() {
    let text = b"all work and no play ".repeat(10_000);
    let output = sealer(Compression::Zstd(1)).seal(&text).unwrap();
    assert_eq!(output.codec, Codec::Zstd);
    assert!(output.bytes.len() < text.len() / 10);
    let mut noise = vec![0; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise.push(1);
    assert_eq!(sealer(Compression::Zstd(1)).seal(&noise).unwrap().codec, Codec::Plain);
}

#[test]
fn salts_separate_domains() {
    let root = "r1".parse().unwrap();
    let mut other = Sealer::new(Salt::derive(&root, &[7; 32]), Compression::Off).unwrap();
    let (a, b) = (sealer(Compression::Off).seal(b"same").unwrap(), other.seal(b"same").unwrap());
    assert_ne!(a.id, b.id);
    assert_ne!(a.key, b.key);
}

#[test]
fn a_payload_that_outgrows_its_chunk_is_refused() {
    let long = vec![1; CHUNK_SIZE.as_usize() + 1];
    let plain = sealer(Compression::Off).seal(&long).unwrap();
    assert!(matches!(open(&plain), Err(OpenError::TooLong { .. })));
    let bomb = sealer(Compression::Zstd(1)).seal(&long).unwrap();
    assert_eq!(bomb.codec, Codec::Zstd);
    assert!(matches!(open(&bomb), Err(OpenError::Decompress { .. })));
}

#[test]
fn secrets_do_not_print() {
    let output = sealer(Compression::Off).seal(b"x").unwrap();
    assert!(format!("{output:?}").contains("<redacted>"));
}

proptest! {
    #[test]
    fn sealed_chunks_open_to_what_they_were(
        mut plain in proptest::collection::vec(any::<u8>(), 1..4096),
        pad in 0usize..1000,
        compress in any::<bool>(),
    ) {
        plain.push(1);
        let wanted = plain.clone();
        plain.resize(plain.len() + pad, 0);
        let output = sealer(if compress { Compression::Zstd(1) } else { Compression::Off }).seal(&plain).unwrap();
        let opened = open(&output).unwrap();
        let [head, _] = opened.slices(0..u32::try_from(plain.len()).unwrap());
        prop_assert_eq!(&head[..], &wanted[..]);
    }

    #[test]
    fn any_flipped_bit_is_noticed(plain in proptest::collection::vec(1u8.., 1..600), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let output = sealer(Compression::Off).seal(&plain).unwrap();
        let mut bytes = output.bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(SealedChunk::new(bytes.into()).verify(&output.id).is_err());
    }
}
