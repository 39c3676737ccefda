//! From a tree to a layout: limits checked, everything placed, descriptors written.
//!
//! Layers are placed bottom first. A layer has two regions, each from a chunk boundary on:
//! its metadata (directories whose entry list it was the last to change, then long link
//! targets, attribute blocks and extent trees) and its file data. Both follow from the
//! layer's record, so what upper layers remove leaves a gap and moves nothing.

use std::collections::HashMap;

use super::bins::{self, Unit};
use super::dir::{self, Contents};
use super::extent;
use super::geometry::Geometry;
use super::space::{Breaks, Space, alignment, coarse};
use super::xattr::Split;
use super::{
    BLOCK, CHUNK_BLOCKS, Counts, FilesystemIdentity, Home, Layout, LayoutError, Limit, Owner, Piece,
    ValueHome, What, group, numbers, superblock,
};
use crate::layer::entry::{FileContent, LayerIndex};
use crate::tree::{LayerRecord, Node, NodeId, NodeKind, Tree};

/// Metadata blocks: about one in 64 directories starts at a multiple of 16 blocks.
const METADATA_BREAKS: Breaks = Breaks { every: 64, step: 16 };
/// File data, in chunks: about one in 32 bins or large files starts at a multiple of 16.
const DATA_BREAKS: Breaks = Breaks { every: 32, step: 16 };
/// Regions of layers are aligned to their size, at most to a block group (in chunks).
const GROUP_CHUNKS: u64 = 256;
/// Most extents that a directory may have: they are all in its inode.
const DIRECTORY_BLOCKS: u64 = 4 * 32768;
/// ext4 files end before block 2³² − 1.
const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK;
/// Files with more segments keep their extents, though they may be few.
const MANY_SEGMENTS: usize = 16;
/// Most names of a file.
const MAX_LINKS: u32 = 65000;

struct Planner {
    nodes: Vec<Node>,
    homes: Vec<Home>,
    pieces: Vec<Piece>,
    extents: HashMap<NodeId, Vec<extent::Extent>>,
    values: Vec<ValueHome>,
    counts: Counts,
    /// Next free chunk.
    next: u64,
}

impl Layout {
    /// Decides where everything of a tree goes.
    ///
    /// # Errors
    /// [`LayoutError`] if something does not fit ext4 or the address space.
    pub fn plan(tree: Tree, identity: &FilesystemIdentity) -> Result<Self, LayoutError> {
        let (nodes, records) = tree.into_parts();
        let mut homes = vec![Home::default(); nodes.len()];
        let last_inode = numbers::assign(&records, &mut homes);
        let mut planner = Planner {
            nodes,
            homes,
            pieces: Vec::new(),
            extents: HashMap::new(),
            values: Vec::new(),
            counts: Counts::default(),
            next: Geometry::DATA / CHUNK_BLOCKS,
        };
        planner.check_limits()?;
        let mut directories = planner.contents()?;
        for (at, record) in records.iter().enumerate() {
            let at = LayerIndex(u32::try_from(at).expect("fewer layers than nodes"));
            planner.place_metadata(at, record, &directories);
            planner.place_data(record);
        }
        directories.shrink_to_fit();
        let last_inode = planner.place_values(last_inode);
        planner.finish(directories, last_inode, identity)
    }
}

impl Planner {
    fn finish(
        self,
        directories: HashMap<NodeId, Contents>,
        last_inode: u64,
        identity: &FilesystemIdentity,
    ) -> Result<Layout, LayoutError> {
        let geometry = Geometry::new(self.next * CHUNK_BLOCKS, last_inode)?;
        let mut pieces = self.pieces;
        fixed_pieces(geometry, &mut pieces);
        pieces.sort_unstable_by_key(|piece| piece.start);
        debug_assert!(pieces.windows(2).all(|pair| pair[0].start + pair[0].blocks <= pair[1].start));
        let values = (0_u32..).zip(&self.values).map(|(index, value)| (value.ino, Owner::Value(index)));
        let mut inodes: Vec<(u32, Owner)> = (0..self.nodes.len())
            .filter_map(NodeId::new)
            .filter(|id| self.nodes[id.index()].is_live())
            .map(|id| (self.homes[id.index()].ino, Owner::Node(id)))
            .chain(values)
            .collect();
        inodes.sort_unstable();
        debug_assert!(inodes.first().is_some_and(|&(first, _)| first == super::ROOT_INODE));
        debug_assert!(inodes.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut layout = Layout {
            nodes: self.nodes,
            homes: self.homes,
            inodes,
            values: self.values,
            pieces,
            directories,
            extents: self.extents,
            geometry,
            descriptors: Vec::new(),
            counts: self.counts,
        };
        let groups = group::describe(&layout);
        layout.descriptors = superblock::encode(&layout, &groups, identity);
        Ok(layout)
    }

    /// Checks every live node against the limits, and counts.
    fn check_limits(&mut self) -> Result<(), LayoutError> {
        let mut counts = Counts::default();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            // a dead file needs a place to leave free; the bounds hold for it as well
            let checked = check(node, &mut counts);
            if let Err(limit) = checked {
                let path = NodeId::new(index).and_then(|id| self.path_of(id));
                let path = path.unwrap_or_else(|| "(removed by a later layer)".to_owned());
                return Err(LayoutError::Limit { layer: node.layer, path, limit });
            }
        }
        self.counts = counts;
        Ok(())
    }

