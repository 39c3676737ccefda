//! Header kinds, extensions and names, one by one.

use super::support::*;
use crate::layer::entry::*;
use crate::layer::*;

#[test]
fn every_plain_kind() {
    let mut device = Head::new(b"dev/c", b'3', 0);
    device.octal(329, 8, 5).octal(337, 8, 260);
    let mut zero = Head::new(b"dev/zero", b'4', 0);
    zero.octal(329, 8, 0).octal(337, 8, 0);
    let archive = Tar::default()
        .kind(b"./", b'5', b"")
        .kind(b"etc/", b'5', b"")
        .file(b"/etc/hello", b"hello")
        .kind(b"etc/link", b'2', b"../../x")
        .kind(b"etc/hard", b'1', b"./etc/hello")
        .add(&device, b"")
        .add(&zero, b"")
        .kind(b"fifo", b'6', b"")
        .kind(b"old/", 0, b"")
        .add(&Head::new(b"contiguous", b'7', 2), b"ab")
        .kind(b"etc/.wh.gone", b'0', b"")
        .kind(b"etc/.wh..wh..opq", b'0', b"")
        .file(b".wh..wh.aufs", b"skipped")
        .end();
    let (layer, spool) = read(&archive).unwrap();
    let got: Vec<_> = layer.entries.iter().map(|e| (e.path.to_string(), e.kind.clone())).collect();
    let file = |spool_offset, length| {
        EntryKind::File(FileContent {
            size: length,
            segments: vec![Segment { file_offset: 0, spool_offset, length }],
        })
    };
    let want = vec![
        ("/".to_owned(), EntryKind::Directory),
        ("/etc".to_owned(), EntryKind::Directory),
        ("/etc/hello".to_owned(), file(0, 5)),
        ("/etc/link".to_owned(), EntryKind::Symlink(b"../../x".to_vec())),
        ("/etc/hard".to_owned(), EntryKind::Hardlink(path("etc/hello"))),
        ("/dev/c".to_owned(), EntryKind::CharDevice { major: 5, minor: 260 }),
        ("/dev/zero".to_owned(), EntryKind::BlockDevice { major: 0, minor: 0 }),
        ("/fifo".to_owned(), EntryKind::Fifo),
        ("/old".to_owned(), EntryKind::Directory),
        ("/contiguous".to_owned(), file(5, 2)),
        ("/etc/gone".to_owned(), EntryKind::Whiteout),
        ("/etc".to_owned(), EntryKind::OpaqueWhiteout),
    ];
    assert_eq!(got, want);
    assert_eq!(spool.length(), 7);
    let metadata = &layer.entries[2].metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o644, 1000, 1001));
    assert_eq!(metadata.mtime, Timestamp { seconds: 1_600_000_000, nanoseconds: 0 });
}

#[test]
fn names_and_numbers_in_every_dialect() {
    let long = [&b"d/".repeat(80)[..], b"file"].concat();
    let mut ustar = Head::new(b"name", b'0', 1);
    ustar.put(345, b"some/prefix");
    let mut star = ustar.clone();
    star.put(508, b"tar\0");
    let mut v7 = ustar.clone();
    v7.block[257..265].fill(0);
    let mut gnu_times = Head::new(b"name", b'0', 1);
    gnu_times.gnu().octal(345, 12, 5).octal(357, 12, 6);
    let mut old_go = Head::new(b"name", b'0', 1);
    old_go.gnu().put(345, b"some/prefix");
    let plain = |head: &Head| Tar::default().add(head, b"x").end();
    for (case, archive, want) in [
        ("ustar prefix", plain(&ustar), "/some/prefix/name"),
        ("star prefix", plain(&star), "/some/prefix/name"),
        ("v7 has no prefix", plain(&v7), "/name"),
        ("gnu times are no prefix", plain(&gnu_times), "/name"),
        ("prefix of old go writers", plain(&old_go), "/some/prefix/name"),
        (
            "gnu long name",
            Tar::default().extension(b'L', &[&long[..], b"\0"].concat()).file(b"short", b"x").end(),
            path(std::str::from_utf8(&long).unwrap()).to_string().leak(),
        ),
        ("pax path", Tar::default().pax(&[("path", b"a/b")]).file(b"short", b"x").end(), "/a/b"),
        ("empty pax path", Tar::default().pax(&[("path", b"")]).file(b"short", b"x").end(), "/short"),
        (
            "long name beats pax",
            Tar::default().pax(&[("path", b"pax")]).extension(b'L', b"long\0").file(b"s", b"x").end(),
            "/long",
        ),
        (
            "the last of two pax headers counts alone",
            Tar::default().pax(&[("path", b"one")]).pax(&[("mtime", b"1")]).file(b"s", b"x").end(),
            "/s",
        ),
        (
            "global headers are not applied",
            Tar::default().extension(b'g', &pax_body(&[("path", b"g")])).file(b"s", b"x").end(),
            "/s",
        ),
        ("absolute", Tar::default().file(b"//a/./b/../c", b"x").end(), "/a/c"),
        ("not UTF-8", Tar::default().file(b"a\xff", b"x").end(), "/a\\xff"),
        ("no end marker", Tar::default().file(b"s", b"x").0, "/s"),
        ("no padding either", Tar::default().file(b"s", b"x").0[..513].to_vec(), "/s"),
        ("one zero block", Tar::default().file(b"s", b"x").end()[..1536].to_vec(), "/s"),
        (
            "garbage after the end",
            [Tar::default().file(b"s", b"x").end(), b"garbage".to_vec()].concat(),
            "/s",
        ),
    ] {
        let (name, contents) = only_file(&archive);
        assert_eq!((name.to_string().as_str(), contents.as_slice()), (want, &b"x"[..]), "{case}");
    }
}

