//! Layers from a few words, images on disk, and what to hold them against.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ext4_view::Ext4;

use crate::ext4::hash::directory_hash;
use crate::ext4::{FileSource, FilesystemIdentity, Layout};
use crate::layer::entry::{
    EntryKind, FileContent, Layer, LayerEntry, LayerIndex, LayerPath, Metadata, Segment, Timestamp,
};
use crate::tree::{Node, NodeKind, Tree};

/// A spool of any size whose bytes follow from layer and offset.
pub(crate) struct Pattern;

impl Pattern {
    fn word(layer: LayerIndex, at: u64) -> [u8; 8] {
        let mut x = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(layer.0) << 56) ^ 0x5bd1;
        x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (x ^ (x >> 29)).to_le_bytes()
    }
}

impl FileSource for Pattern {
    fn read_exact_at(&self, layer: LayerIndex, spool_offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = spool_offset + done as u64;
            let word = Self::word(layer, at / 8);
            let part = &word[usize::try_from(at % 8).unwrap()..];
            let length = part.len().min(buf.len() - done);
            buf[done..done + length].copy_from_slice(&part[..length]);
            done += length;
        }
        Ok(())
    }
}

/// A spool whose bytes follow from the offset alone: files made by [`named`]
/// have the same bytes wherever they are in a spool.
pub(crate) struct ByContent;

impl FileSource for ByContent {
    fn read_exact_at(&self, _: LayerIndex, spool_offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        Pattern.read_exact_at(LayerIndex(0), spool_offset, buf)
    }
}

/// A file whose bytes follow from `id`, for [`ByContent`].
pub(crate) fn named(b: &mut Builder, at: &str, size: u64, id: u64) {
    let segments = vec![Segment { file_offset: 0, spool_offset: id << 32, length: size }];
    b.push(path(at), EntryKind::File(FileContent { size, segments }), metadata(0o644));
}

/// Makes layers entry by entry; spool offsets follow each other.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) layer: Layer,
    spool: u64,
}

pub(crate) fn path(path: &str) -> LayerPath {
    LayerPath::parse(path.as_bytes()).unwrap()
}

pub(crate) fn metadata(mode: u16) -> Metadata {
    Metadata { mode, mtime: Timestamp { seconds: 1_700_000_000, nanoseconds: 5 }, ..Metadata::default() }
}

impl Builder {
    pub(crate) fn push(&mut self, path: LayerPath, kind: EntryKind, metadata: Metadata) -> &mut Self {
        self.layer.entries.push(LayerEntry { path, kind, metadata });
        self
    }

    pub(crate) fn dir(&mut self, at: &str) -> &mut Self {
        self.push(path(at), EntryKind::Directory, metadata(0o755))
    }

    /// A file's content of `size` bytes with data at the given ranges.
    pub(crate) fn content(&mut self, size: u64, ranges: &[(u64, u64)]) -> FileContent {
        let segments = ranges
            .iter()
            .map(|&(file_offset, length)| {
                let spool_offset = self.spool;
                self.spool += length;
                Segment { file_offset, spool_offset, length }
            })
            .collect();
        FileContent { size, segments }
    }

    pub(crate) fn file(&mut self, at: &str, size: u64) -> &mut Self {
        let ranges = [(0, size)];
        let content = self.content(size, if size == 0 { &[] } else { &ranges });
        self.push(path(at), EntryKind::File(content), metadata(0o644))
    }

    pub(crate) fn link(&mut self, at: &str, target: &str) -> &mut Self {
        self.push(path(at), EntryKind::Symlink(target.as_bytes().to_vec()), metadata(0o777))
    }

    pub(crate) fn hard(&mut self, at: &str, target: &str) -> &mut Self {
        self.push(path(at), EntryKind::Hardlink(path(target)), Metadata::default())
    }

    pub(crate) fn whiteout(&mut self, at: &str) -> &mut Self {
        self.push(path(at), EntryKind::Whiteout, Metadata::default())
    }

    pub(crate) fn opaque(&mut self, at: &str) -> &mut Self {
        self.push(path(at), EntryKind::OpaqueWhiteout, Metadata::default())
    }

    pub(crate) fn build(&mut self) -> Layer {
        std::mem::take(&mut self.layer)
    }
}

/// A directory `d` in which two names with the same hash, also returned, are the last of the
/// first leaf and the first of the second.
pub(crate) fn colliding_names() -> (Builder, u32) {
    // entries of 256 bytes: 15 in a leaf; the pair takes the 15th and 16th place
    let name = |number: u32| format!("{number:0>248}");
    let mut hashed: Vec<(u32, u32)> =
        (0..150_000).map(|number| (directory_hash(name(number).as_bytes()), number)).collect();
    hashed.sort_unstable();
    let pair = hashed.windows(2).position(|w| w[0].0 == w[1].0).expect("birthdays");
    assert!(pair >= 14 && hashed[pair - 1].0 != hashed[pair].0);
    let mut b = Builder::default();
    for (_, number) in &hashed[pair - 14..pair + 40] {
        b.file(&format!("d/{}", name(*number)), 1);
    }
    (b, hashed[pair].0)
}

