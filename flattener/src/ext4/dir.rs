//! Directory contents: which name goes into which block, and the blocks' bytes.
//!
//! A directory that fits is one block, names in byte order. A larger one is a hash tree
//! (`dir_index`): a root block, at most one level of index nodes, then leaves filled in
//! hash order. Every block ends in a checksum.

use super::checksum::{crc, inode_seed, put};
use super::hash::directory_hash;
use crate::tree::NodeId;

/// Bytes for entries in a block with a checksum tail of 12.
const ROOM: usize = 4096 - 12;
/// `.` and `..`.
const DOTS: u64 = 24;
/// Index entries in the root block: 4096 less dots, root info and checksum, by 8.
const ROOT_LIMIT: usize = 507;
/// Index entries in a node: 4096 less an empty entry and checksum, by 8.
const NODE_LIMIT: usize = 510;
/// Half MD4, in the numbering of the root info (unsigned is a flag of the superblock).
const HALF_MD4: u8 = 1;

/// File type codes in directory entries.
pub(super) const DIRECTORY: u8 = 2;

/// A directory ready to be written.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    /// The directory above.
    pub(super) parent: NodeId,
    /// Names in the order of the blocks.
    pub(super) entries: Vec<(Box<[u8]>, NodeId)>,
    /// Leaves of the hash tree; empty for a directory of one block.
    leaves: Vec<Leaf>,
}

#[derive(Debug, Clone, Copy)]
struct Leaf {
    /// First of the leaf's names in `entries`.
    first: usize,
    /// Lowest hash in the leaf; bit 0 set if the leaf before ends with the same hash.
    hash: u32,
}

/// What an entry needs to know of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) ino: u32,
    pub(super) file_type: u8,
}

fn record_length(name: &[u8]) -> usize {
    (name.len() + 8).next_multiple_of(4)
}

/// Blocks to reserve for a directory by its [`crate::tree::DirectoryRecord`]: never fewer
/// than its contents take. A leaf is closed only by an entry that does not fit, and none is
/// longer than 264 bytes.
pub(super) fn reserved_blocks(entry_bytes: u64) -> u64 {
    let room = ROOM as u64;
    if entry_bytes + DOTS <= room {
        return 1;
    }
    let leaves = entry_bytes / (room - 260) + 1;
    let nodes = if leaves > ROOT_LIMIT as u64 { leaves.div_ceil(NODE_LIMIT as u64) } else { 0 };
    1 + nodes + leaves
}

