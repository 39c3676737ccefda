//! Compressions, digests and limits.

use super::support::*;
use crate::layer::entry::*;
use crate::layer::*;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// Contents that do not compress to nothing and span several buffers.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn every_compression() {
    let file = noise(1 << 20);
    let archive = Tar::default().file(b"f", &file).end();
    let (one, two) = archive.split_at(700_001);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
    for (case, blob) in [
        ("plain", archive.clone()),
        ("gzip", gzip(&archive)),
        ("gzip of several members", [gzip(one), gzip(b""), gzip(two)].concat()),
        ("zstd", zstd(&archive)),
        ("zstd of several frames", [zstd(one), skippable.clone(), zstd(two)].concat()),
        ("zstd after a skippable frame", [skippable, zstd(&archive)].concat()),
    ] {
        let seen = AtomicU64::new(0);
        let budget = Budget::new(Limits::default());
        let progress = |bytes| {
            seen.fetch_add(bytes, Ordering::Relaxed);
        };
        let descriptor = descriptor(&blob, &archive);
        let dir = std::env::temp_dir();
        let read = read_layer(LayerIndex(0), &descriptor, &blob[..], &budget, &dir, &progress);
        let (layer, spool) = read.unwrap_or_else(|error| panic!("{case}: {error}"));
        let EntryKind::File(content) = &layer.entries[0].kind else { panic!("{case}") };
        assert!(contents(&spool, content) == file, "{case}");
        assert_eq!(seen.into_inner(), blob.len() as u64, "{case}");
    }
}

#[test]
fn an_empty_layer_has_no_entries() {
    let empty_tar = Tar::default().end();
    for archive in [Vec::new(), empty_tar] {
        for blob in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
            let (layer, _) = read_blob(&blob, &descriptor(&blob, &archive), Limits::default()).unwrap();
            assert!(layer.entries.is_empty());
        }
    }
}

#[test]
fn blobs_that_are_not_what_the_manifest_says() {
    let archive = Tar::default().file(b"f", b"hello").end();
    let blob = gzip(&archive);
    let good = descriptor(&blob, &archive);
    let mut flipped = blob.clone();
    flipped[20] ^= 1;
    let garbage = [&blob[..], b"garbage"].concat();
    let bzip2 = b"BZh91AY&SY............".to_vec();
    let xz = b"\xfd7zXZ\0..............".to_vec();
    for (case, blob, descriptor, kind, text) in [
        ("flipped bit", flipped, good.clone(), ErrorKind::Corrupt, "the blob's digest is"),
        ("cut", blob[..blob.len() - 1].to_vec(), good.clone(), ErrorKind::Corrupt, "the manifest promises"),
        ("longer", garbage.clone(), good.clone(), ErrorKind::Corrupt, "the manifest promises"),
        ("empty", Vec::new(), good.clone(), ErrorKind::Corrupt, "the manifest promises"),
        ("garbage", garbage.clone(), descriptor(&garbage, &archive), ErrorKind::Corrupt, "the gzip stream"),
        (
            "cut gzip",
            blob[..50].to_vec(),
            descriptor(&blob[..50], &archive),
            ErrorKind::Corrupt,
            "the gzip stream",
        ),
        (
            "wrong diff id",
            blob.clone(),
            LayerDescriptor { diff_id: Digest::of(b""), ..good.clone() },
            ErrorKind::Corrupt,
            "the image config says",
        ),
        ("bzip2", bzip2.clone(), descriptor(&bzip2, b""), ErrorKind::Invalid, "bzip2"),
        ("xz", xz.clone(), descriptor(&xz, b""), ErrorKind::Invalid, "xz"),
    ] {
        let error = read_blob(&blob, &descriptor, Limits::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{case}: {error}");
        assert!(error.to_string().contains(text), "{case}: {error}");
    }
}

/// A source that fails after some bytes.
struct Broken<'b>(&'b [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::ConnectionReset.into()) } else { self.0.read(buf) }
    }
}

#[test]
fn a_source_that_fails_is_told_from_a_bad_blob() {
    let archive = Tar::default().file(b"f", &[1; 5000]).end();
    for blob in [archive.clone(), gzip(&archive)] {
        let descriptor = descriptor(&blob, &archive);
        let budget = Budget::new(Limits::default());
        let dir = std::env::temp_dir();
        let broken = Broken(&blob[..blob.len() / 2]);
        let error = read_layer(LayerIndex(0), &descriptor, broken, &budget, &dir, &|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn limits_stop_bombs_early() {
    let zeros = vec![0; 64 << 20];
    let bomb = gzip(&zeros);
    let noisy: Vec<u8> = [[0; 4096], [1; 4096]].concat().repeat(20);
    let many = (0..20).fold(Tar::default(), |tar, _| tar.file(b"f", b"")).end();
    let heavy = (0..10)
        .fold(Tar::default(), |tar, _| tar.pax(&[("SCHILY.xattr.user.x", &[b'x'; 1000])]).file(b"f", b""));
    let heavy = heavy.end();
    let unlimited = Limits::default();
    for (case, blob, archive, limits, setting) in [
        (
            "bytes",
            bomb.clone(),
            zeros,
            Limits { uncompressed_bytes: 1 << 20, ..unlimited },
            "max-uncompressed-bytes",
        ),
        ("xattrs", heavy.clone(), heavy, Limits { metadata_bytes: 9_999, ..unlimited }, "max-metadata-bytes"),
        ("entries", many.clone(), many, Limits { entries: 19, ..unlimited }, "max-entries"),
        (
            "spool",
            Tar::default().file(b"f", &noisy).end(),
            Tar::default().file(b"f", &noisy).end(),
            Limits { spool_bytes: 20 * 4096 - 1, ..unlimited },
            "max-spool-bytes",
        ),
        (
            "segments",
            Tar::default().file(b"f", &noisy).end(),
            Tar::default().file(b"f", &noisy).end(),
            Limits { segments: 19, ..unlimited },
            "max-segments",
        ),
        (
            "file",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"99999999999999"), ("GNU.sparse.map", b"")])
                .file(b"f", b"")
                .end(),
            Vec::new(),
            unlimited,
            "max-file-bytes",
        ),
    ] {
        let error = read_blob(&blob, &descriptor(&blob, &archive), limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{case}: {error}");
        assert!(error.to_string().contains(setting), "{case}: {error}");
    }
}

#[test]
fn the_spool_needs_its_directory() {
    let archive = Tar::default().end();
    let budget = Budget::new(Limits::default());
    let descriptor = descriptor(&archive, &archive);
    let dir = std::path::Path::new("/nonexistent/lantern");
    let error = read_layer(LayerIndex(0), &descriptor, &archive[..], &budget, dir, &|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
