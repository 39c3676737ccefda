//! The superblock: features and sizes. Nothing in it tells time or place of the writing.

use super::checksum::{crc, put, words};
use super::group::{DESCRIPTOR_LEN, Groups};
use super::{
    BLOCK_LEN, CHECKSUM_SEED, FIRST_INODE, FilesystemIdentity, GROUP_BLOCKS, GROUP_INODES, HASH_SEED,
    INODE_LEN, Layout, TABLE_BLOCKS,
};

/// ext_attr, dir_index, sparse_super2 (with no backup groups: nothing of the file system
/// itself lies between the data).
const COMPATIBLE: u32 = 0x8 | 0x20 | 0x200;
/// filetype, extents, 64bit, flex_bg, metadata_csum_seed.
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000;
/// ea_inode, only where it is needed: not every reader knows it.
const VALUE_INODES: u32 = 0x400;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
/// Where the superblock starts.
const AT: usize = 1024;
const LEN: usize = 1024;

/// Superblock and descriptors from byte 0 of the device.
pub(super) fn encode(layout: &Layout, groups: &Groups, identity: &FilesystemIdentity) -> Vec<u8> {
    let mut out = vec![0; BLOCK_LEN];
    sizes(layout, groups, &mut out[AT..AT + LEN]);
    let block = &mut out[AT..AT + LEN];
    put(block, 0x36, &[0xff; 2]); // never check by number of mounts
    put(block, 0x38, &0xef53_u16.to_le_bytes());
    put(block, 0x3a, &1_u16.to_le_bytes()); // clean
    put(block, 0x3c, &1_u16.to_le_bytes()); // go on after errors
    put(block, 0x4c, &1_u32.to_le_bytes()); // revision with features
    put(block, 0x54, &FIRST_INODE.to_le_bytes());
    put(block, 0x58, &u16::try_from(INODE_LEN).expect("256").to_le_bytes());
    put(block, 0x5c, &COMPATIBLE.to_le_bytes());
    let values = if layout.values.is_empty() { 0 } else { VALUE_INODES };
    put(block, 0x60, &(INCOMPATIBLE | values).to_le_bytes());
    put(block, 0x64, &READ_ONLY_COMPATIBLE.to_le_bytes());
    put(block, 0x68, &identity.uuid);
    put(block, 0x78, &identity.label);
    for (at, word) in HASH_SEED.iter().enumerate() {
        put(block, 0xec + at * 4, &word.to_le_bytes());
    }
    put(block, 0xfc, &[1]); // half MD4
    put(block, 0xfe, &u16::try_from(DESCRIPTOR_LEN).expect("64").to_le_bytes());
    put(block, 0x100, &0xc_u32.to_le_bytes()); // user attributes and access lists
    put(block, 0x15c, &32_u16.to_le_bytes()); // extra inode size, least
    put(block, 0x15e, &32_u16.to_le_bytes()); // and wanted
    put(block, 0x160, &2_u32.to_le_bytes()); // directory hashes are of unsigned bytes
    put(block, 0x174, &[4, 1]); // 16 groups per flexible group; checksums are CRC-32C
    put(block, 0x270, &CHECKSUM_SEED.to_le_bytes());
    let checksum = crc(!0, &block[..LEN - 4]);
    put(block, LEN - 4, &checksum.to_le_bytes());
    out.extend_from_slice(&groups.descriptors);
    out
}

fn sizes(layout: &Layout, groups: &Groups, block: &mut [u8]) {
    let geometry = layout.geometry;
    let (blocks_low, blocks_high) = words(geometry.blocks());
    let (free_low, free_high) = words(groups.free_blocks);
    let per_group = u32::try_from(GROUP_BLOCKS).expect("32768").to_le_bytes();
    put(block, 0x00, &geometry.inodes().to_le_bytes());
    put(block, 0x04, &blocks_low);
    put(block, 0x0c, &free_low);
    put(block, 0x10, &groups.free_inodes.to_le_bytes());
    put(block, 0x18, &2_u32.to_le_bytes()); // blocks of 1024 << 2
    put(block, 0x1c, &2_u32.to_le_bytes());
    put(block, 0x20, &per_group);
    put(block, 0x24, &per_group);
    put(block, 0x28, &GROUP_INODES.to_le_bytes());
    put(block, 0x150, &blocks_high);
    put(block, 0x158, &free_high);
    let overhead = geometry.descriptor_blocks() + u64::from(geometry.groups()) * (2 + TABLE_BLOCKS);
    put(block, 0x248, &words(overhead).0);
}
