//! What one layer contributed: the basis of an image layout that upper layers cannot move.
//!
//! A record is taken when its layer is complete and never changes afterwards, so whatever
//! is placed by records alone stays where it is when layers are added on top.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{NodeId, NodeKind, Tree, Xattrs};
use crate::layer::entry::LayerIndex;

/// One name of a layer's own tree, in path order (directory by directory, names in byte
/// order, a directory before what is in it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Directories above it; 0 for the root.
    pub depth: u32,
    /// Placement hash (`name_hash`) of its last path component.
    pub name_hash: u64,
    /// What it names.
    pub node: NodeId,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether this layer made the node and this is its first name in path order.
    pub owned: bool,
}

/// A directory whose entry list the layer has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// The directory.
    pub node: NodeId,
    /// Placement hash (`name_hash`) of its name.
    pub name_hash: u64,
    /// Bytes of its entries as ext4 stores them (8 and the name, rounded up to 4), without
    /// `.` and `..`.
    pub entry_bytes: u64,
}

/// What one layer contributed.
#[derive(Debug, Clone, Default)]
pub struct LayerRecord {
    /// The layer's own tree: everything it has entries for, and their ancestors.
    pub steps: Vec<Step>,
    /// Directories made by the layer, shallow ones first, then in path order.
    pub new_directories: Vec<(NodeId, u64)>,
    /// Directories whose entry list it has changed, shallow ones first, then in path order.
    pub changed_directories: Vec<DirectoryRecord>,
    /// Directories that the layer has given extended attributes, in the same order.
    pub attributed_directories: Vec<(NodeId, Arc<Xattrs>)>,
}

/// A hash of a name that decides placement, so it is part of the layout policy: FNV-1a of
/// 64 bits, finished like SplitMix64 so that all bits count.
#[must_use]
pub(crate) fn name_hash(name: &[u8]) -> u64 {
    let mut hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Bytes that one name takes in an ext4 directory block.
pub(crate) fn entry_bytes(name: &[u8]) -> u64 {
    (name.len() as u64 + 8).next_multiple_of(4)
}

impl Tree {
    /// Takes the current layer's record and makes the next layer current.
    pub(super) fn finish_layer(&mut self) {
        let steps = self.steps();
        let changed = std::mem::take(&mut self.changed);
        let new: Vec<NodeId> =
            changed.iter().copied().filter(|&id| self.node(id).layer == self.current).collect();
        let mut attributed = std::mem::take(&mut self.attributed);
        attributed.sort_unstable();
        attributed.dedup();
        let record = LayerRecord {
            steps,
            new_directories: self
                .breadth_first(new)
                .into_iter()
                .map(|id| (id, self.directory_name_hash(id)))
                .collect(),
            changed_directories: self
                .breadth_first(changed)
                .into_iter()
                .map(|node| DirectoryRecord {
                    node,
                    name_hash: self.directory_name_hash(node),
                    entry_bytes: self
                        .node(node)
                        .directory()
                        .map_or(0, |d| d.children.keys().map(|name| entry_bytes(name)).sum()),
                })
                .collect(),
            attributed_directories: self
                .breadth_first(attributed)
                .into_iter()
                .filter_map(|id| self.node(id).xattrs.clone().map(|xattrs| (id, xattrs)))
                .collect(),
        };
        self.records.push(record);
        self.current = LayerIndex(self.current.0 + 1);
    }

    fn directory_name_hash(&self, id: NodeId) -> u64 {
        name_hash(self.node(id).directory().map_or(&[], |d| &d.name))
    }

    /// The live directories of a list, by depth, then by path: a walk by levels over them
    /// and what is above them.
    fn breadth_first(&self, ids: Vec<NodeId>) -> Vec<NodeId> {
        let wanted: HashSet<NodeId> = ids.into_iter().filter(|&id| self.node(id).is_live()).collect();
        let mut below: HashMap<NodeId, Vec<(&[u8], NodeId)>> = HashMap::new();
        let mut seen = HashSet::new();
        for &id in &wanted {
            let mut at = id;
            while at != NodeId::ROOT
                && seen.insert(at)
                && let Some(directory) = self.node(at).directory()
            {
                below.entry(directory.parent).or_default().push((&directory.name, at));
                at = directory.parent;
            }
        }
        let mut queue = VecDeque::from([NodeId::ROOT]);
        let mut out = Vec::with_capacity(wanted.len());
        while let Some(id) = queue.pop_front() {
            if wanted.contains(&id) {
                out.push(id);
            }
            let mut children = below.remove(&id).unwrap_or_default();
            children.sort_unstable();
            queue.extend(children.into_iter().map(|(_, child)| child));
        }
        out
    }

    /// The layer's own tree in path order.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut seen = HashSet::new();
        let mut stack = vec![(NodeId::ROOT, 0_u32, name_hash(&[]))];
        while let Some((id, depth, name_hash)) = stack.pop() {
            let node = self.node(id);
            let directory = node.directory().filter(|d| d.touched == Some(self.current));
            let multiple = node.names > 1;
            steps.push(Step {
                depth,
                name_hash,
                node: id,
                directory: matches!(node.kind, NodeKind::Directory(_)),
                owned: node.layer == self.current && (!multiple || seen.insert(id)),
            });
            let Some(directory) = directory else { continue };
            for (name, child) in directory.children.iter().rev() {
                let ours = match self.node(child.node).directory() {
                    Some(below) => below.touched == Some(self.current),
                    None => child.layer == self.current,
                };
                if ours {
                    stack.push((child.node, depth + 1, self::name_hash(name)));
                }
            }
        }
        steps
    }
}
