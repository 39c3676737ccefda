//! Layers applied to one file tree, the way a union of them looks from inside a container.
//!
//! [`Tree::apply_layer`] takes the parsed layers bottom first; afterwards [`Tree::node`]
//! and [`Tree::entries`] show what is there, and [`Tree::records`] what each layer alone
//! contributed, which is what the ext4 layout needs. Answers to ambiguity in the OCI image
//! specification are normative in `docs/layout-policy-1.md`.
//!
//! Invariants: nothing is ever created, linked or removed outside the tree; every live
//! node but the root has at least one name; a directory has exactly one; a node never
//! changes kind (a replaced name gets a new node); nodes of lower layers that nothing
//! names any more stay in the arena as dead, because their places in the image stay
//! reserved. Nothing here recurses: depth is bounded by the input only.

mod acl;
mod apply;
mod node;
mod record;
mod resolve;

pub use acl::{Acl, AclEntry, AclError, AclTag};
pub use node::{Child, Directory, Node, NodeId, NodeKind, Xattrs};
pub use record::{DirectoryRecord, LayerRecord, Step};

use crate::layer::entry::{Layer, LayerIndex, LayerPath};

/// Why a layer cannot be applied: which layer, which entry, what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer {}: entry {path}: {reason}", layer.0)]
pub struct TreeError {
    /// The layer, 0 at the bottom.
    pub layer: LayerIndex,
    /// The entry as the archive names it.
    pub path: LayerPath,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// More symbolic links than [`Tree::MAX_SYMLINKS`] on the way to the entry.
    #[error("more than {} symbolic links on the way; the archive loops", Tree::MAX_SYMLINKS)]
    SymlinkLoop,
    /// A component of the parent is neither a directory nor a link to one.
    #[error("its parent {0} is not a directory")]
    ParentNotDirectory(LayerPath),
    /// The root of the image is something else than a directory.
    #[error("the image root must be a directory")]
    RootNotDirectory,
    /// A hard link to something that is not there (yet).
    #[error("hard link to {0}, which does not exist at this point of the archive")]
    LinkTargetMissing(LayerPath),
    /// A hard link to a directory.
    #[error("hard link to {0}, which is a directory")]
    LinkTargetDirectory(LayerPath),
    /// A hard link to itself.
    #[error("hard link to itself")]
    LinkToItself,
    /// A symbolic link without a target.
    #[error("symbolic link with an empty target")]
    EmptySymlink,
    /// A symbolic link whose target Linux cannot hold.
    #[error("symbolic link target of {0} bytes; at most 4095 fit")]
    SymlinkTooLong(usize),
    /// A symbolic link target with a NUL byte.
    #[error("symbolic link target contains a NUL byte")]
    SymlinkNul,
    /// A symbolic link that leads to a name which cannot exist.
    #[error("a symbolic link on the way names a component of {0} bytes; at most 255 fit")]
    ComponentTooLong(usize),
    /// Nanoseconds of 10⁹ or more.
    #[error("modification time with {0} nanoseconds; a second has fewer than 1000000000")]
    Nanoseconds(u32),
    /// An access control list that no kernel would take.
    #[error("extended attribute {name}: {source}")]
    Acl {
        /// Which attribute.
        name: &'static str,
        /// What is wrong with it.
        source: AclError,
    },
    /// A default access control list on something that has no children.
    #[error("a default access control list on something that is not a directory")]
    DefaultAclOnFile,
    /// File segments out of order, overlapping, or beyond the file.
    #[error("file segments out of order or beyond the size of the file")]
    Segments,
    /// Paths and links so long that following them all would take hours.
    #[error("the paths and symbolic links of the layer are too long on average to follow them all")]
    TooManySteps,
    /// Entries far below directories that nothing describes.
    #[error("too many directories on the way that the layer has no entries for")]
    TooManyImplied,
    /// More nodes than inode numbers.
    #[error("more than {} files and directories", Tree::MAX_NODES)]
    TooManyNodes,
}

