//! One image per hard case.

use std::process::Command;

use super::support::*;
use crate::ext4::{Layout, LayoutError, Limit};
use crate::layer::entry::{EntryKind, LayerPath, Metadata, Timestamp};
use crate::tree::Tree;

/// What debugfs prints for a request.
fn debugfs(image: &Image, request: &str) -> String {
    let output = Command::new("debugfs").args(["-R", request]).arg(&image.file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_image_without_layers() {
    let image = Image::new(&[]);
    image.verify();
    assert_eq!(image.layout.counts().directories, 1);
}

#[test]
fn a_small_image() {
    let mut b = Builder::default();
    b.dir("").dir("etc").file("etc/hosts", 10).file("etc/empty", 0).link("etc/l", "hosts");
    b.link("etc/long", &"x/".repeat(100)).hard("etc/h2", "etc/hosts").file("big", 3 << 20);
    Image::new(&[b.build()]).verify();
}

#[test]
fn links_of_every_length() {
    let mut b = Builder::default();
    for length in [1, 58, 59, 60, 61, 1000, 4094, 4095] {
        b.link(&format!("l{length}"), &"tt/".repeat(length)[..length]);
    }
    Image::new(&[b.build()]).verify();
}

#[test]
fn a_hundred_thousand_files_in_one_directory() {
    let mut b = Builder::default();
    b.dir("flat");
    for number in 0..100_000 {
        b.file(&format!("flat/some file number {number}"), 0);
    }
    let image = Image::new(&[b.build()]);
    image.verify();
    let entry = debugfs(&image, "stat \"/flat/some file number 77777\"");
    assert!(entry.contains("Type: regular"), "{entry}");
}

#[test]
fn an_index_of_two_levels() {
    // 250-byte names: 15 in a block, 507 blocks in the root
    let mut b = Builder::default();
    b.dir("flat");
    let pad = "p".repeat(244);
    for number in 0..9_000 {
        b.file(&format!("flat/{number:06}{pad}"), 0);
    }
    let image = Image::new(&[b.build()]);
    image.verify();
    let index = debugfs(&image, "htree_dump /flat");
    assert!(index.contains("Indirect levels: 1"), "{}", &index[..400]);
}

#[test]
fn colliding_names_on_both_sides_of_a_leaf_boundary() {
    let (mut b, hash) = colliding_names();
    // ext4-view does not look into the next leaf; the kernel does
    let image = Image::new(&[b.build()]);
    check(&image.file);
    let index = debugfs(&image, "htree_dump /d");
    // the second leaf's entry has the bit for a continued hash
    assert!(index.contains(&format!("{:#010x}", hash | 1)), "{}", &index[..1000]);
}

#[test]
fn names_of_any_bytes() {
    let mut b = Builder::default();
    for name in [&[0xff; 255][..], b"\x80\xfe\n", b"a\\b", "ünïcödé".as_bytes(), b" ", b"\x01"] {
        let at = LayerPath::parse(name).unwrap();
        b.push(at, EntryKind::Symlink(name.to_vec()), metadata(0o777));
    }
    // enough of them for a hash tree with bytes above 127
    b.dir("many");
    for number in 0..2000_u32 {
        let mut name = b"many/\xe9".to_vec();
        name.extend(number.to_string().bytes().map(|b| b | 0x80));
        let at = LayerPath::parse(&name).unwrap();
        let content = b.content(3, &[(0, 3)]);
        b.push(at, EntryKind::File(content), metadata(0o600));
    }
    // ext4-view knows hashes of signed bytes only and does not find these by name; e2fsck
    // checks the hashes, the kernel finds the names
    check(&Image::new(&[b.build()]).file);
}

#[test]
fn a_sparse_file_of_five_gibibytes() {
    let mut b = Builder::default();
    let size = 5 << 30;
    let content = b.content(size, &[(0, 10), (1 << 30, 8192), ((3 << 30) + 100, 5000), (size - 1, 1)]);
    b.push(LayerPath::parse(b"sparse").unwrap(), EntryKind::File(content), metadata(0o644));
    let image = Image::new(&[b.build()]);
    image.verify();
    assert_eq!(image.layout.counts().data_bytes, 4096 * (1 + 2 + 2 + 1));
    assert!(image.layout.occupied_chunks().count() < 12);
}

#[test]
fn thousands_of_holes_need_a_tree_of_extents() {
    let mut b = Builder::default();
    for (name, holes) in [("three", 3), ("five", 5), ("leaves", 341), ("level", 1361), ("deep", 5000)] {
        let ranges: Vec<_> = (0..holes).map(|hole| (hole * 3 * 4096 + 17, 100)).collect();
        let content = b.content(holes * 3 * 4096, &ranges);
        b.push(LayerPath::parse(name.as_bytes()).unwrap(), EntryKind::File(content), metadata(0o644));
    }
    let image = Image::new(&[b.build()]);
    image.verify();
    let tree = debugfs(&image, "dump_extents /deep");
    assert!(tree.contains(" 0/ 2") && tree.contains(" 2/ 2"), "{}", &tree[..400]);
}

#[test]
fn a_dense_file_of_twenty_gibibytes() {
    // more than four extents, and more groups than three chunks of bitmaps hold
    let mut b = Builder::default();
    b.file("dense", 20 << 30);
    let tree = Tree::apply(&[b.build()]).unwrap();
    let layout = Layout::plan(tree, &identity()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    // zeros for bytes: the chunks need not be written
    let source = Zeros;
    write(&layout, &source, &file);
    check(&file);
}

struct Zeros;

impl crate::ext4::FileSource for Zeros {
    fn read_exact_at(
        &self,
        _: crate::layer::entry::LayerIndex,
        _: u64,
        buf: &mut [u8],
    ) -> std::io::Result<()> {
        buf.fill(0);
        Ok(())
    }
}

#[test]
fn devices_pipes_and_odd_metadata() {
    let mut b = Builder::default();
    let at = |name: &str| LayerPath::parse(name.as_bytes()).unwrap();
    for (major, minor) in [(0, 0), (1, 3), (8, 300), (300, 1), (4095, 0xf_ffff), (255, 255)] {
        b.push(at(&format!("c{major}.{minor}")), EntryKind::CharDevice { major, minor }, metadata(0o600));
        b.push(at(&format!("b{major}.{minor}")), EntryKind::BlockDevice { major, minor }, metadata(0o660));
    }
    b.push(at("fifo"), EntryKind::Fifo, metadata(0o1644));
    for (name, seconds) in
        [("neg", -5), ("y2038", 1 << 31), ("y2106", (1 << 32) + 7), ("far", i64::MAX), ("past", i64::MIN)]
    {
        let meta = Metadata {
            mode: 0o6755,
            uid: 4_000_000_000,
            gid: 70_000,
            mtime: Timestamp { seconds, nanoseconds: 123_456_789 },
            xattrs: Vec::new(),
        };
        let content = b.content(1, &[(0, 1)]);
        b.push(at(name), EntryKind::File(content), meta);
    }
    let image = Image::new(&[b.build()]);
    image.verify();
    let stat = debugfs(&image, "stat /c4095.1048575");
    assert!(stat.contains("Device major/minor number: 4095:1048575"), "{stat}");
    let stat = debugfs(&image, "stat /y2106");
    assert!(stat.contains("mtime: 0x00000007:1d6f3455"), "{stat}");
}

#[test]
fn deep_paths() {
    let mut b = Builder::default();
    let mut at = String::new();
    for _ in 0..2000 {
        at.push_str("d/");
        b.dir(&at);
    }
    b.file(&format!("{at}leaf"), 5);
    Image::new(&[b.build()]).verify();
}

#[test]
fn attributes_of_all_kinds() {
    let mut b = Builder::default();
    let at = |name: &str| LayerPath::parse(name.as_bytes()).unwrap();
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut out = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(permissions.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    };
    let with = |list: &[(&str, Vec<u8>)]| {
        let mut meta = metadata(0o750);
        meta.xattrs = list.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.clone())).collect();
        meta.xattrs.sort();
        meta
    };
    let named = acl(&[(1, 7, !0), (2, 6, 1000), (4, 5, !0), (0x10, 7, !0), (0x20, 0, !0)]);
    let cap = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let file = EntryKind::File(b.content(5, &[(0, 5)]));
    b.push(at("cap"), file.clone(), with(&[("security.capability", cap.clone())]));
    b.push(at("acl"), file.clone(), with(&[("system.posix_acl_access", named.clone())]));
    let lists = [("system.posix_acl_access", named.clone()), ("system.posix_acl_default", named)];
    b.push(at("dir"), EntryKind::Directory, with(&lists));
    let many: Vec<_> = (0..60).map(|n| (format!("user.attribute{n}"), vec![n; usize::from(n)])).collect();
    let many: Vec<(&str, Vec<u8>)> = many.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    b.push(at("many"), file.clone(), with(&many));
    let mixed = [
        ("user.\u{fc}", b"unicode name".to_vec()),
        ("trusted.x", vec![7; 300]),
        ("security.capability", cap),
        ("user.empty", Vec::new()),
        ("com.apple.quarantine", b"dropped".to_vec()),
    ];
    b.push(at("mixed"), file.clone(), with(&mixed));
    b.push(at("dirattr"), EntryKind::Directory, with(&[("user.large", vec![1; 3000])]));
    b.push(at("link"), EntryKind::Symlink(b"x".to_vec()), with(&[("trusted.l", vec![2; 200])]));
    let image = Image::new(&[b.build()]);
    image.verify();
    assert_eq!(image.layout.counts().dropped_xattrs, 1);
    let list = debugfs(&image, "ea_list /many");
    assert!(list.contains("user.attribute59 (59)"), "{list}");
    let node = image.tree.node(image.tree.lookup(&at("acl")).unwrap());
    assert_eq!(node.mode, 0o770);
}

#[test]
fn values_too_large_for_a_block_have_inodes() {
    let mut b = Builder::default();
    for (name, sizes) in [("one", &[5000, 10][..]), ("three", &[65536, 4096, 3000]), ("fits", &[2000, 1900])]
    {
        let mut meta = metadata(0o644);
        let values = sizes.iter().zip(0_u8..);
        meta.xattrs = values.map(|(&n, at)| (format!("user.{at}").into_bytes(), vec![at; n])).collect();
        b.push(path(name), EntryKind::Fifo, meta);
    }
    let image = Image::new(&[b.build()]);
    check(&image.file);
    let list = debugfs(&image, "ea_list /three");
    assert!(list.contains("user.0 (65536)") && list.contains("user.2 (3000)"), "{list}");
    let mut meta = metadata(0o644);
    meta.xattrs = vec![(b"user.x".to_vec(), vec![0; 65537])];
    b.push(path("over"), EntryKind::Fifo, meta);
    let error = Layout::plan(Tree::apply(&[b.build()]).unwrap(), &identity()).unwrap_err();
    assert!(error.to_string().contains("/over: extended attribute value of 65537 bytes"), "{error}");
}

#[test]
fn layers_replace_and_remove() {
    let mut base = Builder::default();
    base.dir("a").dir("a/b").file("a/b/f", 5000).file("a/g", 300_000).file("x", 7).dir("keep");
    for number in 0..500 {
        base.file(&format!("keep/f{number}"), 1000 + number * 7);
    }
    base.file("large", 2 << 20);
    let mut upper = Builder::default();
    upper.whiteout("a/b").opaque("a").file("x", 70_000).hard("keep/again", "keep/f3").whiteout("large");
    upper.dir("keep/f1").file("keep/f1/now-a-directory", 1);
    let layers = [base.build(), upper.build()];
    let image = Image::new(&layers);
    image.verify();
    assert!(image.tree.lookup(&path("a/b")).is_none());
    // nothing of what is gone is on the device
    let bytes: u64 = image.layout.counts().data_bytes;
    assert!(image.layout.occupied_chunks().count() as u64 * 512 * 1024 < bytes + (12 << 19));
}

#[test]
fn many_subdirectories() {
    let mut b = Builder::default();
    for number in 0..65_010 {
        b.dir(&format!("many/{number}"));
    }
    for number in 0..64_998 {
        b.dir(&format!("most/{number}"));
    }
    let image = Image::new(&[b.build()]);
    check(&image.file);
    assert!(debugfs(&image, "stat /many").contains("Links: 1 "));
    assert!(debugfs(&image, "stat /most").contains("Links: 65000 "));
}

#[test]
fn limits_are_named() {
    let plan = |b: &mut Builder| {
        Layout::plan(Tree::apply(&[b.build()]).unwrap(), &identity()).map(|_| ()).unwrap_err()
    };
    let mut b = Builder::default();
    let content = b.content((1 << 44) - 4095, &[]);
    b.push(path("dir/huge"), EntryKind::File(content), metadata(0o644));
    let error = plan(&mut b);
    assert!(error.to_string().starts_with("layer 0: /dir/huge: file of"), "{error}");
    let mut b = Builder::default();
    b.push(path("dev"), EntryKind::CharDevice { major: 4096, minor: 0 }, metadata(0o600));
    assert!(matches!(plan(&mut b), LayoutError::Limit { limit: Limit::Device { .. }, .. }));
    let mut b = Builder::default();
    b.file("f", 1);
    for number in 0..65_000 {
        b.hard(&format!("l{number}"), "f");
    }
    assert!(matches!(plan(&mut b), LayoutError::Limit { limit: Limit::Links(65_001), .. }));
    let mut b = Builder::default();
    let content = b.content(3 << 40, &[(0, 3 << 40)]);
    b.push(path("dense"), EntryKind::File(content), metadata(0o644));
    assert!(matches!(plan(&mut b), LayoutError::TooLarge { .. }));
}
