//! A deterministic ext4 image of a tree, laid out for deduplication and lazy loading.
//!
//! [`Layout::plan`] decides where everything goes; [`Layout::render`] makes any 512 KiB
//! chunk of the device from the plan and the spooled file bytes, independently of all
//! others, in any order and on any number of threads. The bytes are layout policy 1,
//! specified in `docs/layout-policy-1.md`; they never change for a released policy.
//!
//! Invariants: the plan depends on the tree and the identity only; no file bytes are held;
//! a piece of the device has one owner; what is not a piece is zero. Synchronous and pure
//! but for the [`FileSource`].
//!
//! Files: `plan` drives; `numbers`, `bins` and `space` decide inode numbers, the grouping of
//! small files, and addresses; `geometry` sizes the device; `superblock`, `group`, `inode`,
//! `extent`, `dir`, `hash`, `xattr`, `checksum` are the formats; `render` makes chunks, `report` tells what lies where.

mod bins;
mod checksum;
mod dir;
mod extent;
mod geometry;
mod group;
mod hash;
mod inode;
mod numbers;
mod plan;
mod render;
mod report;
mod space;
mod superblock;
mod xattr;

use std::collections::HashMap;

use crate::layer::entry::LayerIndex;
use crate::tree::{Node, NodeId};
use geometry::Geometry;

pub use report::{ChunkUse, Place};
pub use xattr::XattrError;

/// Bytes of a file system block.
const BLOCK: u64 = 4096;
/// The same for slices.
const BLOCK_LEN: usize = 4096;
/// Blocks of a chunk.
const CHUNK_BLOCKS: u64 = 128;
/// Bytes of a chunk.
const CHUNK_LEN: usize = 512 * 1024;
/// Blocks of a block group: as many as one bitmap block has bits.
const GROUP_BLOCKS: u64 = 32768;
/// Inodes of a block group; with it the position of an inode in the table region is fixed.
const GROUP_INODES: u32 = 8192;
/// Bytes of an inode.
const INODE_LEN: usize = 256;
/// Blocks of one group's inode table.
const TABLE_BLOCKS: u64 = 512;
/// First number that is not reserved by ext4.
const FIRST_INODE: u32 = 11;
/// Number of the root directory.
const ROOT_INODE: u32 = 2;
/// Where all metadata checksums start. A constant, so that inodes and directories do not
/// depend on the UUID: feature `metadata_csum_seed`.
const CHECKSUM_SEED: u32 = u32::from_le_bytes(*b"LNT1");
/// Seed of the directory hash, as the superblock's four little-endian words.
const HASH_SEED: [u32; 4] = [
    u32::from_le_bytes(*b"lant"),
    u32::from_le_bytes(*b"ern "),
    u32::from_le_bytes(*b"poli"),
    u32::from_le_bytes(*b"cy 1"),
];

/// What makes a file system this one: both come from the image's digest and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemIdentity {
    /// The UUID in its byte order.
    pub uuid: [u8; 16],
    /// The volume label, padded with zeros.
    pub label: [u8; 16],
}

impl FilesystemIdentity {
    /// The identity of the image with this digest: the digest's first 16 bytes as a UUID of
    /// version 8, and a fixed label.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let mut label = [0; 16];
        label[..7].copy_from_slice(b"lantern");
        Self { uuid, label }
    }
}

/// Where file bytes come from while chunks are rendered.
pub trait FileSource: Send + Sync {
    /// Reads exactly `buf.len()` bytes of a layer's spool from `spool_offset`.
    ///
    /// # Errors
    /// Whatever the storage says; a spool that ends before is an error too.
    fn read_exact_at(&self, layer: LayerIndex, spool_offset: u64, buf: &mut [u8]) -> std::io::Result<()>;
}

/// Why a tree cannot become an ext4 image.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Something in the tree is beyond what ext4 can hold.
    #[error("layer {}: {path}: {limit}", layer.0)]
    Limit {
        /// The layer that made it.
        layer: LayerIndex,
        /// Where it is in the image.
        path: String,
        /// Which limit.
        limit: Limit,
    },
    /// The image needs more address space than the policy provides.
    #[error("the image needs {needed} block groups; layout policy 1 has at most {max}", max = Geometry::MAX_GROUPS)]
    TooLarge {
        /// Groups of 128 MiB or 8192 inodes that would be needed.
        needed: u64,
    },
}