    /// A path for a message: any name that leads to the node.
    fn path_of(&self, node: NodeId) -> Option<String> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = node;
        if self.nodes[node.index()].directory().is_none() {
            let (parent, name) = self.nodes.iter().enumerate().find_map(|(index, candidate)| {
                let directory = candidate.directory()?;
                let (name, _) = directory.children.iter().find(|(_, child)| child.node == node)?;
                Some((NodeId::new(index)?, name))
            })?;
            names.push(name);
            at = parent;
        }
        while at != NodeId::ROOT {
            let directory = self.nodes[at.index()].directory()?;
            names.push(&directory.name);
            at = directory.parent;
        }
        names.reverse();
        Some(format!("/{}", names.join(&b'/').escape_ascii()))
    }

    /// Lays out the live directories; their names move out of the nodes.
    fn contents(&mut self) -> Result<HashMap<NodeId, Contents>, LayoutError> {
        let mut out = HashMap::new();
        for index in 0..self.nodes.len() {
            let Some(id) = NodeId::new(index).filter(|id| self.nodes[id.index()].is_live()) else {
                continue;
            };
            let layer = self.nodes[index].layer;
            let Some(directory) = self.nodes[index].directory_mut() else { continue };
            let parent = directory.parent;
            let children = std::mem::take(&mut directory.children);
            let count = children.len();
            let entries = children.into_iter().map(|(name, child)| (name, child.node)).collect();
            let contents = Contents::plan(parent, entries)
                .filter(|contents| contents.blocks() <= DIRECTORY_BLOCKS)
                .ok_or_else(|| LayoutError::Limit {
                    layer,
                    path: self.path_of(id).unwrap_or_default(),
                    limit: Limit::DirectorySize(count),
                })?;
            out.insert(id, contents);
        }
        Ok(out)
    }

    fn place_metadata(
        &mut self,
        layer: LayerIndex,
        record: &LayerRecord,
        directories: &HashMap<NodeId, Contents>,
    ) {
        self.align(self.metadata_estimate(record).div_ceil(CHUNK_BLOCKS));
        let start = self.next * CHUNK_BLOCKS;
        let mut space = Space::new(start, METADATA_BREAKS);
        for changed in &record.changed_directories {
            let reserved = dir::reserved_blocks(changed.entry_bytes);
            space.maybe_break(changed.name_hash);
            let at = space.take(reserved);
            let node = &self.nodes[changed.node.index()];
            let last = node.directory().is_some_and(|directory| directory.changed == layer);
            if let Some(contents) = directories.get(&changed.node).filter(|_| last) {
                debug_assert!(contents.blocks() <= reserved);
                self.homes[changed.node.index()].data = at;
                self.add(at, contents.blocks(), What::Directory(changed.node));
            }
        }
        for (node, xattrs) in &record.attributed_directories {
            if Split::plan(xattrs).is_ok_and(|split| split.has_block()) {
                let at = space.take(1);
                let described = &self.nodes[node.index()];
                if described.is_live() && described.metadata_layer == layer {
                    self.homes[node.index()].xattrs = at;
                    self.add(at, 1, What::Xattrs(*node));
                }
            }
        }
        for step in record.steps.iter().filter(|step| step.owned && !step.directory) {
            self.place_node_metadata(step.node, &mut space);
        }
        let chunks = (space.end() - start).div_ceil(CHUNK_BLOCKS);
        self.next += coarse(chunks);
    }

    /// A rough size of a layer's metadata, for its alignment: directories only.
    fn metadata_estimate(&self, record: &LayerRecord) -> u64 {
        record.changed_directories.iter().map(|d| dir::reserved_blocks(d.entry_bytes)).sum()
    }

    /// Blocks besides data that a file, link or device needs.
    fn place_node_metadata(&mut self, id: NodeId, space: &mut Space) {
        let node = &self.nodes[id.index()];
        let live = node.is_live();
        let link = matches!(&node.kind, NodeKind::Symlink(target) if target.len() > super::inode::FAST_LINK);
        let xattrs = Split::plan(node.xattrs()).is_ok_and(|split| split.has_block());
        let tree = match &node.kind {
            NodeKind::File(content) => extent::tree_blocks(extent::extent_count(content)),
            _ => 0,
        };
        if link {
            let at = space.take(1);
            self.homes[id.index()].data = at;
            self.add_if(live, at, 1, What::Symlink(id));
        }
        if xattrs {
            let at = space.take(1);
            self.homes[id.index()].xattrs = at;
            self.add_if(live, at, 1, What::Xattrs(id));
        }
        if tree > 0 {
            let at = space.take(tree);
            self.homes[id.index()].extents = at;
            self.add_if(live, at, tree, What::Extents(id));
        }
        // kept where making them again for every chunk would take long
        if live
            && let NodeKind::File(content) = &self.nodes[id.index()].kind
            && (tree > 0 || content.segments.len() > MANY_SEGMENTS)
        {
            self.extents.insert(id, extent::extents(content));
        }
    }

    fn place_data(&mut self, record: &LayerRecord) {
        let units = bins::group(&record.steps, |node| match &self.nodes[node.index()].kind {
            NodeKind::File(content) => extent::data_blocks(content),
            _ => 0,
        });
        let chunks = |unit: &Unit| coarse(unit.blocks.div_ceil(CHUNK_BLOCKS));
        self.align(units.iter().map(chunks).sum());
        let start = self.next;
        let mut space = Space::new(start, DATA_BREAKS);
        for unit in &units {
            space.maybe_break(unit.name_hash);
            let mut at = space.take(chunks(unit)) * CHUNK_BLOCKS;
            for &(node, blocks) in &unit.files {
                self.homes[node.index()].data = at;
                self.add_if(self.nodes[node.index()].is_live(), at, blocks, What::Data(node));
                at += blocks;
            }
        }
        self.next = start + coarse(space.end() - start);
    }

    /// Gives attribute values that need it inodes and blocks, behind everything else: they
    /// are rare. The last number in use.
    fn place_values(&mut self, last_inode: u64) -> u64 {
        let mut next = last_inode;
        let mut block = self.next * CHUNK_BLOCKS;
        for id in (0..self.nodes.len()).filter_map(NodeId::new) {
            let node = &self.nodes[id.index()];
            if !node.is_live() || node.xattrs.is_none() {
                continue;
            }
            let Ok(split) = Split::plan(node.xattrs()) else { continue };
            for (index, value) in split.outside().enumerate() {
                next += 1;
                let ino = u32::try_from(next).expect("numbers stay below 2^32");
                let blocks = (value.len() as u64).div_ceil(BLOCK);
                let what = What::Value(u32::try_from(self.values.len()).expect("fewer than inodes"));
                self.values.push(ValueHome { node: id, index, ino, data: block });
                self.pieces.push(Piece { start: block, blocks, what });
                block += blocks;
            }
        }
        self.next = block.div_ceil(CHUNK_BLOCKS);
        next
    }

    fn align(&mut self, chunks: u64) {
        self.next = self.next.next_multiple_of(alignment(chunks, GROUP_CHUNKS));
    }

    fn add_if(&mut self, live: bool, start: u64, blocks: u64, what: What) {
        if live {
            self.add(start, blocks, what);
        }
    }

    fn add(&mut self, start: u64, blocks: u64, what: What) {
        self.pieces.push(Piece { start, blocks, what });
    }
}