impl Contents {
    /// Lays out names given in byte order. `None` if they need more than two index levels.
    pub(super) fn plan(parent: NodeId, entries: Vec<(Box<[u8]>, NodeId)>) -> Option<Self> {
        let total: usize = entries.iter().map(|(name, _)| record_length(name)).sum();
        if total as u64 + DOTS <= ROOM as u64 {
            return Some(Self { parent, entries, leaves: Vec::new() });
        }
        let mut hashed: Vec<_> = entries.into_iter().map(|entry| (directory_hash(&entry.0), entry)).collect();
        hashed.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.0.cmp(&right.0)));
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut used = ROOM + 1;
        let mut last = None;
        for (first, (hash, (name, _))) in hashed.iter().enumerate() {
            let length = record_length(name);
            if used + length > ROOM {
                let hash = if leaves.is_empty() { 0 } else { hash | u32::from(last == Some(*hash)) };
                leaves.push(Leaf { first, hash });
                used = 0;
            }
            used += length;
            last = Some(*hash);
        }
        if leaves.len() > ROOT_LIMIT * NODE_LIMIT {
            return None;
        }
        let entries = hashed.into_iter().map(|(_, entry)| entry).collect();
        Some(Self { parent, entries, leaves })
    }

    /// Whether it is a hash tree.
    pub(super) fn is_indexed(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// Index nodes between root and leaves.
    fn nodes(&self) -> usize {
        if self.leaves.len() > ROOT_LIMIT { self.leaves.len().div_ceil(NODE_LIMIT) } else { 0 }
    }

    /// Blocks on the device.
    pub(super) fn blocks(&self) -> u64 {
        1 + (self.nodes() + self.leaves.len()) as u64
    }

    /// Fills block `index`, which is all zeros.
    pub(super) fn encode(
        &self,
        index: usize,
        own_ino: u32,
        target: &dyn Fn(NodeId) -> Target,
        out: &mut [u8],
    ) {
        let nodes = self.nodes();
        if !self.is_indexed() {
            self.encode_linear(own_ino, target, out);
        } else if index == 0 {
            self.encode_root(own_ino, target(self.parent).ino, out);
        } else if index <= nodes {
            let first = (index - 1) * NODE_LIMIT;
            let end = (first + NODE_LIMIT).min(self.leaves.len());
            put(out, 4, &4096_u16.to_le_bytes());
            let entries = (first..end).map(|leaf| (self.leaves[leaf].hash, 1 + nodes + leaf));
            encode_index(own_ino, 8, NODE_LIMIT, entries, out);
        } else {
            let leaf = index - 1 - nodes;
            let first = self.leaves[leaf].first;
            let end = self.leaves.get(leaf + 1).map_or(self.entries.len(), |next| next.first);
            let mut writer = Writer { out, at: 0, last: 0 };
            for (name, node) in &self.entries[first..end] {
                writer.entry(name, target(*node));
            }
            writer.finish(own_ino);
        }
    }

    fn encode_linear(&self, own_ino: u32, target: &dyn Fn(NodeId) -> Target, out: &mut [u8]) {
        let mut writer = Writer { out, at: 0, last: 0 };
        writer.entry(b".", Target { ino: own_ino, file_type: DIRECTORY });
        writer.entry(b"..", target(self.parent));
        for (name, node) in &self.entries {
            writer.entry(name, target(*node));
        }
        writer.finish(own_ino);
    }

    fn encode_root(&self, own_ino: u32, parent_ino: u32, out: &mut [u8]) {
        let mut writer = Writer { out, at: 0, last: 0 };
        writer.entry(b".", Target { ino: own_ino, file_type: DIRECTORY });
        writer.entry(b"..", Target { ino: parent_ino, file_type: DIRECTORY });
        // for readers that know no index, `..` covers the rest of the block
        put(out, 16, &4084_u16.to_le_bytes());
        let nodes = self.nodes();
        put(out, 28, &[HALF_MD4, 8, u8::from(nodes > 0), 0]);
        if nodes == 0 {
            let entries = self.leaves.iter().enumerate().map(|(leaf, l)| (l.hash, 1 + leaf));
            encode_index(own_ino, 32, ROOT_LIMIT, entries, out);
        } else {
            let entries = (0..nodes).map(|node| (self.leaves[node * NODE_LIMIT].hash, 1 + node));
            encode_index(own_ino, 32, ROOT_LIMIT, entries, out);
        }
    }
}

/// Index entries (lowest hash, block) from byte `at`: the first one's hash is implied and
/// its place holds limit and count.
fn encode_index(
    ino: u32,
    at: usize,
    limit: usize,
    entries: impl Iterator<Item = (u32, usize)>,
    out: &mut [u8],
) {
    let mut count = 0_usize;
    for (hash, block) in entries {
        let entry = at + count * 8;
        put(out, entry, &hash.to_le_bytes());
        put(out, entry + 4, &u32::try_from(block).expect("two levels of leaves").to_le_bytes());
        count += 1;
    }
    let short = |value: usize| u16::try_from(value).expect("at most 510").to_le_bytes();
    put(out, at, &short(limit));
    put(out, at + 2, &short(count));
    // the checksum covers what is in use, then its own reserved word and itself as zeros
    let checksum = crc(crc(inode_seed(ino), &out[..at + count * 8]), &[0; 8]);
    put(out, at + limit * 8 + 4, &checksum.to_le_bytes());
}

/// Entries one after the other into one block.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    last: usize,
}

impl Writer<'_> {
    fn entry(&mut self, name: &[u8], target: Target) {
        let length = record_length(name);
        let short = u16::try_from(length).expect("at most 264");
        let name_length = u8::try_from(name.len()).expect("at most 255");
        put(self.out, self.at, &target.ino.to_le_bytes());
        put(self.out, self.at + 4, &short.to_le_bytes());
        put(self.out, self.at + 6, &[name_length, target.file_type]);
        put(self.out, self.at + 8, name);
        self.last = self.at;
        self.at += length;
    }

    /// Stretches the last entry to the tail and writes the tail.
    fn finish(self, own_ino: u32) {
        let rest = u16::try_from(ROOM - self.last).expect("within a block");
        put(self.out, self.last + 4, &rest.to_le_bytes());
        let checksum = crc(inode_seed(own_ino), &self.out[..ROOM]);
        put(self.out, ROOM + 4, &12_u16.to_le_bytes());
        put(self.out, ROOM + 7, &[0xde]);
        put(self.out, ROOM + 8, &checksum.to_le_bytes());
    }
}
