//! Block groups: bitmaps and descriptors.
//!
//! A group without a used block or inode carries the UNINIT flags and has no bitmap on the
//! device. Every table counts as zeroed, because unwritten chunks are.

use super::checksum::{crc, halves, put, words};
use super::{BLOCK_LEN, CHECKSUM_SEED, FIRST_INODE, GROUP_BLOCKS, GROUP_INODES, Layout, Owner};

/// Length of a descriptor with the 64bit feature.
pub(super) const DESCRIPTOR_LEN: usize = 64;
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;

/// Descriptors and the sums that the superblock repeats.
pub(super) struct Groups {
    pub(super) descriptors: Vec<u8>,
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u32,
}

/// Counts all groups and writes their descriptors.
pub(super) fn describe(layout: &Layout) -> Groups {
    let mut out = Groups { descriptors: Vec::new(), free_blocks: 0, free_inodes: 0 };
    let mut bitmap = vec![0; BLOCK_LEN];
    for group in 0..layout.geometry.groups() {
        let mut flags = INODE_ZEROED;
        let mut block_sum = [0; 4];
        let used_blocks = block_bitmap(layout, group, &mut bitmap);
        if used_blocks == 0 {
            flags |= BLOCK_UNINIT;
        } else {
            block_sum = crc(CHECKSUM_SEED, &bitmap).to_le_bytes();
        }
        let mut inode_sum = [0; 4];
        let inodes = inode_bitmap(layout, group, &mut bitmap);
        if inodes.used == 0 {
            flags |= INODE_UNINIT;
        } else {
            inode_sum = crc(CHECKSUM_SEED, &bitmap[..GROUP_INODES as usize / 8]).to_le_bytes();
        }
        let free_blocks = GROUP_BLOCKS - used_blocks;
        let free_inodes = GROUP_INODES - inodes.used;
        out.free_blocks += free_blocks;
        out.free_inodes += free_inodes;
        let mut descriptor = [0; DESCRIPTOR_LEN];
        place(layout, group, &mut descriptor);
        put(&mut descriptor, 0x0c, &short(free_blocks));
        put(&mut descriptor, 0x0e, &short(u64::from(free_inodes)));
        put(&mut descriptor, 0x10, &short(u64::from(inodes.directories)));
        put(&mut descriptor, 0x12, &flags.to_le_bytes());
        put(&mut descriptor, 0x18, &block_sum[..2]);
        put(&mut descriptor, 0x1a, &inode_sum[..2]);
        put(&mut descriptor, 0x1c, &short(u64::from(GROUP_INODES - inodes.end)));
        put(&mut descriptor, 0x38, &block_sum[2..]);
        put(&mut descriptor, 0x3a, &inode_sum[2..]);
        let (sum, _) = halves(crc(crc(CHECKSUM_SEED, &group.to_le_bytes()), &descriptor));
        put(&mut descriptor, 0x1e, &sum);
        out.descriptors.extend_from_slice(&descriptor);
    }
    out
}

fn short(value: u64) -> [u8; 2] {
    u16::try_from(value).expect("a group has at most 32768 of anything").to_le_bytes()
}

fn place(layout: &Layout, group: u32, descriptor: &mut [u8]) {
    let geometry = layout.geometry;
    let places = [geometry.block_bitmap(group), geometry.inode_bitmap(group), geometry.inode_table(group)];
    for (at, block) in [0, 4, 8].into_iter().zip(places) {
        let (low, high) = words(block);
        put(descriptor, at, &low);
        put(descriptor, at + 0x20, &high);
    }
}

/// Fills a group's block bitmap. The number of used blocks.
pub(super) fn block_bitmap(layout: &Layout, group: u32, out: &mut [u8]) -> u64 {
    out.fill(0);
    let start = u64::from(group) * GROUP_BLOCKS;
    let end = start + GROUP_BLOCKS;
    let mut used = 0;
    for piece in layout.pieces_in(start, end) {
        let first = piece.start.max(start) - start;
        let last = (piece.start + piece.blocks).min(end) - start;
        used += last - first;
        set_bits(out, first, last);
    }
    used
}

/// Sets the bits from `first` up to but not including `last`.
fn set_bits(out: &mut [u8], first: u64, last: u64) {
    let mut bit = first;
    while bit < last {
        let byte = usize::try_from(bit / 8).expect("within a block");
        if bit.is_multiple_of(8) && last - bit >= 8 {
            out[byte] = 0xff;
            bit += 8;
        } else {
            out[byte] |= 1 << (bit % 8);
            bit += 1;
        }
    }
}

/// What a group's inode bitmap says.
pub(super) struct InodeUse {
    pub(super) used: u32,
    pub(super) directories: u32,
    /// Position behind the last used inode.
    end: u32,
}

/// Fills a group's inode bitmap; what is beyond the group's inodes counts as used.
pub(super) fn inode_bitmap(layout: &Layout, group: u32, out: &mut [u8]) -> InodeUse {
    out.fill(0);
    out[GROUP_INODES as usize / 8..].fill(0xff);
    let mut state = InodeUse { used: 0, directories: 0, end: 0 };
    let first = group * GROUP_INODES + 1;
    let mut mark = |ino: u32, owner: Option<Owner>| {
        let at = ino - first;
        state.used += 1;
        state.end = state.end.max(at + 1);
        set_bits(out, u64::from(at), u64::from(at) + 1);
        let directory =
            matches!(owner, Some(Owner::Node(id)) if layout.nodes[id.index()].directory().is_some());
        state.directories += u32::from(directory);
    };
    if group == 0 {
        // reserved numbers are used; the root directory, among them, is marked below
        (1..FIRST_INODE).filter(|&ino| ino != super::ROOT_INODE).for_each(|ino| mark(ino, None));
    }
    for &(ino, owner) in layout.inodes_in(first, first + GROUP_INODES) {
        mark(ino, Some(owner));
    }
    state
}
