//! One entry at a time: creating, replacing, linking, whiting out.
//!
//! The semantics are those of `umoci unpack` on a host file system: entries in archive
//! order, the last one wins; a whiteout removes only what the layers below have put there.
//! Which names the current layer has given is remembered in [`Child::layer`] for
//! everything but directories and in `Directory::touched` for those; `touched` is set on
//! all ancestors too, so that climbing stops at the first one that has it.

use std::sync::Arc;

use super::resolve::Place;
use super::{Acl, Child, Node, NodeId, NodeKind, Reason, Tree, Xattrs};
use crate::layer::entry::{EntryKind, FileContent, LayerEntry, LayerPath, Metadata};

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";

impl Tree {
    pub(super) fn apply_entry(&mut self, entry: &LayerEntry) -> Result<(), Reason> {
        match (&entry.kind, entry.path.split_last()) {
            (EntryKind::OpaqueWhiteout, _) => self.make_opaque(&entry.path),
            (EntryKind::Whiteout, Some((parent, name))) => self.white_out(&parent, name),
            (EntryKind::Directory, None) => self.describe(NodeId::ROOT, &entry.metadata),
            (_, None) => Err(Reason::RootNotDirectory),
            (kind, Some((parent, name))) => {
                let parent = self.resolve_or_create(&parent)?;
                match kind {
                    EntryKind::Directory => self.directory(parent, name, &entry.metadata),
                    EntryKind::Hardlink(target) => self.hard_link(parent, name, target),
                    kind => self.replace(parent, name, node_kind(kind)?, &entry.metadata),
                }
            }
        }
    }

    /// A directory: a new one, or new metadata for the one that is there.
    fn directory(&mut self, parent: NodeId, name: &[u8], metadata: &Metadata) -> Result<(), Reason> {
        let there = self.child(parent, name).map(|c| c.node);
        let id = match there.filter(|&id| self.node(id).directory().is_some()) {
            Some(id) => id,
            None => {
                self.remove(parent, name);
                self.add_node(parent, name, Node::implicit_directory(parent, name, self.current))?
            }
        };
        self.describe(id, metadata)
    }

    /// Anything but a directory or a hard link: always a new node.
    fn replace(
        &mut self,
        parent: NodeId,
        name: &[u8],
        kind: NodeKind,
        metadata: &Metadata,
    ) -> Result<(), Reason> {
        self.remove(parent, name);
        let mut node = Node::implicit_directory(parent, &[], self.current);
        node.kind = kind;
        let id = self.add_node(parent, name, node)?;
        self.describe(id, metadata)
    }

    fn hard_link(&mut self, parent: NodeId, name: &[u8], target: &LayerPath) -> Result<(), Reason> {
        let missing = || Reason::LinkTargetMissing(target.clone());
        let (target_parent, target_name) =
            target.split_last().ok_or(Reason::LinkTargetDirectory(target.clone()))?;
        let Place::Directory(target_parent) = self.resolve(&target_parent)? else {
            return Err(missing());
        };
        if (target_parent, target_name) == (parent, name) {
            return Err(Reason::LinkToItself);
        }
        // what the link replaces goes first: the target may be inside it and go with it
        self.remove(parent, name);
        if !self.node(target_parent).is_live() {
            return Err(missing());
        }
        let child = self.child(target_parent, target_name).ok_or_else(missing)?;
        if self.node(child.node).directory().is_some() {
            return Err(Reason::LinkTargetDirectory(target.clone()));
        }
        self.nodes[child.node.index()].names += 1;
        self.insert(parent, name, child.node);
        Ok(())
    }

    /// Removes what lower layers have put at a name.
    fn white_out(&mut self, parent: &LayerPath, name: &[u8]) -> Result<(), Reason> {
        if let Place::Directory(parent) = self.resolve(parent)?
            && let Some(child) = self.child(parent, name)
            && self.remove_lower(parent, name, child)
        {
            self.remove_lower_below(child.node);
        }
        Ok(())
    }

    /// Removes what lower layers have put into a directory.
    fn make_opaque(&mut self, path: &LayerPath) -> Result<(), Reason> {
        if let Place::Directory(id) = self.resolve(path)? {
            self.remove_lower_below(id);
        }
        Ok(())
    }

    /// Removes a name unless it belongs to the current layer. Whether it stays as a
    /// directory of this layer, whose lower content has to go one by one.
    fn remove_lower(&mut self, parent: NodeId, name: &[u8], child: Child) -> bool {
        match self.node(child.node).directory() {
            Some(directory) if directory.touched == Some(self.current) => return true,
            None if child.layer == self.current => return false,
            _ => {}
        }
        self.remove(parent, name);
        false
    }

    fn remove_lower_below(&mut self, top: NodeId) {
        let mut stack = vec![top];
        while let Some(id) = stack.pop() {
            let current = self.current;
            let Some(directory) = self.nodes[id.index()].directory_mut() else { continue };
            if directory.emptied.replace(current) == Some(current) {
                continue; // since then only this layer has put anything there
            }
            let children: Vec<_> =
                directory.children.iter().map(|(name, child)| (name.clone(), *child)).collect();
            for (name, child) in children {
                if self.remove_lower(id, &name, child) {
                    stack.push(child.node);
                }
            }
        }
    }

