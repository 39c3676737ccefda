//! The kernel as reader and writer of our images, over loop devices. Need root.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::*;
use crate::layer::entry::{EntryKind, Layer, LayerPath, Metadata, Timestamp};
use crate::tree::{Node, NodeKind, Tree};

/// A mount that goes away with the value.
struct Mounted {
    at: tempfile::TempDir,
}

impl Mounted {
    /// `None`, loudly, where mounting is not allowed.
    fn new(image: &Path, options: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("SKIPPED: needs root and loop devices");
            return None;
        }
        let at = tempfile::tempdir().unwrap();
        let options = format!("loop,{options}");
        let status =
            Command::new("mount").args(["-t", "ext4", "-o", &options]).arg(image).arg(at.path()).status();
        assert!(status.unwrap().success(), "mount -o {options}");
        Some(Self { at })
    }

    fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.at.path()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking(), "umount");
    }
}

pub(super) fn hard_cases() -> Vec<Layer> {
    let mut b = Builder::default();
    let at = |name: &str| LayerPath::parse(name.as_bytes()).unwrap();
    b.push(at(""), EntryKind::Directory, metadata(0o751));
    for number in 0..6000_u32 {
        let mut name = b"many/\xe9".to_vec();
        name.extend(number.to_string().bytes().map(|byte| byte | 0x80));
        let content = b.content(3, &[(0, 3)]);
        b.push(LayerPath::parse(&name).unwrap(), EntryKind::File(content), metadata(0o600));
    }
    for (major, minor) in [(0, 0), (1, 3), (4095, 0xf_ffff)] {
        b.push(at(&format!("c{major}")), EntryKind::CharDevice { major, minor }, metadata(0o600));
        b.push(at(&format!("b{major}")), EntryKind::BlockDevice { major, minor }, metadata(0o660));
    }
    b.push(at("fifo"), EntryKind::Fifo, metadata(0o1644));
    for seconds in [-5, 1 << 31, (1 << 32) + 7, i64::MAX, i64::MIN] {
        let mtime = Timestamp { seconds, nanoseconds: 123_456_789 };
        let meta = Metadata { mode: 0o6755, uid: 4_000_000_000, gid: 70_000, mtime, xattrs: Vec::new() };
        let content = b.content(1, &[(0, 1)]);
        b.push(at(&format!("time{seconds}")), EntryKind::File(content), meta);
    }
    for length in [1, 59, 60, 4095] {
        b.link(&format!("l{length}"), &"t".repeat(length));
    }
    let ranges: Vec<_> = (0..5000).map(|hole| (hole * 3 * 4096 + 17, 5000)).collect();
    let content = b.content(5000 * 3 * 4096, &ranges);
    b.push(at("holes"), EntryKind::File(content), metadata(0o644));
    let content = b.content(5 << 30, &[(1 << 30, 8192), ((5 << 30) - 1, 1)]);
    b.push(at("sparse"), EntryKind::File(content), metadata(0o644));
    attributes(&mut b);
    for number in 0..400 {
        b.file(&format!("usr/lib/f{number}"), number * 700)
            .hard(&format!("h{number}"), &format!("usr/lib/f{number}"));
    }
    let mut upper = Builder::default();
    upper
        .whiteout("usr/lib/f3")
        .file("usr/lib/f5", 10)
        .dir("usr/lib/f6")
        .hard("again", "h3")
        .file("big", 9 << 20);
    vec![b.build(), upper.build()]
}

fn attributes(b: &mut Builder) {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [(1, 7, !0), (2, 6, 1000), (4, 5, !0), (16, 7, !0), (32, 0, !0)] {
        acl.extend(u16::to_le_bytes(tag));
        acl.extend(u16::to_le_bytes(permissions));
        acl.extend(u32::to_le_bytes(id));
    }
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut meta = metadata(0o750);
    meta.xattrs =
        (0..50_u8).map(|n| (format!("user.n{n:02}").into_bytes(), vec![n; usize::from(n)])).collect();
    meta.xattrs.push((b"security.capability".to_vec(), cap.to_vec()));
    meta.xattrs.push((b"system.posix_acl_access".to_vec(), acl.clone()));
    meta.xattrs.push((b"trusted.t\xff".to_vec(), vec![1; 300]));
    meta.xattrs.sort();
    let content = b.content(7, &[(0, 7)]);
    b.push(path("attributes"), EntryKind::File(content), meta.clone());
    meta.xattrs.retain(|(name, _)| !name.starts_with(b"security"));
    meta.xattrs.push((b"system.posix_acl_default".to_vec(), acl));
    meta.xattrs.sort();
    b.push(path("attributed"), EntryKind::Directory, meta);
    let mut large = metadata(0o700);
    large.xattrs =
        (1..5_u16).map(|n| (format!("user.l{n}").into_bytes(), vec![b'a'; usize::from(n) * 16384])).collect();
    large.xattrs.push((b"user.small".to_vec(), vec![9; 2000]));
    b.push(path("values"), EntryKind::Directory, large);
    let mut small = metadata(0o711);
    small.xattrs = vec![(b"security.capability".to_vec(), cap.to_vec())];
    let content = b.content(7, &[(0, 7)]);
    b.push(path("ping"), EntryKind::File(content), small);
}

