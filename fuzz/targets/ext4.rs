//! The whole way from an archive to a file system, read back by an independent reader: the
//! ext4-view crate must find what the tree says.

#![no_main]

use flattener::ext4::{FileSource, FilesystemIdentity, Layout};
use flattener::layer::Spool;
use flattener::layer::entry::{FileContent, LayerIndex};
use flattener::tree::{Node, NodeKind, Tree};
use fuzz::layers;
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::Arc;

const CHUNK: usize = 512 << 10;
/// Files that are compared byte by byte.
const COMPARED_BYTES: u64 = 1 << 20;
/// Larger trees take longer than a fuzzer should wait.
const NODES_MAX: usize = 64;

struct Source(Spool);

impl FileSource for Source {
    fn read_exact_at(&self, _layer: LayerIndex, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(offset, buf)
    }
}

/// The device, its chunks made when they are asked for.
struct Device {
    layout: Layout,
    source: Arc<Source>,
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

fuzz_target!(|data: &[u8]| {
    let Some((layer, spool)) = layers::read_archive(0, data) else { return };
    let Ok(tree) = Tree::apply(&[layer]) else { return };
    if tree.node_count() > NODES_MAX {
        return;
    }
    let Ok(layout) = Layout::plan(tree.clone(), &FilesystemIdentity::from_digest(&[7; 32])) else { return };
    assert!(layout.occupied_chunks().is_sorted_by(|a, b| a < b));
    assert!(layout.occupied_chunks().all(|chunk| chunk < layout.chunk_count()));
    let source = Arc::new(Source(spool));
    let device = Device { layout, source: Arc::clone(&source), chunks: HashMap::new() };
    let fs = ext4_view::Ext4::load(Box::new(device)).expect("a file system");
    for (path, id) in tree.entries() {
        let node = tree.node(id);
        if !unreadable(&path, node) {
            compare(&fs, &path, node, &source);
        }
    }
});

/// What ext4-view refuses: long paths, and times whose lower 32 bits are negative. The
/// kernel reads both.
fn unreadable(path: &[u8], node: &Node) -> bool {
    let low = node.mtime.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX) + (3 << 32)) << 32 >> 63;
    path.len() > 1000 || low < 0
}

fn compare(fs: &ext4_view::Ext4, path: &[u8], node: &Node, source: &Source) {
    let full = [b"/", path].concat();
    let at = ext4_view::PathBuf::try_from(full.as_slice()).expect("a path");
    let metadata = fs.symlink_metadata(&at).expect("an inode");
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (node.mode, node.uid, node.gid));
    match &node.kind {
        NodeKind::File(content) => {
            assert_eq!(metadata.len(), content.size);
            if content.size <= COMPARED_BYTES {
                assert!(fs.read(&at).expect("the file") == expected(content, source), "{at:?}");
            }
        }
        NodeKind::Directory(directory) => {
            let names = fs.read_dir(&at).expect("a directory").map(|e| e.expect("an entry"));
            let mut names: Vec<Vec<u8>> = names.map(|e| e.file_name().as_ref().to_vec()).collect();
            names.retain(|name| name != b"." && name != b"..");
            names.sort();
            let found = names.iter().map(Vec::as_slice);
            assert!(found.eq(directory.children.keys().map(|name| &**name)), "{at:?}");
        }
        NodeKind::Symlink(target) => {
            assert_eq!(fs.read_link(&at).expect("a link").as_ref() as &[u8], &**target);
        }
        _ => {}
    }
}

/// What a file's bytes must be.
fn expected(content: &FileContent, source: &Source) -> Vec<u8> {
    let index = |offset: u64| usize::try_from(offset).expect("a small file");
    let mut out = vec![0; index(content.size)];
    for segment in &content.segments {
        let part = &mut out[index(segment.file_offset)..][..index(segment.length)];
        source.0.read_exact_at(segment.spool_offset, part).expect("the spool has it");
    }
    out
}
