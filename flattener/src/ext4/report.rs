//! What lies where, for reports: chunks by use, paths by chunks.

use std::ops::Range;

use super::{CHUNK_BLOCKS, Layout, What, dir, extent};
use crate::layer::entry::LayerIndex;
use crate::tree::{NodeId, NodeKind};

/// What a chunk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkUse {
    /// Superblock and group descriptors: the first thing a mount reads.
    Descriptors,
    /// Bitmaps: read only by those who write.
    Bitmaps,
    /// Inodes.
    Inodes,
    /// Directories, long link targets, attribute blocks and extent trees.
    Metadata,
    /// File contents.
    Data,
    /// Nothing: all zeros.
    Nothing,
}

/// A path and its content's place on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path as bytes, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// The layer that made the file or directory.
    pub layer: LayerIndex,
    /// Chunks with its contents; empty if it has none on the device.
    pub chunks: Range<u32>,
}

impl Layout {
    /// What a chunk is for. Regions start on chunk boundaries, so a chunk has one use.
    #[must_use]
    pub fn chunk_use(&self, chunk: u32) -> ChunkUse {
        let start = u64::from(chunk) * CHUNK_BLOCKS;
        match self.pieces_in(start, start + CHUNK_BLOCKS).next().map(|piece| piece.what) {
            None => ChunkUse::Nothing,
            Some(What::Descriptors) => ChunkUse::Descriptors,
            Some(What::BlockBitmaps(_) | What::InodeBitmaps(_)) => ChunkUse::Bitmaps,
            Some(What::InodeTables) => ChunkUse::Inodes,
            Some(What::Data(_)) => ChunkUse::Data,
            Some(_) => ChunkUse::Metadata,
        }
    }

    /// Every name in the image, parents first, in the order of the directories' blocks.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let mut stack = vec![(Vec::new(), NodeId::ROOT)];
        std::iter::from_fn(move || {
            let (path, id) = stack.pop()?;
            let entries = self.directories.get(&id).map_or(&[][..], |contents| &contents.entries);
            for (name, child) in entries.iter().rev() {
                let mut full = path.clone();
                if !full.is_empty() {
                    full.push(b'/');
                }
                full.extend_from_slice(name);
                stack.push((full, *child));
            }
            Some(Place { path, layer: self.nodes[id.index()].layer, chunks: self.content_chunks(id) })
        })
    }

    fn content_chunks(&self, id: NodeId) -> Range<u32> {
        let start = self.homes[id.index()].data;
        let blocks = match &self.nodes[id.index()].kind {
            NodeKind::File(content) => extent::data_blocks(content),
            NodeKind::Directory(_) => self.directories.get(&id).map_or(0, dir::Contents::blocks),
            NodeKind::Symlink(_) => u64::from(start > 0),
            _ => 0,
        };
        let chunk = |block: u64| u32::try_from(block).expect("at most 2^22 chunks");
        if blocks == 0 {
            return 0..0;
        }
        chunk(start / CHUNK_BLOCKS)..chunk((start + blocks).div_ceil(CHUNK_BLOCKS))
    }
}