/// Everything the kernel sees against the tree.
fn compare(tree: &Tree, root: &Path) {
    for (path, id) in tree.entries() {
        let node = tree.node(id);
        let at = root.join(PathBuf::from(std::ffi::OsString::from_vec(path)));
        let stat = fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{at:?}: {e}"));
        let want = (u32::from(node.mode), node.uid, node.gid);
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), want, "{at:?}");
        let (low, high) = (i64::from(i32::MIN), i64::from(i32::MAX) + (3 << 32));
        let seconds = node.mtime.seconds.clamp(low, high);
        let exact = low < node.mtime.seconds && node.mtime.seconds < high;
        let nanoseconds = if exact { i64::from(node.mtime.nanoseconds) } else { 0 };
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (seconds, nanoseconds), "{at:?}");
        assert_eq!((stat.atime(), stat.ctime()), (seconds, seconds), "{at:?}");
        if node.directory().is_none() {
            assert_eq!(stat.nlink(), u64::from(node.names), "{at:?}");
        }
        compare_content(tree, node, &at, &stat);
        compare_attributes(node, &at);
    }
}

fn compare_content(tree: &Tree, node: &Node, at: &Path, stat: &fs::Metadata) {
    match &node.kind {
        NodeKind::File(content) => {
            assert_eq!(stat.len(), content.size, "{at:?}");
            if content.size < 100 << 20 {
                assert!(fs::read(at).unwrap() == expected(node, content), "bytes of {at:?}");
            }
        }
        NodeKind::Directory(directory) => {
            let mut names: Vec<_> =
                fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
            names.sort();
            assert!(names.iter().map(Vec::as_slice).eq(directory.children.keys().map(|name| &**name)));
            let below = directory.children.values().filter(|c| tree.node(c.node).directory().is_some());
            assert_eq!(stat.nlink(), 2 + below.count() as u64, "{at:?}");
        }
        NodeKind::Symlink(target) => {
            assert_eq!(fs::read_link(at).unwrap().as_os_str().as_bytes(), &**target, "{at:?}");
        }
        &(NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor }) => {
            let device = stat.rdev();
            assert_eq!((rustix::fs::major(device), rustix::fs::minor(device)), (major, minor), "{at:?}");
            let character = matches!(node.kind, NodeKind::CharDevice { .. });
            assert_eq!(stat.file_type().is_char_device(), character);
        }
        NodeKind::Fifo => assert!(stat.file_type().is_fifo()),
    }
}

fn compare_attributes(node: &Node, at: &Path) {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(at, &mut list).unwrap();
    let mut names: Vec<_> = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let want: Vec<_> = node.xattrs().iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names, want, "{at:?}");
    for (name, value) in node.xattrs() {
        let mut got = vec![0; 65536];
        let length = rustix::fs::lgetxattr(at, name.as_slice(), &mut got).unwrap();
        assert_eq!(&got[..length], value.as_slice(), "{at:?} {}", name.escape_ascii());
    }
}

#[test]
fn privileged_the_kernel_reads_what_the_tree_says() {
    let image = Image::new(&hard_cases());
    check(&image.file);
    let Some(mounted) = Mounted::new(&image.file, "ro") else { return };
    compare(&image.tree, mounted.path());
}

#[test]
fn privileged_the_kernel_finds_colliding_names() {
    let (mut b, _) = colliding_names();
    let image = Image::new(&[b.build()]);
    let Some(mounted) = Mounted::new(&image.file, "ro") else { return };
    compare(&image.tree, mounted.path());
}

#[test]
fn privileged_the_kernel_writes_and_leaves_no_fault() {
    let image = Image::new(&hard_cases());
    let Some(mounted) = Mounted::new(&image.file, "rw") else { return };
    let root = mounted.path().to_owned();
    // 4 GiB are free
    let free = rustix::fs::statvfs(&root).unwrap();
    assert!(free.f_bfree * free.f_bsize >= 4 << 30, "{} blocks", free.f_bfree);
    assert!(free.f_ffree >= 65536);
    for entry in fs::read_dir(root.join("many")).unwrap().step_by(2) {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for number in 0..3000 {
        fs::write(root.join(format!("many/new file {number}")), vec![7; number]).unwrap();
    }
    fs::write(root.join("large"), vec![3; 50 << 20]).unwrap();
    fs::remove_file(root.join("holes")).unwrap();
    fs::remove_file(root.join("attributes")).unwrap();
    rustix::fs::removexattr(root.join("values"), "user.l3").unwrap();
    fs::rename(root.join("usr"), root.join("attributed/usr")).unwrap();
    fs::OpenOptions::new().append(true).open(root.join("sparse")).unwrap().set_len(1 << 20).unwrap();
    let content = b"through an old inode".to_vec();
    fs::write(root.join("ping"), &content).unwrap();
    drop(mounted);
    check(&image.file);
    let mounted = Mounted::new(&image.file, "ro").unwrap();
    assert_eq!(fs::read(mounted.path().join("ping")).unwrap(), content);
    assert_eq!(fs::read_dir(mounted.path().join("many")).unwrap().count(), 6000);
}
