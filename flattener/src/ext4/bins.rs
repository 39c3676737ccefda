//! Which files share a chunk: bins whose boundaries depend on what is in them.
//!
//! A file of 128 KiB or more has chunks of its own. Smaller ones are grouped by directory:
//! a directory whose small files, all below it included, fit one chunk is an *atom* and
//! stays together; a larger one is a sequence of its own files and of the atoms directly in
//! it. Atoms of 128 KiB or more get a bin each; the rest of the sequence is cut where an
//! item's own name says so. A sequence never crosses its directory, so what a package
//! looks like on the device depends on the package alone: not on where it is installed, on
//! what stands beside it, or on the bytes of its files.

use super::CHUNK_BLOCKS;
use crate::tree::{NodeId, Step};

/// Files and atoms from here on do not share a chunk with others (128 KiB).
pub(super) const LARGE: u64 = 32;
/// A bin is not cut before it has this many blocks (256 KiB).
const MIN: u64 = 64;
/// Blocks after which on average an item cuts (512 KiB): bins are 256 to 512 KiB, about 380
/// on average.
const MEAN: u64 = 128;

/// Files that are placed together, from a chunk boundary on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Hash of the name that begins it.
    pub(super) name_hash: u64,
    /// The files in order, each with its blocks.
    pub(super) files: Vec<(NodeId, u64)>,
    /// Blocks of all files.
    pub(super) blocks: u64,
}

/// Something to be placed: a file, or all small files of an atom.
#[derive(Debug, Clone)]
struct Item {
    name_hash: u64,
    files: Vec<(NodeId, u64)>,
    blocks: u64,
}

impl Item {
    /// How strongly the item asks for a cut behind it: the lower, the stronger, and the
    /// more blocks, the likelier. Below 2⁶⁴ / mean it is a cut.
    fn score(&self) -> u64 {
        self.name_hash / self.blocks
    }

    fn into_unit(self) -> Unit {
        Unit { name_hash: self.name_hash, files: self.files, blocks: self.blocks }
    }
}

struct Grouping<'a> {
    steps: &'a [Step],
    /// For each step the position behind everything below it.
    ends: Vec<usize>,
    /// For each step its blocks if it is a file of this layer, else 0.
    blocks: Vec<u64>,
    /// For each step the blocks of small files in and below it.
    small: Vec<u64>,
    units: Vec<Unit>,
}

/// Groups a layer's files. `blocks_of` gives a file's blocks, 0 for whatever has none.
pub(super) fn group(steps: &[Step], blocks_of: impl Fn(NodeId) -> u64) -> Vec<Unit> {
    let blocks: Vec<u64> =
        steps.iter().map(|step| if step.owned { blocks_of(step.node) } else { 0 }).collect();
    let mut ends = vec![steps.len(); steps.len()];
    let mut small = vec![0_u64; steps.len()];
    let mut open: Vec<usize> = Vec::new();
    let close = |at: usize, small: &mut Vec<u64>, open: &[usize]| {
        if let Some(&parent) = open.last() {
            small[parent] += small[at];
        }
    };
    for (at, step) in steps.iter().enumerate() {
        while open.len() > step.depth as usize {
            let done = open.pop().expect("checked");
            ends[done] = at;
            close(done, &mut small, &open);
        }
        small[at] = if blocks[at] < LARGE { blocks[at] } else { 0 };
        open.push(at);
    }
    while let Some(done) = open.pop() {
        close(done, &mut small, &open);
    }
    let mut grouping = Grouping { steps, ends, blocks, small, units: Vec::new() };
    grouping.run();
    grouping.units
}

impl Grouping<'_> {
    fn run(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        // steps whose content is still to be emitted, the next one last
        let mut stack = vec![0];
        while let Some(at) = stack.pop() {
            if !self.steps[at].directory {
                if self.blocks[at] >= LARGE {
                    let item = self.file(at);
                    self.units.push(item.into_unit());
                }
            } else if self.small[at] <= CHUNK_BLOCKS && at != 0 {
                self.atom_of_its_own(at);
            } else {
                self.sequence(at);
                let mut children = self.children(at);
                children.reverse();
                stack.append(&mut children);
            }
        }
    }

    /// Emits an atom's bin, if it has one to itself, and its large files.
    fn atom_of_its_own(&mut self, at: usize) {
        if self.small[at] >= LARGE {
            let item = self.atom(at);
            self.units.push(item.into_unit());
        }
        for below in at..self.ends[at] {
            if self.blocks[below] >= LARGE {
                let item = self.file(below);
                self.units.push(item.into_unit());
            }
        }
    }

    /// Emits the bins of what is small in a directory that is no atom itself.
    fn sequence(&mut self, at: usize) {
        let items: Vec<Item> = self
            .children(at)
            .into_iter()
            .filter(|&child| self.small[child] > 0 && self.small[child] < LARGE)
            .map(|child| if self.steps[child].directory { self.atom(child) } else { self.file(child) })
            .collect();
        self.units.extend(cut(items));
    }

    fn children(&self, at: usize) -> Vec<usize> {
        let mut children = Vec::new();
        let mut child = at + 1;
        while child < self.ends[at] {
            children.push(child);
            child = self.ends[child];
        }
        children
    }

    fn file(&self, at: usize) -> Item {
        let step = &self.steps[at];
        let blocks = self.blocks[at];
        Item { name_hash: step.name_hash, files: vec![(step.node, blocks)], blocks }
    }

    fn atom(&self, at: usize) -> Item {
        let files = (at..self.ends[at])
            .filter(|&below| (1..LARGE).contains(&self.blocks[below]))
            .map(|below| (self.steps[below].node, self.blocks[below]))
            .collect();
        Item { name_hash: self.steps[at].name_hash, files, blocks: self.small[at] }
    }
}

/// Cuts a sequence into bins of at most a chunk. A bin ends behind an item that asks for it
/// once the bin has its minimum; a bin that would overflow is cut back to behind the item
/// in it that asks the strongest.
fn cut(items: Vec<Item>) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut bin: Vec<Item> = Vec::new();
    let mut queue: std::collections::VecDeque<Item> = items.into();
    let mut blocks = 0;
    while let Some(item) = queue.pop_front() {
        if blocks + item.blocks > CHUNK_BLOCKS {
            queue.push_front(item);
            // what is behind the cut goes through the queue again
            for back in bin.split_off(weakest_point(&bin)).into_iter().rev() {
                queue.push_front(back);
            }
            units.push(merge(std::mem::take(&mut bin)));
            blocks = 0;
            continue;
        }
        blocks += item.blocks;
        let cuts = blocks >= MIN && item.score() < u64::MAX / MEAN;
        bin.push(item);
        if cuts {
            units.push(merge(std::mem::take(&mut bin)));
            blocks = 0;
        }
    }
    if !bin.is_empty() {
        units.push(merge(bin));
    }
    units
}

/// How many items of a full bin stay in it: at least as many as make the minimum.
fn weakest_point(bin: &[Item]) -> usize {
    let mut blocks = 0;
    let mut best = (u64::MAX, bin.len());
    for (at, item) in bin.iter().enumerate() {
        blocks += item.blocks;
        if blocks >= MIN && item.score() < best.0 {
            best = (item.score(), at + 1);
        }
    }
    best.1
}

fn merge(items: Vec<Item>) -> Unit {
    Unit {
        name_hash: items.first().map_or(0, |item| item.name_hash),
        blocks: items.iter().map(|item| item.blocks).sum(),
        files: items.into_iter().flat_map(|item| item.files).collect(),
    }
}