    /// Gives a node an entry's metadata.
    fn describe(&mut self, id: NodeId, metadata: &Metadata) -> Result<(), Reason> {
        if metadata.mtime.nanoseconds >= 1_000_000_000 {
            return Err(Reason::Nanoseconds(metadata.mtime.nanoseconds));
        }
        let current = self.current;
        let node = &mut self.nodes[id.index()];
        node.mode = metadata.mode & 0o7777;
        let xattrs = effective_xattrs(node, metadata)?;
        node.xattrs = (!xattrs.is_empty()).then(|| Arc::new(xattrs));
        node.uid = metadata.uid;
        node.gid = metadata.gid;
        node.mtime = metadata.mtime;
        node.metadata_layer = current;
        if let NodeKind::Symlink(_) = node.kind {
            node.mode = 0o777; // Linux knows no other
        }
        if node.directory().is_some() {
            if node.xattrs.is_some() {
                self.attributed.push(id);
            }
            self.touch(id);
        }
        Ok(())
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<Child> {
        self.node(parent).directory().and_then(|d| d.children.get(name)).copied()
    }

    /// Puts a new node under a free name.
    pub(super) fn add_node(&mut self, parent: NodeId, name: &[u8], node: Node) -> Result<NodeId, Reason> {
        let id = NodeId::new(self.nodes.len())
            .filter(|id| id.index() < Self::MAX_NODES)
            .ok_or(Reason::TooManyNodes)?;
        let is_directory = node.directory().is_some();
        self.nodes.push(node);
        self.insert(parent, name, id);
        if is_directory {
            self.changed.push(id);
            self.touch(id);
        }
        Ok(id)
    }

    /// Gives a node a free name; the count of names is the caller's.
    fn insert(&mut self, parent: NodeId, name: &[u8], node: NodeId) {
        let child = Child { node, layer: self.current };
        self.change(parent);
        if let Some(directory) = self.nodes[parent.index()].directory_mut() {
            directory.children.insert(name.into(), child);
        }
        self.touch(parent);
    }

    /// Removes a name, if it is there, and everything below it.
    fn remove(&mut self, parent: NodeId, name: &[u8]) {
        let Some(child) = self.nodes[parent.index()].directory_mut().and_then(|d| d.children.remove(name))
        else {
            return;
        };
        self.change(parent);
        let mut stack = vec![child.node];
        while let Some(id) = stack.pop() {
            let node = &mut self.nodes[id.index()];
            node.names -= 1;
            if let Some(directory) = node.directory_mut() {
                stack.extend(std::mem::take(&mut directory.children).into_values().map(|c| c.node));
            }
        }
    }

    /// Notes that the current layer changes a directory's entry list.
    fn change(&mut self, id: NodeId) {
        let current = self.current;
        if let Some(directory) = self.nodes[id.index()].directory_mut()
            && directory.changed != current
        {
            directory.changed = current;
            self.changed.push(id);
        }
    }

    /// Notes that the current layer has an entry at or below a directory.
    fn touch(&mut self, mut id: NodeId) {
        let current = self.current;
        while let Some(directory) = self.nodes[id.index()].directory_mut()
            && directory.touched != Some(current)
        {
            directory.touched = Some(current);
            id = directory.parent;
        }
    }
}

fn node_kind(kind: &EntryKind) -> Result<NodeKind, Reason> {
    Ok(match kind {
        EntryKind::File(content) if !in_order(content) => return Err(Reason::Segments),
        EntryKind::File(content) => NodeKind::File(FileContent {
            size: content.size,
            // exact: hundreds of thousands of files hold one segment each
            segments: content.segments.as_slice().to_vec(),
        }),
        EntryKind::Symlink(target) if target.is_empty() => return Err(Reason::EmptySymlink),
        EntryKind::Symlink(target) if target.len() > 4095 => {
            return Err(Reason::SymlinkTooLong(target.len()));
        }
        EntryKind::Symlink(target) if target.contains(&0) => return Err(Reason::SymlinkNul),
        EntryKind::Symlink(target) => NodeKind::Symlink(target.as_slice().into()),
        &EntryKind::CharDevice { major, minor } => NodeKind::CharDevice { major, minor },
        &EntryKind::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
        EntryKind::Fifo => NodeKind::Fifo,
        EntryKind::Directory | EntryKind::Hardlink(_) | EntryKind::Whiteout | EntryKind::OpaqueWhiteout => {
            unreachable!("the caller has dealt with these")
        }
    })
}

/// Whether segments ascend, do not overlap, and end within the file.
fn in_order(content: &FileContent) -> bool {
    let mut end = 0;
    content.segments.iter().all(|segment| {
        let fits = segment.length > 0 && segment.file_offset >= end;
        end = segment.file_offset.saturating_add(segment.length);
        fits && end <= content.size && segment.spool_offset.checked_add(segment.length).is_some()
    })
}

/// The attributes a kernel would keep, and their effect on the permission bits: an access
/// list sets them, one that says no more than they do is not kept, links have none; labels
/// of the building host's own security policy are not taken over.
fn effective_xattrs(node: &mut Node, metadata: &Metadata) -> Result<Xattrs, Reason> {
    let mut kept = Vec::with_capacity(metadata.xattrs.len());
    for (name, value) in &metadata.xattrs {
        let known = [ACCESS_ACL, DEFAULT_ACL].into_iter().find(|acl| acl.as_bytes() == name);
        let keep = match known {
            None => !matches!(name.as_slice(), b"security.selinux" | b"system.nfs4_acl"),
            Some(_) if matches!(node.kind, NodeKind::Symlink(_)) => false,
            Some(known) => {
                let acl = Acl::parse(value).map_err(|source| Reason::Acl { name: known, source })?;
                match acl {
                    None => false,
                    Some(_) if known == DEFAULT_ACL => {
                        if node.directory().is_none() {
                            return Err(Reason::DefaultAclOnFile);
                        }
                        true
                    }
                    Some(acl) => {
                        node.mode = node.mode & 0o7000 | acl.mode();
                        !acl.is_only_mode()
                    }
                }
            }
        };
        if keep {
            kept.push((name.clone(), value.clone()));
        }
    }
    Ok(kept)
}
