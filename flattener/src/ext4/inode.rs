//! Inodes: 256 bytes each, from a node and its home.
//!
//! All four times are the modification time; generation, version and flags for deletion
//! are 0. Times beyond what ext4 can say become the nearest it can, as in the kernel.

use super::checksum::{crc, halves, inode_seed, put, words};
use super::xattr::{Split, value_hash};
use super::{INODE_LEN, Layout, extent};
use crate::layer::entry::{FileContent, Timestamp};
use crate::tree::{Node, NodeId, NodeKind};

/// Longest link target that lives in the inode.
pub(super) const FAST_LINK: usize = 59;
const EXTENTS: u32 = 0x8_0000;
const INDEX: u32 = 0x1000;
const VALUE: u32 = 0x20_0000;
/// Where the 60 bytes of block map, link target or device number are.
const MAP: usize = 0x28;
/// Bytes of fields beyond the classic 128.
const EXTRA: u16 = 32;
const MIN_SECONDS: i64 = i32::MIN as i64;
/// 2446-05-10: two more bits of epoch.
const MAX_SECONDS: i64 = i32::MAX as i64 + (3 << 32);
/// Most subdirectories that are counted; beyond, the count is 1 (`dir_nlink`).
const MAX_LINKS: usize = 65000;

impl Layout {
    /// Fills one inode, which is all zeros.
    pub(super) fn encode_inode(&self, ino: u32, id: NodeId, out: &mut [u8]) {
        let node = &self.nodes[id.index()];
        let home = &self.homes[id.index()];
        let split = Split::plan(node.xattrs()).unwrap_or_default();
        common(node, out);
        // values with inodes of their own count for their owner, too
        let values = split.outside().map(|value| (value.len() as u64).div_ceil(super::BLOCK));
        let mut blocks = u64::from(split.has_block()) + values.sum::<u64>();
        if split.has_block() {
            let (low, high) = words(home.xattrs);
            put(out, 0x68, &low);
            put(out, 0x76, &high[..2]);
        }
        let mut links = u16::try_from(node.names).expect("checked against 65000");
        let (mut size, mut flags) = (0, 0);
        match &node.kind {
            NodeKind::File(content) => {
                size = content.size;
                flags = EXTENTS;
                let data = extent::data_blocks(content);
                blocks += data;
                if let Some(extents) = self.extents.get(&id) {
                    blocks += extent::tree_blocks(extents.len() as u64);
                    extent::encode_root(extents, home.data, home.extents, &mut out[MAP..MAP + 60]);
                } else {
                    extent::encode_root(&extent::extents(content), home.data, 0, &mut out[MAP..MAP + 60]);
                }
            }
            NodeKind::Directory(_) => {
                links = self.directory_links(id);
                let contents = &self.directories[&id];
                size = contents.blocks() * super::BLOCK;
                blocks += contents.blocks();
                flags = if contents.is_indexed() { EXTENTS | INDEX } else { EXTENTS };
                extent::encode_root(&extent::dense(contents.blocks()), home.data, 0, &mut out[MAP..MAP + 60]);
            }
            NodeKind::Symlink(target) => {
                size = target.len() as u64;
                if target.len() <= FAST_LINK {
                    put(out, MAP, target);
                } else {
                    flags = EXTENTS;
                    blocks += 1;
                    extent::encode_root(&extent::dense(1), home.data, 0, &mut out[MAP..MAP + 60]);
                }
            }
            &(NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor }) => {
                encode_device(major, minor, out);
            }
            NodeKind::Fifo => {}
        }
        put(out, 0x1a, &links.to_le_bytes());
        put(out, 0x20, &flags.to_le_bytes());
        let (low, high) = words(size);
        put(out, 0x04, &low);
        put(out, 0x6c, &high);
        let (low, high) = words(blocks * 8); // sectors
        put(out, 0x1c, &low);
        put(out, 0x74, &high[..2]);
        split.encode_inline(&mut out[0xa0..INODE_LEN]);
        let (low, high) = halves(crc(inode_seed(ino), out));
        put(out, 0x7c, &low);
        put(out, 0x82, &high);
    }

    /// Fills the inode of an attribute value, which is all zeros. Its access time is the
    /// value's checksum, its version the number of references, as the kernel has it.
    pub(super) fn encode_value_inode(&self, value: u32, out: &mut [u8]) {
        let home = &self.values[value as usize];
        let owner = &self.nodes[home.node.index()];
        let (hash, length) = self.with_value(value, |bytes| (value_hash(bytes), bytes.len() as u64));
        let blocks = length.div_ceil(super::BLOCK);
        let file = Node {
            kind: NodeKind::File(FileContent::default()),
            mode: 0o600,
            mtime: Timestamp::default(),
            xattrs: None,
            ..owner.clone()
        };
        common(&file, out);
        let (seconds, extra) = encode_time(Timestamp { seconds: i64::from(hash), nanoseconds: 0 });
        put(out, 0x08, &seconds);
        put(out, 0x8c, &extra);
        put(out, 0x24, &1_u32.to_le_bytes());
        put(out, 0x1a, &1_u16.to_le_bytes());
        put(out, 0x20, &(EXTENTS | VALUE).to_le_bytes());
        put(out, 0x04, &words(length).0);
        put(out, 0x1c, &words(blocks * 8).0);
        extent::encode_root(&extent::dense(blocks), home.data, 0, &mut out[MAP..MAP + 60]);
        let (low, high) = halves(crc(inode_seed(home.ino), out));
        put(out, 0x7c, &low);
        put(out, 0x82, &high);
    }

    /// Names of a directory: its own, its `.`, and `..` of each directory in it.
    fn directory_links(&self, id: NodeId) -> u16 {
        let below = self.directories[&id]
            .entries
            .iter()
            .filter(|(_, child)| self.nodes[child.index()].directory().is_some())
            .count();
        if below + 2 > MAX_LINKS { 1 } else { u16::try_from(below + 2).expect("at most 65000") }
    }
}

