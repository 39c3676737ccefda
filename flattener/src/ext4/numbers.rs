//! Inode numbers: layer by layer, directories apart from everything else.
//!
//! Numbers follow from the layer records alone. Directories come first, shallow ones in
//! front: upper layers change the times and places of a few of them, and those then share a
//! chunk of the inode table instead of spoiling one in every part of it. A layer's numbers
//! start at a multiple that keeps it from straddling more chunks of the table than needed.

use super::space::{Breaks, Space, alignment, coarse};
use super::{FIRST_INODE, Home, ROOT_INODE};
use crate::tree::{LayerRecord, NodeId};

/// Inodes in one chunk of the table.
const CHUNK_INODES: u64 = 2048;
const DIRECTORY_BREAKS: Breaks = Breaks { every: 64, step: 32 };
const FILE_BREAKS: Breaks = Breaks { every: 32, step: 64 };

/// Gives numbers to everything the layers made. The last number handed out.
pub(super) fn assign(records: &[LayerRecord], homes: &mut [Home]) -> u64 {
    // positions in the table: number less one
    let mut next = u64::from(FIRST_INODE - 1);
    let mut last = next;
    for (at, record) in records.iter().enumerate() {
        let files = record.steps.iter().filter(|step| step.owned && !step.directory).count();
        let count = (record.new_directories.len() + files) as u64;
        if count == 0 {
            continue;
        }
        if at > 0 {
            next = next.next_multiple_of(alignment(count, CHUNK_INODES));
        }
        let end = assign_layer(record, next, homes);
        last = last.max(end);
        next += coarse(end - next);
    }
    last
}

/// Numbers one layer from a table position. The position behind.
fn assign_layer(record: &LayerRecord, start: u64, homes: &mut [Home]) -> u64 {
    let mut directories = Space::new(start, DIRECTORY_BREAKS);
    for &(node, hash) in &record.new_directories {
        if node == NodeId::ROOT {
            homes[node.index()].ino = ROOT_INODE;
            continue;
        }
        directories.maybe_break(hash);
        homes[node.index()].ino = number(directories.take(1));
    }
    let start = start + coarse(directories.end() - start);
    let mut files = Space::new(start, FILE_BREAKS);
    // hashes of the directories above the current step, each cleared once it has been used
    let mut above: Vec<Option<u64>> = Vec::new();
    for step in &record.steps {
        above.truncate(step.depth as usize);
        if step.directory {
            above.push(Some(step.name_hash));
        } else if step.owned {
            // the first file of a directory may start behind a break
            if let Some(hash) = above.last_mut().and_then(Option::take) {
                files.maybe_break(hash);
            }
            homes[step.node.index()].ino = number(files.take(1));
        }
    }
    files.end()
}

fn number(position: u64) -> u32 {
    u32::try_from(position + 1).expect("numbers with all reserves stay below 2^32 for 2^29 nodes")
}