/// All layers so far as one tree.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
    /// The layer being applied, or the next one.
    current: LayerIndex,
    /// Directories whose entry list the current layer has changed, in order of the change.
    changed: Vec<NodeId>,
    /// Nodes whose extended attributes the current layer has set on a directory.
    attributed: Vec<NodeId>,
    records: Vec<LayerRecord>,
    /// Path components that the current layer may still follow.
    steps_left: u64,
    /// Directories without an entry of their own that the current layer may still imply.
    implied_left: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// Symbolic links followed on the way to one entry, as in the Linux kernel.
    pub const MAX_SYMLINKS: usize = 40;
    /// Most nodes, dead ones included: keeps inode numbers with their reserves in 32 bits.
    pub const MAX_NODES: usize = 1 << 29;

    /// Path components that a layer may follow per entry, links included: real images stay
    /// below 20 on average, hostile ones reach 80,000 in a single path.
    const STEPS_PER_ENTRY: u64 = 64;
    /// Path components that any layer may follow; a few seconds of work.
    const SPARE_STEPS: u64 = 1 << 26;

    /// Directories that a layer may imply per entry: one hostile path implies 8,000, and
    /// memory must stay in proportion to the entries.
    const IMPLIED_PER_ENTRY: u64 = 4;
    /// Directories that any layer may imply.
    const SPARE_IMPLIED: u64 = 65_536;

    /// An image without layers: a root directory, mode 0755, owner 0:0, time 0.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            current: LayerIndex(0),
            changed: Vec::new(),
            attributed: Vec::new(),
            records: Vec::new(),
            steps_left: 0,
            implied_left: 0,
        };
        tree.nodes.push(Node::implicit_directory(NodeId::ROOT, &[], LayerIndex(0)));
        tree.changed.push(NodeId::ROOT);
        tree
    }

    /// Applies layers bottom first to an empty tree.
    ///
    /// # Errors
    /// [`TreeError`] for the first entry that cannot be applied.
    pub fn apply(layers: &[Layer]) -> Result<Self, TreeError> {
        let mut tree = Self::new();
        for layer in layers {
            tree.apply_layer(layer)?;
        }
        Ok(tree)
    }

    /// Applies the next layer on top. After an error the tree holds a part of the layer
    /// and must be thrown away.
    ///
    /// # Errors
    /// [`TreeError`] for the first entry that cannot be applied.
    pub fn apply_layer(&mut self, layer: &Layer) -> Result<(), TreeError> {
        let entries = layer.entries.len() as u64;
        self.steps_left = Self::SPARE_STEPS + entries * Self::STEPS_PER_ENTRY;
        self.implied_left = Self::SPARE_IMPLIED + entries * Self::IMPLIED_PER_ENTRY;
        for entry in &layer.entries {
            self.apply_entry(entry).map_err(|reason| TreeError {
                layer: self.current,
                path: entry.path.clone(),
                reason,
            })?;
        }
        self.finish_layer();
        Ok(())
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Number of nodes ever made, dead ones included; ids are below it.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// What each applied layer contributed, bottom first.
    #[must_use]
    pub fn records(&self) -> &[LayerRecord] {
        &self.records
    }

    /// The node a path names, without following a symbolic link anywhere.
    #[must_use]
    pub fn lookup(&self, path: &LayerPath) -> Option<NodeId> {
        path.components().try_fold(NodeId::ROOT, |at, name| {
            self.node(at).directory().and_then(|d| d.children.get(name)).map(|child| child.node)
        })
    }

    /// Every name in the tree with its node, parents first, siblings in byte order; the
    /// root comes first with an empty path.
    pub fn entries(&self) -> impl Iterator<Item = (Vec<u8>, NodeId)> + '_ {
        let mut stack = vec![(Vec::new(), NodeId::ROOT)];
        std::iter::from_fn(move || {
            let (path, id) = stack.pop()?;
            if let Some(directory) = self.node(id).directory() {
                for (name, child) in directory.children.iter().rev() {
                    let mut full = path.clone();
                    if !full.is_empty() {
                        full.push(b'/');
                    }
                    full.extend_from_slice(name);
                    stack.push((full, child.node));
                }
            }
            Some((path, id))
        })
    }

    /// Takes the tree apart for the layout: all nodes by id, and the records.
    pub(crate) fn into_parts(mut self) -> (Vec<Node>, Vec<LayerRecord>) {
        if self.records.is_empty() {
            self.finish_layer(); // the root is placed by a record, too
        }
        (self.nodes, self.records)
    }
}

#[cfg(test)]
mod tests;
