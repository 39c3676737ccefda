//! Paths to nodes, with symbolic links followed inside the image only.
//!
//! `..` and absolute targets stop at the image root; components that do not exist are kept
//! as names to be created. The walk is a loop over a queue of components: no recursion, at
//! most [`Tree::MAX_SYMLINKS`] links of at most 4095 bytes each, and a budget of steps for
//! the whole layer, because many entries through long links would take hours.

use super::{Node, NodeId, NodeKind, Reason, Tree};
use crate::layer::entry::LayerPath;

/// Where a path leads.
pub(super) enum Place {
    /// An existing directory.
    Directory(NodeId),
    /// Below an existing directory, through names that do not exist yet.
    Missing { base: NodeId, names: Vec<Box<[u8]>> },
    /// Through or to something that is neither a directory nor a link.
    Blocked,
}

impl Tree {
    /// Follows all components of `path`, the last one included.
    pub(super) fn resolve(&mut self, path: &LayerPath) -> Result<Place, Reason> {
        // components still to go, the next one last
        let mut queue: Vec<&[u8]> = path.as_bytes().rsplit(|&b| b == b'/').collect();
        let mut at = NodeId::ROOT;
        let mut missing: Vec<Box<[u8]>> = Vec::new();
        let mut links = 0;
        let mut steps = self.steps_left;
        while let Some(name) = queue.pop() {
            steps = steps.checked_sub(1).ok_or(Reason::TooManySteps)?;
            match name {
                b"" | b"." => continue,
                b".." => {
                    if missing.pop().is_none() {
                        at = self.node(at).directory().map_or(NodeId::ROOT, |d| d.parent);
                    }
                    continue;
                }
                _ => {}
            }
            if name.len() > 255 {
                return Err(Reason::ComponentTooLong(name.len()));
            }
            let child = self.node(at).directory().and_then(|d| d.children.get(name));
            let Some(child) = child.filter(|_| missing.is_empty()) else {
                missing.push(name.into());
                continue;
            };
            match &self.node(child.node).kind {
                NodeKind::Directory(_) => at = child.node,
                NodeKind::Symlink(target) => {
                    links += 1;
                    if links > Self::MAX_SYMLINKS {
                        return Err(Reason::SymlinkLoop);
                    }
                    if target.first() == Some(&b'/') {
                        at = NodeId::ROOT;
                    }
                    queue.extend(target.rsplit(|&b| b == b'/'));
                }
                _ => {
                    self.steps_left = steps;
                    return Ok(Place::Blocked);
                }
            }
        }
        self.steps_left = steps;
        Ok(if missing.is_empty() {
            Place::Directory(at)
        } else {
            Place::Missing { base: at, names: missing }
        })
    }

    /// Follows `path` and makes the directories that are missing.
    pub(super) fn resolve_or_create(&mut self, path: &LayerPath) -> Result<NodeId, Reason> {
        match self.resolve(path)? {
            Place::Directory(id) => Ok(id),
            Place::Blocked => Err(Reason::ParentNotDirectory(path.clone())),
            Place::Missing { base, names } => names.iter().try_fold(base, |parent, name| {
                self.implied_left = self.implied_left.checked_sub(1).ok_or(Reason::TooManyImplied)?;
                let node = Node::implicit_directory(parent, name, self.current);
                self.add_node(parent, name, node)
            }),
        }
    }
}
