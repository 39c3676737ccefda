//! Sealed chunks: whatever bytes verify (here: any, under their own id) open or are refused
//! within the chunk size, and what is sealed opens to itself.

#![no_main]

use bytes::Bytes;
use fuzz::{chunk_key, salt};
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;
use image_format::seal::{Codec, Compression, Opener, Sealer};
use image_format::units::ChunkSize;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let size = ChunkSize::new(ChunkSize::MIN).expect("the smallest size");
    let mut opener = Opener::new();

    let bytes = Bytes::copy_from_slice(bytes);
    let id = ChunkId::of(&bytes);
    let other = ChunkId::of(data);
    assert!(SealedChunk::new(bytes.clone()).verify(&other).is_err());
    for codec in [Codec::Plain, Codec::Zstd] {
        let verified = SealedChunk::new(bytes.clone()).verify(&id).expect("its own id");
        if let Ok(plain) = opener.open(verified, &chunk_key(), codec, size) {
            assert!(plain.held_len() <= size.as_usize());
            let [head, zeros] = plain.slices(0..size.bytes());
            assert_eq!(head.len() + zeros.len(), size.as_usize());
        }
    }

    let plain = &bytes[..bytes.len().min(size.as_usize())];
    let compression = if mode & 1 == 0 { Compression::Off } else { Compression::Zstd(1) };
    let mut sealer = Sealer::new(salt(), compression).expect("a level that exists");
    let Some(sealed) = sealer.seal(plain) else {
        assert!(plain.iter().all(|&byte| byte == 0));
        return;
    };
    // As a frame that a hostile writer encrypts rightly: the payload is the input itself.
    if mode & 2 != 0 {
        let keyed = Sealer::new(salt(), Compression::Off).expect("no level").seal(&bytes);
        let keyed = keyed.expect("more than zeros");
        let _ = opener.open(VerifiedChunk::from(&keyed), &keyed.key, Codec::Zstd, size);
    }
    let opened = opener.open(VerifiedChunk::from(&sealed), &sealed.key, sealed.codec, size);
    let [head, zeros] = opened.expect("just sealed").slices(0..size.bytes());
    assert_eq!(head, plain[..head.len()]);
    assert!(plain[head.len()..].iter().all(|&byte| byte == 0) && zeros.iter().all(|&byte| byte == 0));
});
