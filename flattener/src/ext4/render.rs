//! Chunks of the device from the plan.
//!
//! Any chunk, any order, any thread: rendering reads the layout and the source only. File
//! bytes go from the source straight to their place in the chunk.

use super::dir::Target;
use super::xattr::Split;
use super::{
    BLOCK, BLOCK_LEN, CHUNK_BLOCKS, CHUNK_LEN, FileSource, GROUP_INODES, INODE_LEN, Layout, Owner, Piece,
    RenderError, What, extent, group, inode,
};
use crate::tree::{NodeId, NodeKind};

/// Inodes in a block of the table.
const BLOCK_INODES: u32 = 16;

impl Layout {
    /// Chunks that may hold anything but zeros, ascending, each once.
    pub fn occupied_chunks(&self) -> impl Iterator<Item = u32> + '_ {
        let mut done = 0; // all chunks below have been given
        self.pieces.iter().flat_map(|piece| self.written_runs(piece)).flat_map(move |(start, blocks)| {
            let first = (start / CHUNK_BLOCKS).max(done);
            let end = (start + blocks).div_ceil(CHUNK_BLOCKS);
            done = done.max(end);
            (first..end).map(|chunk| u32::try_from(chunk).expect("at most 2^22 chunks"))
        })
    }

    /// The parts of a piece that are not known to be zeros, ascending.
    fn written_runs(&self, piece: &Piece) -> Box<dyn Iterator<Item = (u64, u64)> + '_> {
        let start = piece.start;
        match piece.what {
            What::BlockBitmaps(first) => Box::new((0..piece.blocks).filter_map(move |index| {
                let group = first + u32::try_from(index).expect("at most 64 in a set");
                let from = u64::from(group) * super::GROUP_BLOCKS;
                let used = self.pieces_in(from, from + super::GROUP_BLOCKS).next().is_some();
                used.then_some((start + index, 1))
            })),
            What::InodeBitmaps(first) => Box::new((0..piece.blocks).filter_map(move |index| {
                let group = first + u32::try_from(index).expect("at most 64 in a set");
                let from = group * GROUP_INODES + 1;
                let used = group == 0 || !self.inodes_in(from, from + GROUP_INODES).is_empty();
                used.then_some((start + index, 1))
            })),
            What::InodeTables => Box::new(
                self.inodes.iter().map(move |&(ino, _)| (start + u64::from((ino - 1) / BLOCK_INODES), 1)),
            ),
            _ => Box::new(std::iter::once((start, piece.blocks))),
        }
    }

    /// Makes one chunk; what nothing lives in is zero.
    ///
    /// # Errors
    /// [`RenderError`] if the chunk is beyond the device, `out` is not 512 KiB long, or the
    /// source fails; `out` is of no use then.
    pub fn render(&self, chunk: u32, source: &dyn FileSource, out: &mut [u8]) -> Result<(), RenderError> {
        if chunk >= self.chunk_count() {
            return Err(RenderError::Beyond { chunk, count: self.chunk_count() });
        }
        if out.len() != CHUNK_LEN {
            return Err(RenderError::Buffer(out.len()));
        }
        out.fill(0);
        let start = u64::from(chunk) * CHUNK_BLOCKS;
        let end = start + CHUNK_BLOCKS;
        for piece in self.pieces_in(start, end) {
            let first = piece.start.max(start);
            let last = (piece.start + piece.blocks).min(end);
            let part = &mut out[bytes(first - start)..bytes(last - start)];
            if let What::Data(node) = piece.what {
                self.render_data(node, first - piece.start, source, part)?;
            } else {
                for (block, index) in part.chunks_exact_mut(BLOCK_LEN).zip(first - piece.start..) {
                    self.render_block(piece, index, block);
                }
            }
        }
        Ok(())
    }

    /// Pieces that overlap blocks `start` to `end`.
    pub(super) fn pieces_in(&self, start: u64, end: u64) -> impl Iterator<Item = &Piece> {
        let first = self.pieces.partition_point(|piece| piece.start + piece.blocks <= start);
        self.pieces[first..].iter().take_while(move |piece| piece.start < end)
    }

    /// Used inodes with numbers from `first` to below `end`.
    pub(super) fn inodes_in(&self, first: u32, end: u32) -> &[(u32, Owner)] {
        let from = self.inodes.partition_point(|&(ino, _)| ino < first);
        let to = self.inodes.partition_point(|&(ino, _)| ino < end);
        &self.inodes[from..to]
    }

    /// Number of the first inode with a value of this node; 0 if it has none.
    fn first_value(&self, id: NodeId) -> u32 {
        let at = self.values.partition_point(|value| value.node < id);
        self.values.get(at).filter(|value| value.node == id).map_or(0, |value| value.ino)
    }

    /// Does something with an attribute value that has an inode of its own.
    pub(super) fn with_value<T: Default>(&self, value: u32, act: impl FnOnce(&[u8]) -> T) -> T {
        let home = &self.values[value as usize];
        // planned once without an error, and again every time the same
        let split = Split::plan(self.nodes[home.node.index()].xattrs()).unwrap_or_default();
        split.outside().nth(home.index).map_or_else(T::default, act)
    }

    /// Fills a file's blocks from its block `index` on.
    fn render_data(
        &self,
        id: NodeId,
        index: u64,
        source: &dyn FileSource,
        out: &mut [u8],
    ) -> Result<(), RenderError> {
        let node = &self.nodes[id.index()];
        let NodeKind::File(content) = &node.kind else { return Ok(()) };
        let few;
        let extents = match self.extents.get(&id) {
            Some(many) => many.as_slice(),
            None => {
                few = extent::extents(content);
                &few
            }
        };
        let end = index + (out.len() / BLOCK_LEN) as u64;
        let from = extents.partition_point(|e| e.index + u64::from(e.blocks) <= index);
        for run in extents[from..].iter().take_while(|e| e.index < end) {
            let first = run.index.max(index);
            let last = (run.index + u64::from(run.blocks)).min(end);
            // bytes of the file, and where they go
            let begin = (u64::from(run.logical) + first - run.index) * BLOCK;
            let finish = begin + (last - first) * BLOCK;
            let part = &mut out[bytes(first - index)..bytes(last - index)];
            let segments = &content.segments;
            let from = segments.partition_point(|s| s.file_offset + s.length <= begin);
            for segment in segments[from..].iter().take_while(|s| s.file_offset < finish) {
                let start = segment.file_offset.max(begin);
                let stop = (segment.file_offset + segment.length).min(finish);
                let offset = segment.spool_offset + (start - segment.file_offset);
                let part = &mut part[position(start - begin)..position(stop - begin)];
                let length = part.len();
                source.read_exact_at(node.layer, offset, part).map_err(|source| RenderError::Source {
                    layer: node.layer,
                    offset,
                    length,
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Fills block `index` of a piece of metadata.
    fn render_block(&self, piece: &Piece, index: u64, out: &mut [u8]) {
        let small = |value: u64| u32::try_from(value).expect("within a piece of metadata");
        match piece.what {
            What::Descriptors => {
                let rest = &self.descriptors[bytes(index)..];
                let length = rest.len().min(BLOCK_LEN);
                out[..length].copy_from_slice(&rest[..length]);
            }
            What::BlockBitmaps(first) => {
                group::block_bitmap(self, first + small(index), out);
            }
            What::InodeBitmaps(first) => {
                if group::inode_bitmap(self, first + small(index), out).used == 0 {
                    out.fill(0); // uninitialised: not on the device
                }
            }
            What::InodeTables => {
                let first = small(index) * BLOCK_INODES + 1;
                for &(ino, owner) in self.inodes_in(first, first + BLOCK_INODES) {
                    let at = (ino - first) as usize * INODE_LEN;
                    let out = &mut out[at..at + INODE_LEN];
                    match owner {
                        Owner::Node(id) => self.encode_inode(ino, id, out),
                        Owner::Value(value) => self.encode_value_inode(value, out),
                    }
                }
            }
            What::Directory(id) => {
                let target = |node: NodeId| Target {
                    ino: self.homes[node.index()].ino,
                    file_type: inode::file_type(&self.nodes[node.index()].kind),
                };
                let own = self.homes[id.index()].ino;
                self.directories[&id].encode(small(index) as usize, own, &target, out);
            }
            What::Symlink(id) => {
                if let NodeKind::Symlink(target) = &self.nodes[id.index()].kind {
                    out[..target.len()].copy_from_slice(target);
                }
            }
            What::Xattrs(id) => {
                if let Ok(split) = Split::plan(self.nodes[id.index()].xattrs()) {
                    split.encode_block(piece.start, self.first_value(id), out);
                }
            }
            What::Extents(id) => {
                let home = &self.homes[id.index()];
                extent::encode_block(&self.extents[&id], home.data, home.extents, index, home.ino, out);
            }
            What::Value(value) => self.with_value(value, |bytes| {
                let rest = &bytes[position(index * BLOCK)..];
                let length = rest.len().min(BLOCK_LEN);
                out[..length].copy_from_slice(&rest[..length]);
            }),
            What::Data(_) => unreachable!("rendered from the source"),
        }
    }
}

/// Blocks within a chunk or a list in memory to bytes.
fn bytes(blocks: u64) -> usize {
    position(blocks * BLOCK)
}

fn position(value: u64) -> usize {
    usize::try_from(value).expect("an offset within memory")
}