/// A limit of ext4 or of the layout policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Files end before block 2³² − 1.
    #[error("file of {0} bytes; ext4 ends at 17592186040320")]
    FileSize(u64),
    /// More names than an inode can count.
    #[error("{0} hard links; ext4 counts to 65000")]
    Links(u32),
    /// Major or minor number too large for the on-disk form.
    #[error("device {major}:{minor}; majors end at 4095 and minors at 1048575")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory that needs more than two index levels or four extents.
    #[error("directory with {0} entries, more than a hash tree of two levels holds")]
    DirectorySize(usize),
    /// Attributes that do not fit.
    #[error(transparent)]
    Xattr(#[from] XattrError),
}

/// Why a chunk cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The spool did not give a file's bytes.
    #[error("layer {}: cannot read {length} spooled bytes at {offset}", layer.0)]
    Source {
        /// Whose spool.
        layer: LayerIndex,
        /// From where.
        offset: u64,
        /// How many.
        length: usize,
        /// What the storage says.
        source: std::io::Error,
    },
    /// A chunk that the device does not have.
    #[error("chunk {chunk} is beyond the device of {count} chunks")]
    Beyond {
        /// The chunk asked for.
        chunk: u32,
        /// Chunks of the device.
        count: u32,
    },
    /// A buffer that is not one chunk long.
    #[error("buffer of {0} bytes; a chunk has 524288")]
    Buffer(usize),
}

/// What an image holds, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Regular files, each counted once however many names it has.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices and pipes.
    pub special: u64,
    /// Sum of the logical sizes of the files.
    pub file_bytes: u64,
    /// Bytes of blocks that hold file contents.
    pub data_bytes: u64,
    /// Extended attributes left out because ext4 does not have their namespace.
    pub dropped_xattrs: u64,
}

/// What lies in a run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Superblock and group descriptors.
    Descriptors,
    /// Block bitmaps from this group on.
    BlockBitmaps(u32),
    /// Inode bitmaps from this group on.
    InodeBitmaps(u32),
    /// All inode tables.
    InodeTables,
    /// A file's blocks.
    Data(NodeId),
    /// A directory's blocks.
    Directory(NodeId),
    /// A long link target.
    Symlink(NodeId),
    /// An extended attribute block.
    Xattrs(NodeId),
    /// The blocks of an extent tree.
    Extents(NodeId),
    /// An extended attribute value with an inode of its own.
    Value(u32),
}

/// Whose an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// A node of the tree.
    Node(NodeId),
    /// An extended attribute value.
    Value(u32),
}

/// An extended attribute value with an inode of its own.
#[derive(Debug, Clone, Copy)]
struct ValueHome {
    node: NodeId,
    /// Which of the node's values outside.
    index: usize,
    ino: u32,
    data: u64,
}

/// A run of blocks with one owner.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u64,
    blocks: u64,
    what: What,
}

/// Where a node lives. Zero where there is nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Home {
    ino: u32,
    /// First block of file data, directory or link target.
    data: u64,
    /// Extended attribute block.
    xattrs: u64,
    /// First block of the extent tree.
    extents: u64,
}

/// The plan of one image: every chunk can be rendered from it.
pub struct Layout {
    nodes: Vec<Node>,
    homes: Vec<Home>,
    /// Numbers in use with their owners, ascending.
    inodes: Vec<(u32, Owner)>,
    /// Attribute values with inodes of their own, those of a node next to each other.
    values: Vec<ValueHome>,
    /// What lies where, ascending and disjoint.
    pieces: Vec<Piece>,
    directories: HashMap<NodeId, dir::Contents>,
    /// Extents of files with more than four, or with many segments.
    extents: HashMap<NodeId, Vec<extent::Extent>>,
    geometry: Geometry,
    /// Superblock and group descriptors, from byte 0 of the device.
    descriptors: Vec<u8>,
    counts: Counts,
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layout")
            .field("device_length", &self.device_length())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Layout {
    /// Id of the layout policy that this code writes; stored in the manifest.
    pub const POLICY: u16 = 1;

    /// Length of the device in bytes, a multiple of 512 KiB.
    #[must_use]
    pub fn device_length(&self) -> u64 {
        self.geometry.blocks() * BLOCK
    }

    /// Chunks of the device, most of them zero.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.geometry.blocks() / CHUNK_BLOCKS).expect("at most 2^22 chunks")
    }

    /// What the image holds.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
pub(crate) mod tests;
