//! The pieces of a tree: nodes (what an inode will be) and directories (names for nodes).
//!
//! Used by the rest of the tree, which keeps the invariants, and by the ext4 layout, which
//! only reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::layer::entry::{FileContent, LayerIndex, Timestamp};

/// Extended attributes by full name, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A node's position in its tree, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// The id for a position, or `None` beyond 32 bits.
    pub(crate) fn new(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    /// The position in an array with one element per node.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an inode will be.
#[derive(Debug, Clone)]
pub struct Node {
    /// Kind and content; a node never changes its kind.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes, `None` if there are none. Shared with the layer records.
    pub xattrs: Option<Arc<Xattrs>>,
    /// The layer that made the node; a file's bytes are in this layer's spool.
    pub layer: LayerIndex,
    /// The layer whose entry gave the metadata; later than `layer` for directories only.
    pub metadata_layer: LayerIndex,
    /// Names in the tree; 0 for a dead node. The root counts as having one.
    pub names: u32,
}

/// Kind and content of a node.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A regular file.
    File(FileContent),
    /// A directory.
    Directory(Box<Directory>),
    /// A symbolic link with 1 to 4095 bytes of target.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A directory's names.
#[derive(Debug, Clone)]
pub struct Directory {
    /// The directory that holds this one; the root is its own parent.
    pub parent: NodeId,
    /// This directory's name in its parent; empty for the root.
    pub name: Box<[u8]>,
    /// Entries by name.
    pub children: BTreeMap<Box<[u8]>, Child>,
    /// The layer that last changed the entry list.
    pub changed: LayerIndex,
    /// The last layer that has an entry for this directory or for anything below it.
    pub(crate) touched: Option<LayerIndex>,
    /// The last layer that has removed everything of lower layers below this directory.
    pub(crate) emptied: Option<LayerIndex>,
}

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// What it names.
    pub node: NodeId,
    /// The layer that gave this name.
    pub layer: LayerIndex,
}

impl Node {
    /// A directory that no entry describes (yet): mode 0755, owner 0:0, time 0.
    pub(crate) fn implicit_directory(parent: NodeId, name: &[u8], layer: LayerIndex) -> Self {
        Self {
            kind: NodeKind::Directory(Box::new(Directory {
                parent,
                name: name.into(),
                children: BTreeMap::new(),
                changed: layer,
                touched: None,
                emptied: None,
            })),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: None,
            layer,
            metadata_layer: layer,
            names: 1,
        }
    }

    /// Whether anything in the final tree names it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.names > 0
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The directory, if it is one, to change it.
    pub(crate) fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The extended attributes, empty if there are none.
    #[must_use]
    pub fn xattrs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        self.xattrs.as_deref().map_or(&[], Vec::as_slice)
    }
}
