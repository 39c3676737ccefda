//! Whatever the bytes, reading ends with a layer or an error.

use super::support::*;
use crate::layer::*;
use proptest::prelude::*;

/// One archive with everything in it.
fn everything() -> Vec<u8> {
    let mut sparse = Head::new(b"sparse", b'S', 3);
    sparse.gnu().octal(386, 12, 5000).octal(398, 12, 3).octal(483, 12, 20_000);
    let inline = [&b"1\n5000\n3\n"[..], &[0; 503], b"abc"].concat();
    let mut device = Head::new(b"dev", b'3', 0);
    device.octal(329, 8, 1).octal(337, 8, 3);
    Tar::default()
        .kind(b"./", b'5', b"")
        .extension(b'g', &pax_body(&[("comment", b"x")]))
        .pax(&[("path", b"a/b"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"1\n2")])
        .file(b"b", &[7; 1000])
        .extension(b'L', &b"n/".repeat(100))
        .extension(b'K', b"target\0")
        .kind(b"l", b'2', b"x")
        .kind(b"h", b'1', b"a/b")
        .add(&sparse, b"abc")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"20000"),
        ])
        .file(b"s", &inline)
        .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"3,2")])
        .file(b"s2", b"ab")
        .add(&device, b"")
        .file(b".wh.gone", b"")
        .end()
}

fn check(archive: &[u8]) {
    // Small limits, so that a lucky size does not take long.
    let limits = Limits { file_bytes: 1 << 30, ..Limits::default() };
    let result = read_blob(archive, &descriptor(archive, archive), limits);
    if let Ok((layer, spool)) = result {
        for entry in &layer.entries {
            if let entry::EntryKind::File(content) = &entry.kind {
                let mut end = 0;
                for segment in &content.segments {
                    assert!(segment.length > 0 && segment.file_offset >= end);
                    end = segment.file_offset + segment.length;
                    assert!(end <= content.size && segment.spool_offset + segment.length <= spool.length());
                }
            }
        }
    }
}

#[test]
fn everything_is_read() {
    let archive = everything();
    let (layer, _) = read(&archive).unwrap();
    assert_eq!(layer.entries.len(), 9);
}

#[test]
fn every_truncation_ends() {
    let archive = everything();
    for length in (0..archive.len()).step_by(61) {
        check(&archive[..length]);
        let blob = gzip(&archive);
        let cut = &blob[..blob.len() * length / archive.len()];
        assert!(read_blob(cut, &descriptor(cut, &archive), Limits::default()).is_err());
    }
}

/// Makes the checksums of all blocks that look like headers right again, so that damage
/// reaches the fields behind them.
fn repair(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut head = Head::new(b"", b'0', 0);
            head.block.copy_from_slice(block);
            block.copy_from_slice(&head.bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        check(&bytes);
        check(&[&[0x1f, 0x8b, 8][..], &bytes].concat());
        check(&[&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat());
    }

    #[test]
    fn flipped_bits_end(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..8)) {
        let mut archive = everything();
        for (at, bit) in flips {
            let at = at.index(archive.len());
            archive[at] ^= 1 << bit;
        }
        check(&archive);
        repair(&mut archive);
        check(&archive);
        let blob = gzip(&archive);
        check(&blob);
    }

    #[test]
    fn random_fields_end(at in 0..500_usize, bytes in prop::collection::vec(any::<u8>(), 1..13), which in 0..24_usize) {
        let mut archive = everything();
        let start = which * 512 + at;
        let end = (start + bytes.len()).min(archive.len());
        archive[start..end].copy_from_slice(&bytes[..end - start]);
        repair(&mut archive);
        check(&archive);
    }
}