pub(crate) fn identity() -> FilesystemIdentity {
    FilesystemIdentity::from_digest(&[7; 32])
}

/// An image in a file, with what made it.
pub(crate) struct Image {
    pub(crate) tree: Tree,
    pub(crate) layout: Layout,
    pub(crate) file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Image {
    pub(crate) fn new(layers: &[Layer]) -> Self {
        let tree = Tree::apply(layers).unwrap();
        let layout = Layout::plan(tree.clone(), &identity()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.ext4");
        write(&layout, &Pattern, &file);
        Self { tree, layout, file, _dir: dir }
    }

    /// e2fsck is content, and ext4-view reads what the tree says.
    pub(crate) fn verify(&self) -> &Self {
        check(&self.file);
        self.compare();
        self
    }

    /// Every path as ext4-view sees it against the tree.
    pub(crate) fn compare(&self) {
        let fs = Ext4::load(Box::new(Reader(File::open(&self.file).unwrap()))).unwrap();
        for (path, id) in self.tree.entries() {
            let node = self.tree.node(id);
            if unreadable(&path, node) {
                continue;
            }
            let mut full = b"/".to_vec();
            full.extend_from_slice(&path);
            let Ok(at) = ext4_view::PathBuf::try_from(full.as_slice()) else { panic!("{path:?}") };
            let metadata = fs.symlink_metadata(&at).unwrap_or_else(|e| panic!("{at:?}: {e}"));
            assert_eq!(metadata.mode() & 0o7777, node.mode, "{at:?}");
            assert_eq!((metadata.uid(), metadata.gid()), (node.uid, node.gid), "{at:?}");
            match &node.kind {
                NodeKind::File(content) => {
                    assert_eq!(metadata.len(), content.size, "{at:?}");
                    if content.size < 64 << 20 {
                        assert!(fs.read(&at).unwrap() == expected(node, content), "bytes of {at:?}");
                    }
                }
                NodeKind::Directory(directory) => {
                    let mut names: Vec<Vec<u8>> = fs
                        .read_dir(&at)
                        .unwrap()
                        .map(|entry| entry.unwrap().file_name().as_ref().to_vec())
                        .filter(|name| name != b"." && name != b"..")
                        .collect();
                    names.sort();
                    assert!(names.iter().map(Vec::as_slice).eq(directory.children.keys().map(|n| &**n)));
                }
                NodeKind::Symlink(target) => {
                    assert_eq!(fs.read_link(&at).unwrap().as_ref() as &[u8], &**target, "{at:?}");
                }
                _ => {}
            }
        }
    }
}

/// What ext4-view refuses: paths longer than 4096 bytes, and times whose lower 32 bits are
/// negative. The kernel reads both.
fn unreadable(path: &[u8], node: &Node) -> bool {
    let low = node.mtime.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX) + (3 << 32)) << 32 >> 63;
    path.len() > 1000 || low < 0
}

struct Reader(File);

impl ext4_view::Ext4Read for Reader {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_exact_at(to, start)?)
    }
}

/// What a file's bytes must be.
pub(crate) fn expected(node: &Node, content: &FileContent) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(content.size).unwrap()];
    for segment in &content.segments {
        let at = usize::try_from(segment.file_offset).unwrap();
        let length = usize::try_from(segment.length).unwrap();
        Pattern.read_exact_at(node.layer, segment.spool_offset, &mut out[at..at + length]).unwrap();
    }
    out
}

/// Writes the chunks of an image that are not zero to a sparse file.
pub(crate) fn write(layout: &Layout, source: &dyn FileSource, to: &Path) {
    let file = File::create(to).unwrap();
    file.set_len(layout.device_length()).unwrap();
    let mut chunk = vec![0xaa; 512 * 1024];
    let zero = vec![0; 512 * 1024];
    for index in layout.occupied_chunks() {
        layout.render(index, source, &mut chunk).unwrap();
        if chunk == zero {
            continue;
        }
        file.write_all_at(&chunk, u64::from(index) * 512 * 1024).unwrap();
    }
}

/// e2fsck must have nothing to say but its passes and its summary.
pub(crate) fn check(image: &Path) {
    let output = Command::new("e2fsck").arg("-fn").arg(image).output().expect("e2fsck is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let quiet = text.lines().all(|line| {
        line.starts_with("Pass ") || line.is_empty() || line.contains(" files (") && line.contains(" blocks")
    });
    assert!(output.status.success() && quiet, "{}\n{text}", output.status);
}
