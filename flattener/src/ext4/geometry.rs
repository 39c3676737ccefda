//! The size of the device and where its fixed regions are.
//!
//! Superblock and descriptors come first and end before [`Geometry::DATA`]; bitmaps and
//! inode tables are at the very end, so that the data between never moves. Group g's bitmaps
//! are in set g / 64 of one chunk: 64 block bitmaps, then 64 inode bitmaps.

use super::{BLOCK, CHUNK_BLOCKS, GROUP_BLOCKS, GROUP_INODES, LayoutError, TABLE_BLOCKS};

/// Blocks left free for those who write to a mounted image: 4 GiB.
const SPARE_BLOCKS: u64 = 4 * 1024 * 1024 * 1024 / BLOCK;
/// Inodes left free for them.
const SPARE_INODES: u64 = 65536;
/// Groups per chunk of bitmaps.
const SET: u32 = 64;
/// Group descriptors per block.
const DESCRIPTORS_PER_BLOCK: u32 = 64;

/// Sizes and places that follow from the number of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    groups: u32,
}

impl Geometry {
    /// First block of layers: two chunks are kept for superblock and descriptors.
    pub(super) const DATA: u64 = 2 * CHUNK_BLOCKS;
    /// As many as have their descriptors in front of the data: just under 2 TiB.
    pub(super) const MAX_GROUPS: u32 = 255 * DESCRIPTORS_PER_BLOCK;

    /// The smallest device for layers that end at block `data_end`, and numbers up to
    /// `last_inode`.
    pub(super) fn new(data_end: u64, last_inode: u64) -> Result<Self, LayoutError> {
        let by_inodes = (last_inode + SPARE_INODES).div_ceil(u64::from(GROUP_INODES));
        let mut groups = by_inodes.max((data_end + SPARE_BLOCKS).div_ceil(GROUP_BLOCKS));
        while data_end + SPARE_BLOCKS + Self::tail(groups) > groups * GROUP_BLOCKS {
            groups += 1;
        }
        u32::try_from(groups)
            .ok()
            .filter(|&groups| groups <= Self::MAX_GROUPS)
            .map(|groups| Self { groups })
            .ok_or(LayoutError::TooLarge { needed: groups })
    }

    /// Blocks of bitmaps and tables.
    fn tail(groups: u64) -> u64 {
        groups.div_ceil(u64::from(SET)) * CHUNK_BLOCKS + groups * TABLE_BLOCKS
    }

    pub(super) fn groups(self) -> u32 {
        self.groups
    }

    pub(super) fn blocks(self) -> u64 {
        u64::from(self.groups) * GROUP_BLOCKS
    }

    pub(super) fn inodes(self) -> u32 {
        self.groups * GROUP_INODES
    }

    /// Superblock and descriptors.
    pub(super) fn descriptor_blocks(self) -> u64 {
        1 + u64::from(self.groups.div_ceil(DESCRIPTORS_PER_BLOCK))
    }

    /// First block of the inode tables, which end with the device.
    pub(super) fn tables(self) -> u64 {
        self.blocks() - u64::from(self.groups) * TABLE_BLOCKS
    }

    fn bitmaps(self) -> u64 {
        self.blocks() - Self::tail(u64::from(self.groups))
    }

    pub(super) fn block_bitmap(self, group: u32) -> u64 {
        self.bitmaps() + u64::from(group / SET) * CHUNK_BLOCKS + u64::from(group % SET)
    }

    pub(super) fn inode_bitmap(self, group: u32) -> u64 {
        self.block_bitmap(group) + u64::from(SET)
    }

    pub(super) fn inode_table(self, group: u32) -> u64 {
        self.tables() + u64::from(group) * TABLE_BLOCKS
    }

    /// Sets of groups whose bitmaps are adjacent: first group and number.
    pub(super) fn sets(self) -> impl Iterator<Item = (u32, u32)> {
        let step = usize::try_from(SET).expect("64");
        (0..self.groups).step_by(step).map(move |first| (first, SET.min(self.groups - first)))
    }
}