#[test]
fn pax_metadata() {
    let capability = b"\x01\0\0\x02\n\x20\0\0\n\0\0\0\0\0\0\0\0\0\0\0";
    let archive = Tar::default()
        .pax(&[
            ("uid", b"4294967294"),
            ("gid", b"0"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.b", b""),
            ("LIBARCHIVE.xattr.user.a%3d", b"AAEC"),
            ("SCHILY.xattr.security.selinux", b"host_t"),
            ("comment", b"ignored"),
            ("linkpath", b"unused"),
        ])
        .add(Head::new(b"f", b'0', 0).octal(100, 8, 0o106_755), b"")
        .end();
    let (entry, _) = only(&archive);
    let want = Metadata {
        mode: 0o6755,
        uid: 4_294_967_294,
        gid: 0,
        mtime: Timestamp { seconds: -2, nanoseconds: 500_000_000 },
        xattrs: vec![
            (b"security.capability".to_vec(), capability.to_vec()),
            (b"user.a=".to_vec(), vec![0, 1, 2]),
            (b"user.b".to_vec(), vec![]),
        ],
    };
    assert_eq!(entry.metadata, want);
}

#[test]
fn pax_sizes_links_and_devices() {
    let mut big = Head::new(b"f", b'0', 0);
    big.octal(124, 12, 3);
    let (_, contents) = only_file(&Tar::default().pax(&[("size", b"5")]).add(&big, b"12345").end());
    assert_eq!(contents, b"12345");
    let link = Tar::default().pax(&[("linkpath", b"to\xff")]).kind(b"l", b'2', b"short").end();
    assert_eq!(only(&link).0.kind, EntryKind::Symlink(b"to\xff".to_vec()));
    let link = Tar::default().extension(b'K', b"far\0").kind(b"l", b'2', b"short").end();
    assert_eq!(only(&link).0.kind, EntryKind::Symlink(b"far".to_vec()));
    let device = Tar::default()
        .pax(&[("SCHILY.devmajor", b"1048576"), ("SCHILY.devminor", b"7")])
        .kind(b"d", b'3', b"")
        .end();
    assert_eq!(only(&device).0.kind, EntryKind::CharDevice { major: 1_048_576, minor: 7 });
}

#[test]
fn base256_numbers() {
    let number = |at: usize, length: usize, value: i128| {
        let mut head = Head::new(b"f", b'0', 0);
        let mut field = value.to_string().parse::<i128>().unwrap();
        for byte in head.block[at..at + length].iter_mut().rev() {
            *byte = u8::try_from(field & 0xff).unwrap();
            field >>= 8;
        }
        head.block[at] |= 0x80;
        Tar::default().add(&head, b"").end()
    };
    assert_eq!(only(&number(108, 8, 4_000_000_000)).0.metadata.uid, 4_000_000_000);
    assert_eq!(only(&number(136, 12, -7)).0.metadata.mtime.seconds, -7);
    assert_eq!(only(&number(136, 12, 1 << 40)).0.metadata.mtime.seconds, 1 << 40);
    for (case, archive) in [
        ("uid below 0", number(108, 8, -1)),
        ("uid above 32 bits", number(108, 8, 1 << 32)),
        ("size below 0", number(124, 12, -1)),
        ("size above 63 bits", number(124, 12, 1 << 70)),
    ] {
        assert!(read(&archive).is_err(), "{case}");
    }
}

#[test]
fn data_behind_entries_that_have_none() {
    let linked = |body: &[u8]| {
        let mut head = Head::new(b"hard", b'1', 600);
        head.link(b"f");
        Tar::default().file(b"f", b"x").add(&head, body).file(b"after", b"y").end()
    };
    for (case, archive) in [("size without data", linked(b"")), ("data", linked(&[7; 600]))] {
        let (layer, _) = read(&archive).unwrap();
        let names: Vec<_> = layer.entries.iter().map(|e| e.path.to_string()).collect();
        assert_eq!(names, ["/f", "/hard", "/after"], "{case}");
    }
}

#[test]
fn aufs_pseudo_links_become_files() {
    let archive = Tar::default()
        .file(b".wh..wh.plnk/1.2", b"shared")
        .kind(b"a", b'1', b".wh..wh.plnk/1.2")
        .kind(b"b", b'1', b"/.wh..wh.plnk/1.2")
        .end();
    let (layer, spool) = read(&archive).unwrap();
    assert_eq!(layer.entries.len(), 2);
    for entry in &layer.entries {
        let EntryKind::File(content) = &entry.kind else { panic!("{entry:?}") };
        assert_eq!(contents(&spool, content), b"shared");
    }
    assert!(read(&Tar::default().kind(b"a", b'1', b".wh..wh.plnk/1.2").end()).is_err());
}

#[test]
fn what_is_refused_names_layer_entry_and_reason() {
    let device = |at: usize| {
        let mut head = Head::new(b"dev", b'4', 0);
        head.put(at, b"\xff\xff\xff\xff\xff\xff\xff\xfe");
        Tar::default().add(&head, b"").end()
    };
    let xattr = vec![0; (64 << 10) + 1];
    for (archive, entry, reason) in [
        (Tar::default().file(b"../x", b"").end(), "../x", "path is refused"),
        (Tar::default().file(b"a/../../x", b"").end(), "a/../../x", "path is refused"),
        (
            Tar::default().file(&[b'x'; 100], b"").pax(&[("path", &[b'y'; 256])]).file(b"z", b"").end(),
            "yyy",
            "path",
        ),
        (Tar::default().kind(b"h", b'1', b"../../etc/shadow").end(), "h", "hard link's target is refused"),
        (Tar::default().file(b"etc/.wh.", b"").end(), "etc/.wh.", "a whiteout must name"),
        (Tar::default().file(b"etc/.wh..", b"").end(), "etc/.wh..", "a whiteout must name"),
        (Tar::default().file(b".wh...", b"").end(), ".wh...", "a whiteout must name"),
        (Tar::default().kind(b"./", b'2', b"x").end(), "./", "root can only be a directory"),
        (Tar::default().kind(b"", b'0', b"").end(), "", "root can only be a directory"),
        (Tar::default().kind(b"s", b'2', b"").end(), "s", "1 to 4095 bytes"),
        (Tar::default().extension(b'K', &[b'x'; 4096]).kind(b"s", b'2', b"").end(), "s", "1 to 4095 bytes"),
        (Tar::default().kind(b"v", b'V', b"").end(), "v", "entry type 'V'"),
        (device(329), "dev", "major number is out of range"),
        (device(337), "dev", "minor number is out of range"),
        (Tar::default().pax(&[("uid", b"-1")]).file(b"u", b"").end(), "u", "uid is out of range"),
    ] {
        let error = read(&archive).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("layer 3 (sha256:"), "{text}");
        assert!(text.contains(&format!("entry \"{entry}")) && text.contains(reason), "{text}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
    }
    for (archive, reason) in [
        (b"not a tar archive at all".repeat(30), "not a tar archive"),
        (Tar::default().pax(&[("SCHILY.xattr.user.a", &xattr)]).file(b"u", b"").end(), "64 KiB"),
        (Tar::default().add(&Head::new(b"x", b'x', (1 << 20) + 1), b"").end(), "1 MiB"),
        (Tar::default().add(&Head::new(b"x", b'L', 1 << 40), b"").end(), "1 MiB"),
        (Tar::default().extension(b'x', b"nonsense").end(), "extended header"),
        ([vec![0; 512], Tar::default().file(b"f", b"").end()].concat(), "zero block"),
        (Tar::default().file(b"f", &[1; 700]).0[..900].to_vec(), "ends inside file contents"),
        (Tar::default().file(b"f", b"").0[..400].to_vec(), "ends inside a header"),
    ] {
        let text = read(&archive).unwrap_err().to_string();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn sparse_maps_in_every_spelling() {
    // "abc" at 5000, a whole block of "d" at 12288, size 20000.
    let data = [&b"abc"[..], &[b'd'; 4096]].concat();
    let mut want = vec![0; 20_000];
    want[5000..5003].copy_from_slice(b"abc");
    want[12288..16384].fill(b'd');
    let mut old = Head::new(b"f", b'S', data.len() as u64);
    old.gnu().octal(386, 12, 5000).octal(398, 12, 3).octal(410, 12, 12288).octal(422, 12, 4096);
    old.octal(483, 12, 20_000);
    let mut continued = Head::new(b"f", b'S', data.len() as u64);
    continued.gnu().octal(386, 12, 5000).octal(398, 12, 3).octal(483, 12, 20_000);
    continued.block[482] = 1;
    let mut extension = [0; 512];
    extension[..23].copy_from_slice(b"00000030000\x0000000010000");
    let with_extension = [&extension[..], &data].concat();
    let map = [&b"2\n5000\n3\n12288\n4096\n"[..], &[0; 492]].concat();
    let inline = [&map[..], &data].concat();
    let v00: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"20000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"5000"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"12288"),
        ("GNU.sparse.numbytes", b"4096"),
    ];
    let v01: &[(&str, &[u8])] =
        &[("GNU.sparse.name", b"f"), ("GNU.sparse.size", b"20000"), ("GNU.sparse.map", b"5000,3,12288,4096")];
    let v10: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", b"20000"),
    ];
    let ignored = b"GNUSparseFile.0/f";
    for (case, tar) in [
        ("old GNU", Tar::default().add(&old, &data)),
        ("old GNU, continued", Tar::default().add(&continued, &with_extension)),
        ("PAX 0.0", Tar::default().pax(v00).file(b"f", &data)),
        ("PAX 0.1", Tar::default().pax(v01).file(ignored, &data)),
        ("PAX 1.0", Tar::default().pax(v10).file(ignored, &inline)),
    ] {
        let archive = tar.file(b"after", b"").end();
        let (layer, spool) = read(&archive).unwrap();
        assert_eq!(layer.entries.len(), 2, "{case}");
        assert_eq!(layer.entries[0].path, path("f"), "{case}");
        let EntryKind::File(content) = &layer.entries[0].kind else { panic!("{case}") };
        assert_eq!(content.size, 20_000, "{case}");
        assert!(contents(&spool, content) == want, "{case}");
        assert_eq!(spool.length(), 2 * 4096, "{case}: only the blocks with data are spooled");
    }
}

#[test]
fn equal_files_have_equal_segments_however_they_are_stored() {
    let mut bytes = vec![0; 40_000];
    bytes[9000..9010].fill(1);
    bytes[39_999] = 2;
    let (entry, _) = only(&Tar::default().file(b"f", &bytes).end());
    let data = [vec![0; 808], bytes[9000..9010].to_vec(), vec![0, 0], vec![2]].concat();
    let records: &[(&str, &[u8])] =
        &[("GNU.sparse.size", b"40000"), ("GNU.sparse.map", b"8192,808,9000,10,9010,2,39999,1")];
    let (sparse, _) = only(&Tar::default().pax(records).file(b"f", &data).end());
    assert_eq!(entry.kind, sparse.kind);
    let (empty, spool) = only(&Tar::default().file(b"f", &[0; 9000]).end());
    assert_eq!(empty.kind, EntryKind::File(FileContent { size: 9000, segments: vec![] }));
    assert_eq!(spool.length(), 0);
}