/// Checks one node, and counts it if it is live.
fn check(node: &Node, counts: &mut Counts) -> Result<(), Limit> {
    let dropped = Split::plan(node.xattrs())?.dropped;
    let live = u64::from(node.is_live());
    counts.dropped_xattrs += dropped * live;
    match &node.kind {
        NodeKind::File(content) => {
            check_file(content)?;
            if node.names > MAX_LINKS {
                return Err(Limit::Links(node.names));
            }
            counts.files += live;
            counts.file_bytes = counts.file_bytes.saturating_add(content.size * live);
            counts.data_bytes += extent::data_blocks(content) * BLOCK * live;
        }
        NodeKind::Directory(_) => counts.directories += live,
        NodeKind::Symlink(_) => {
            if node.names > MAX_LINKS {
                return Err(Limit::Links(node.names));
            }
            counts.symlinks += live;
        }
        &(NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor }) => {
            if major > 0xfff || minor > 0xf_ffff {
                return Err(Limit::Device { major, minor });
            }
            counts.special += live;
        }
        NodeKind::Fifo => counts.special += live,
    }
    Ok(())
}

fn check_file(content: &FileContent) -> Result<(), Limit> {
    if content.size > MAX_FILE { Err(Limit::FileSize(content.size)) } else { Ok(()) }
}

/// Descriptors, bitmaps and inode tables.
fn fixed_pieces(geometry: Geometry, pieces: &mut Vec<Piece>) {
    pieces.push(Piece { start: 0, blocks: geometry.descriptor_blocks(), what: What::Descriptors });
    for (first, count) in geometry.sets() {
        let blocks = u64::from(count);
        let start = geometry.block_bitmap(first);
        pieces.push(Piece { start, blocks, what: What::BlockBitmaps(first) });
        let start = geometry.inode_bitmap(first);
        pieces.push(Piece { start, blocks, what: What::InodeBitmaps(first) });
    }
    let start = geometry.tables();
    pieces.push(Piece { start, blocks: geometry.blocks() - start, what: What::InodeTables });
}