/// Mode with type, owner, times.
fn common(node: &Node, out: &mut [u8]) {
    let file_type: u16 = match node.kind {
        NodeKind::Fifo => 0x1000,
        NodeKind::CharDevice { .. } => 0x2000,
        NodeKind::Directory(_) => 0x4000,
        NodeKind::BlockDevice { .. } => 0x6000,
        NodeKind::File(_) => 0x8000,
        NodeKind::Symlink(_) => 0xa000,
    };
    put(out, 0x00, &(file_type | node.mode).to_le_bytes());
    let (low, high) = halves(node.uid);
    put(out, 0x02, &low);
    put(out, 0x78, &high);
    let (low, high) = halves(node.gid);
    put(out, 0x18, &low);
    put(out, 0x7a, &high);
    let (seconds, extra) = encode_time(node.mtime);
    // access, change, modification, creation; then the extra words of the last three
    [0x08, 0x0c, 0x10, 0x90].into_iter().for_each(|at| put(out, at, &seconds));
    [0x84, 0x88, 0x8c, 0x94].into_iter().for_each(|at| put(out, at, &extra));
    put(out, 0x80, &EXTRA.to_le_bytes());
}

/// The code of a node's kind in directory entries.
pub(super) fn file_type(kind: &NodeKind) -> u8 {
    match kind {
        NodeKind::File(_) => 1,
        NodeKind::Directory(_) => super::dir::DIRECTORY,
        NodeKind::CharDevice { .. } => 3,
        NodeKind::BlockDevice { .. } => 4,
        NodeKind::Fifo => 5,
        NodeKind::Symlink(_) => 7,
    }
}

/// Low 32 bits of the seconds, and nanoseconds above two more bits of them.
fn encode_time(time: Timestamp) -> ([u8; 4], [u8; 4]) {
    let seconds = time.seconds.clamp(MIN_SECONDS, MAX_SECONDS);
    let exact = seconds == time.seconds && seconds != MIN_SECONDS && seconds != MAX_SECONDS;
    let nanoseconds = if exact { time.nanoseconds } else { 0 };
    let [a, b, c, d, ..] = seconds.to_le_bytes();
    let low = [a, b, c, d];
    let epoch = (seconds - i64::from(i32::from_le_bytes(low))) >> 32;
    let epoch = u32::try_from(epoch).expect("0 to 3 after clamping");
    (low, (nanoseconds << 2 | epoch).to_le_bytes())
}

/// Small numbers in the old form in the first word, others in the new form in the second.
fn encode_device(major: u32, minor: u32, out: &mut [u8]) {
    if major < 256 && minor < 256 {
        put(out, MAP, &(major << 8 | minor).to_le_bytes());
    } else {
        let number = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        put(out, MAP + 4, &number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_two_bits_of_epoch() {
        let time = |seconds, nanoseconds| encode_time(Timestamp { seconds, nanoseconds });
        assert_eq!(time(0, 5), ([0; 4], [20, 0, 0, 0]));
        assert_eq!(time(-1, 0), ([0xff; 4], [0; 4]));
        assert_eq!(time(1 << 31, 1), ([0, 0, 0, 0x80], [5, 0, 0, 0]));
        assert_eq!(time(i64::MAX, 7), time(MAX_SECONDS, 0));
        assert_eq!(time(i64::MIN, 7), ([0, 0, 0, 0x80], [0; 4]));
        assert_eq!(time(1 << 32, 999_999_999), ([0; 4], (999_999_999_u32 << 2 | 1).to_le_bytes()));
    }
}
