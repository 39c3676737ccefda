//! Layers of entries made up from the input, past the archive reader: few names, so that
//! entries meet; extreme numbers; then the tree and its file system, read back.

#![no_main]

use flattener::ext4::FileSource;
use flattener::layer::entry::{
    EntryKind, FileContent, Layer, LayerEntry, LayerIndex, LayerPath, Metadata, Segment, Timestamp,
};
use flattener::tree::Tree;
use fuzz::{filesystems, trees};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const LAYERS_MAX: u32 = 4;
const ENTRIES_MAX: usize = 24;
const XATTRS: [&str; 7] = [
    "user.a",
    "user.b",
    "security.capability",
    "trusted.overlay.opaque",
    "system.posix_acl_access",
    "system.posix_acl_default",
    "odd",
];

/// Bytes that depend on layer and place and are never zero.
struct Pattern;

impl FileSource for Pattern {
    fn read_exact_at(&self, layer: LayerIndex, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            let [low, high, ..] = (at ^ u64::from(layer.0) << 9).to_le_bytes();
            *byte = (low ^ high) | 1;
        }
        Ok(())
    }
}

fn path(u: &mut Unstructured<'_>) -> Result<LayerPath> {
    let long = "n".repeat(255);
    let names = ["a", "b", "c", "d", "lost+found", "\u{fc}", &long];
    let depth = u.int_in_range(0..=3)?;
    let parts: Result<Vec<&str>> = (0..depth).map(|_| u.choose(&names).copied()).collect();
    Ok(LayerPath::parse(parts?.join("/").as_bytes()).expect("plain names"))
}

fn metadata(u: &mut Unstructured<'_>) -> Result<Metadata> {
    let mut xattrs = Vec::new();
    for name in XATTRS {
        if u.ratio(1, 8)? {
            // Larger ones make a file system that the independent reader refuses.
            let large = u.ratio(1, 50)?;
            let lengths = if large { [3000, 4000, 5000, 65_536, 70_000] } else { [0, 1, 28, 36, 200] };
            let length = *u.choose(&lengths)?;
            let mut value = u.bytes(u.len().min(length).min(64))?.to_vec();
            value.resize(length, b'v');
            xattrs.push((name.as_bytes().to_vec(), value));
        }
    }
    xattrs.sort();
    let seconds = match u.int_in_range(0..=7)? {
        0 => u.arbitrary()?,
        1 => *u.choose(&[
            i64::MIN,
            i64::from(i32::MIN),
            -1,
            i64::from(i32::MAX),
            1 << 32,
            (4 << 32) - 1,
            i64::MAX,
        ])?,
        _ => i64::from(u.arbitrary::<u16>()?),
    };
    Ok(Metadata {
        mode: u.int_in_range(0..=0o7777)?,
        uid: u.arbitrary()?,
        gid: u.arbitrary()?,
        mtime: Timestamp { seconds, nanoseconds: u.int_in_range(0..=999_999_999)? },
        xattrs,
    })
}

/// A file whose runs ascend, of any size; `spool` counts what its layer has spooled.
fn content(u: &mut Unstructured<'_>, spool: &mut u64) -> Result<FileContent> {
    let unit = *u.choose(&[1, 511, 4096, 524_288, 1 << 27, 1 << 40])?;
    let (mut segments, mut end) = (Vec::new(), 0_u64);
    for _ in 0..u.int_in_range(0..=6)? {
        let gap = u64::from(u.int_in_range(0..=3_u8)?) * unit;
        let length = (u64::from(u.int_in_range(1..=3_u8)?) * unit).min(1 << 21);
        segments.push(Segment { file_offset: end + gap, spool_offset: *spool, length });
        end += gap + length;
        *spool += length;
    }
    let size = end + u64::from(u.int_in_range(0..=3_u8)?) * unit;
    Ok(FileContent { size, segments })
}

fn entry(u: &mut Unstructured<'_>, spool: &mut u64) -> Result<LayerEntry> {
    let path_of_entry = path(u)?;
    let kind = match u.int_in_range(0..=11)? {
        0..=2 => EntryKind::File(content(u, spool)?),
        3 | 4 => EntryKind::Directory,
        5 => {
            let up = *u.choose(&["", "/", "../", "./", "//"])?;
            let target = [up.as_bytes(), path(u)?.as_bytes()].concat();
            EntryKind::Symlink(target.repeat(u.int_in_range(1..=6)?))
        }
        6 | 7 => EntryKind::Hardlink(path(u)?),
        8 => EntryKind::CharDevice { major: u.arbitrary()?, minor: u.arbitrary()? },
        9 => EntryKind::Fifo,
        10 => EntryKind::Whiteout,
        _ => EntryKind::OpaqueWhiteout,
    };
    Ok(LayerEntry { path: path_of_entry, kind, metadata: metadata(u)? })
}

/// Applies layers as long as the input lasts; an entry that a layer refuses is left out.
fn tree(u: &mut Unstructured<'_>) -> Result<Tree> {
    let mut tree = Tree::new();
    for _ in 0..LAYERS_MAX {
        let (mut layer, mut spool) = (Layer::default(), 0);
        while layer.entries.len() < ENTRIES_MAX && !u.is_empty() && !u.ratio(1, 8)? {
            layer.entries.push(entry(u, &mut spool)?);
            if tree.clone().apply_layer(&layer).is_err() {
                layer.entries.pop();
            }
        }
        tree.apply_layer(&layer).expect("what was refused is left out");
        trees::check(&tree);
    }
    Ok(tree)
}

fuzz_target!(|data: &[u8]| {
    let Ok(tree) = tree(&mut Unstructured::new(data)) else { return };
    let source: Arc<dyn FileSource> = Arc::new(Pattern);
    filesystems::check(&tree, &source);
});
