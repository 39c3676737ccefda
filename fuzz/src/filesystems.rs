//! File systems made from trees, read back by an independent reader: the ext4-view crate
//! must find what the tree says.

use flattener::ext4::{FileSource, FilesystemIdentity, Layout};
use flattener::layer::entry::FileContent;
use flattener::tree::{Node, NodeKind, Tree};
use std::collections::HashMap;
use std::sync::Arc;

const CHUNK: usize = 512 << 10;
/// Files that are compared byte by byte.
const COMPARED_BYTES: u64 = 1 << 20;
/// Chunks that are made even if the reader then knows better than to read them.
const RENDERED_CHUNKS: usize = 4;
/// Larger trees take longer than a fuzzer should wait.
const NODES_MAX: usize = 64;

/// The device, its chunks made when they are asked for.
struct Device {
    layout: Layout,
    source: Arc<dyn FileSource>,
    chunks: HashMap<u32, Vec<u8>>,
}

impl ext4_view::Ext4Read for Device {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let mut done = 0;
        while done < to.len() {
            let at = start + u64::try_from(done)?;
            let (index, within) = (u32::try_from(at / CHUNK as u64)?, usize::try_from(at % CHUNK as u64)?);
            if !self.chunks.contains_key(&index) {
                let mut chunk = vec![0xaa; CHUNK];
                self.layout.render(index, &*self.source, &mut chunk)?;
                self.chunks.insert(index, chunk);
            }
            let take = (CHUNK - within).min(to.len() - done);
            to[done..done + take].copy_from_slice(&self.chunks[&index][within..within + take]);
            done += take;
        }
        Ok(())
    }
}

/// Makes the tree a file system, if it is small and fits, and compares all of it.
///
/// # Panics
/// If anything reads back otherwise than the tree says.
pub fn check(tree: &Tree, source: &Arc<dyn FileSource>) {
    if tree.node_count() > NODES_MAX {
        return;
    }
    let Ok(layout) = Layout::plan(tree.clone(), &FilesystemIdentity::from_digest(&[7; 32])) else { return };
    // A file of terabytes has millions of chunks; the first ones will do.
    let mut last = None;
    for chunk in layout.occupied_chunks().take(1 << 16) {
        assert!(chunk < layout.chunk_count() && last < Some(chunk), "ascending, inside the device");
        last = Some(chunk);
    }
    let mut chunk = vec![0; CHUNK];
    for index in layout.occupied_chunks().take(RENDERED_CHUNKS) {
        layout.render(index, &**source, &mut chunk).expect("the source gives all bytes");
    }
    let device = Device { layout, source: Arc::clone(source), chunks: HashMap::new() };
    let fs = match ext4_view::Ext4::load(Box::new(device)) {
        Ok(fs) => fs,
        // It does not know large extended attributes, which have inodes of their own.
        Err(ext4_view::Ext4Error::Incompatible(_)) => return,
        Err(error) => panic!("not a file system: {error}"),
    };
    // Parents come first: what is below a directory that cannot be read cannot either.
    let mut closed: Vec<Vec<u8>> = Vec::new();
    for (path, id) in tree.entries() {
        let node = tree.node(id);
        if closed.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        if !unreadable(&path, node) {
            compare(&fs, &path, node, &**source);
        } else if node.directory().is_some() {
            closed.push(if path.is_empty() { path } else { [&path[..], b"/"].concat() });
        }
    }
}

/// The seconds that ext4 can hold.
fn clamped(seconds: i64) -> i64 {
    seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX) + (3 << 32))
}

/// What ext4-view refuses: long paths, and times whose lower 32 bits are negative. The
/// kernel reads both.
fn unreadable(path: &[u8], node: &Node) -> bool {
    path.len() > 1000 || clamped(node.mtime.seconds) << 32 >> 63 < 0
}

fn compare(fs: &ext4_view::Ext4, path: &[u8], node: &Node, source: &dyn FileSource) {
    let full = [b"/", path].concat();
    let at = ext4_view::PathBuf::try_from(full.as_slice()).expect("a path");
    let metadata = fs.symlink_metadata(&at).expect("an inode");
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (node.mode, node.uid, node.gid));
    if clamped(node.mtime.seconds) == node.mtime.seconds {
        let modified = metadata.modified();
        let found = (modified.seconds(), modified.nanoseconds());
        assert_eq!(found, (node.mtime.seconds, node.mtime.nanoseconds), "{at:?}");
    }
    match &node.kind {
        NodeKind::File(content) => {
            assert_eq!(metadata.len(), content.size);
            if content.size <= COMPARED_BYTES {
                let expected = expected(node, content, source);
                assert!(fs.read(&at).expect("the file") == expected, "bytes of {at:?}");
            }
        }
        NodeKind::Directory(directory) => {
            let names = fs.read_dir(&at).expect("a directory").map(|entry| entry.expect("an entry"));
            let mut names: Vec<Vec<u8>> = names.map(|entry| entry.file_name().as_ref().to_vec()).collect();
            names.retain(|name| name != b"." && name != b"..");
            names.sort();
            let found = names.iter().map(Vec::as_slice);
            assert!(found.eq(directory.children.keys().map(|name| &**name)), "names in {at:?}");
        }
        // It refuses targets that no path can be, which Linux stores all the same.
        NodeKind::Symlink(target) if ext4_view::PathBuf::try_from(&**target).is_ok() => {
            assert_eq!(fs.read_link(&at).expect("a link").as_ref() as &[u8], &**target);
        }
        _ => {}
    }
}

/// What a file's bytes must be.
fn expected(node: &Node, content: &FileContent, source: &dyn FileSource) -> Vec<u8> {
    let index = |offset: u64| usize::try_from(offset).expect("a small file");
    let mut out = vec![0; index(content.size)];
    for segment in &content.segments {
        let part = &mut out[index(segment.file_offset)..][..index(segment.length)];
        source.read_exact_at(node.layer, segment.spool_offset, part).expect("the source has it");
    }
    out
}
