//! Which blocks of a file exist, and the extent tree that says where they are.
//!
//! A file's blocks lie in one run of the device in file order, holes left out; an extent
//! is therefore a file position, a length, and an index among the file's own blocks. Trees
//! with more than four extents get their own blocks: leaves first, then each level above,
//! all in one run.

use super::BLOCK;
use super::checksum::{crc, inode_seed, put, words};
use crate::layer::entry::FileContent;

/// Longest extent that is not marked as unwritten.
const MAX_EXTENT: u64 = 32768;
/// Extents or index entries in the inode itself.
const IN_INODE: u64 = 4;
/// Extents or index entries in one block: 4096 less a header and a checksum, by 12.
const PER_BLOCK: u64 = 340;
const MAGIC: u16 = 0xf30a;

/// A run of blocks without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First block within the file.
    pub(super) logical: u32,
    /// Blocks, at most [`MAX_EXTENT`].
    pub(super) blocks: u16,
    /// First block within the file's run on the device.
    pub(super) index: u64,
}

/// Runs of blocks that hold bytes, as (first block, count), holes in between.
fn runs(content: &FileContent) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut segments = content.segments.iter().peekable();
    std::iter::from_fn(move || {
        let segment = segments.next()?;
        let first = segment.file_offset / BLOCK;
        let mut end = (segment.file_offset + segment.length).div_ceil(BLOCK);
        while let Some(next) = segments.next_if(|next| next.file_offset / BLOCK <= end) {
            end = (next.file_offset + next.length).div_ceil(BLOCK);
        }
        Some((first, end - first))
    })
}

/// Blocks that the file has on the device, without its extent tree.
pub(super) fn data_blocks(content: &FileContent) -> u64 {
    runs(content).map(|(_, count)| count).sum()
}

/// The extents of a file no larger than ext4 allows.
pub(super) fn extents(content: &FileContent) -> Vec<Extent> {
    let mut out = Vec::new();
    let mut index = 0;
    for (first, count) in runs(content) {
        push(&mut out, first, count, &mut index);
    }
    out
}

/// The extents of a directory or link without holes.
pub(super) fn dense(blocks: u64) -> Vec<Extent> {
    let mut out = Vec::new();
    push(&mut out, 0, blocks, &mut 0);
    out
}

fn push(out: &mut Vec<Extent>, first: u64, count: u64, index: &mut u64) {
    let mut done = 0;
    while done < count {
        let blocks = (count - done).min(MAX_EXTENT);
        out.push(Extent {
            logical: u32::try_from(first + done).expect("files end before block 2^32"),
            blocks: u16::try_from(blocks).expect("at most 32768"),
            index: *index,
        });
        *index += blocks;
        done += blocks;
    }
}

/// Number of extents without making them.
pub(super) fn extent_count(content: &FileContent) -> u64 {
    runs(content).map(|(_, count)| count.div_ceil(MAX_EXTENT)).sum()
}

/// Blocks at each level of the tree outside the inode, leaves first; none if all fit in it.
fn levels(extents: u64) -> Vec<u64> {
    let mut out = Vec::new();
    let mut count = extents;
    while count > IN_INODE {
        count = count.div_ceil(PER_BLOCK);
        out.push(count);
    }
    out
}

/// Blocks of the tree outside the inode.
pub(super) fn tree_blocks(extents: u64) -> u64 {
    levels(extents).iter().sum()
}

/// Fills an inode's 60 bytes. `data` is where the file's blocks start, `tree` where the
/// tree's do.
pub(super) fn encode_root(extents: &[Extent], data: u64, tree: u64, out: &mut [u8]) {
    let levels = levels(extents.len() as u64);
    let depth = levels.len();
    if depth == 0 {
        encode_leaf(extents, data, IN_INODE, out);
        return;
    }
    let below: u64 = levels[..depth - 1].iter().sum();
    encode_index(extents, depth, 0..levels[depth - 1], tree + below, IN_INODE, out);
}

/// Fills block `index` of the tree.
pub(super) fn encode_block(extents: &[Extent], data: u64, tree: u64, index: u64, ino: u32, out: &mut [u8]) {
    let levels = levels(extents.len() as u64);
    let mut start = 0; // of the level, within the tree
    let mut below = 0; // start of the level below
    for (depth, &count) in levels.iter().enumerate() {
        if index < start + count {
            let first = (index - start) * PER_BLOCK;
            if depth == 0 {
                let end = (first + PER_BLOCK).min(extents.len() as u64);
                encode_leaf(&extents[position(first)..position(end)], data, PER_BLOCK, out);
            } else {
                let end = (first + PER_BLOCK).min(levels[depth - 1]);
                encode_index(extents, depth, first..end, tree + below, PER_BLOCK, out);
            }
            break;
        }
        below = start;
        start += count;
    }
    let checksum = crc(inode_seed(ino), &out[..4092]);
    put(out, 4092, &checksum.to_le_bytes());
}

fn encode_leaf(extents: &[Extent], data: u64, max: u64, out: &mut [u8]) {
    header(extents.len() as u64, max, 0, out);
    for (entry, extent) in out[12..].chunks_exact_mut(12).zip(extents) {
        let (low, high) = words(data + extent.index);
        put(entry, 0, &extent.logical.to_le_bytes());
        put(entry, 4, &extent.blocks.to_le_bytes());
        put(entry, 6, &high[..2]);
        put(entry, 8, &low);
    }
}

/// Entries for the blocks `children` of the level below, which starts at `base`.
fn encode_index(
    extents: &[Extent],
    depth: usize,
    children: std::ops::Range<u64>,
    base: u64,
    max: u64,
    out: &mut [u8],
) {
    header(children.end - children.start, max, depth, out);
    // extents under one block of the level below
    let span = (0..depth).fold(1, |span, _| span * PER_BLOCK);
    for (entry, child) in out[12..].chunks_exact_mut(12).zip(children) {
        let (low, high) = words(base + child);
        put(entry, 0, &extents[position(child * span)].logical.to_le_bytes());
        put(entry, 4, &low);
        put(entry, 8, &high[..2]);
    }
}

fn header(entries: u64, max: u64, depth: usize, out: &mut [u8]) {
    let short = |value: u64| u16::try_from(value).expect("at most 340").to_le_bytes();
    put(out, 0, &MAGIC.to_le_bytes());
    put(out, 2, &short(entries));
    put(out, 4, &short(max));
    put(out, 6, &short(depth as u64));
}

fn position(index: u64) -> usize {
    usize::try_from(index).expect("an index into a list in memory")
}
