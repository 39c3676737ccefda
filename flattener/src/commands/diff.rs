//! `flattener diff A B`: what two images share, chunk by chunk and byte by byte.
//!
//! The second figure says what the first one misses: bytes of B in chunks of its own that
//! stand, as whole 4 KiB blocks, somewhere in A all the same.

use crate::fetch::{self, FetchError};
use crate::progress::{Progress, Unit};
use crate::report::human;
use futures_util::StreamExt;
use image_format::ids::ChunkId;
use image_format::manifest::Manifest;
use image_format::units::BLOCK_SIZE;
use origin::store::Origin;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// What B has in common with A. Each distinct chunk is counted once.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffReport {
    /// Distinct chunks of A.
    pub a_chunks: u64,
    /// Distinct chunks of B.
    pub b_chunks: u64,
    /// Chunks that both have.
    pub shared_chunks: u64,
    /// Stored bytes of those.
    pub shared_bytes: u64,
    /// Chunks that only A has.
    pub only_a_chunks: u64,
    /// Stored bytes of those.
    pub only_a_bytes: u64,
    /// Chunks that only B has: what a store with A must add for B.
    pub only_b_chunks: u64,
    /// Stored bytes of those.
    pub only_b_bytes: u64,
    /// Blocks compared by content, unless only chunks were compared.
    pub blocks: Option<BlockReport>,
}

/// What stands in the chunks that only B has, by 4 KiB blocks that are not all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// Bytes of blocks in chunks that only B has.
    pub only_b_bytes: u64,
    /// Of those, bytes of blocks that stand somewhere in A.
    pub also_in_a_bytes: u64,
}

impl fmt::Display for DiffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.only_b_chunks as f64 / (self.b_chunks.max(1)) as f64;
        writeln!(f, "A       {} chunks", self.a_chunks)?;
        writeln!(f, "B       {} chunks", self.b_chunks)?;
        writeln!(f, "shared  {} chunks, {} stored", self.shared_chunks, human(self.shared_bytes))?;
        writeln!(f, "only A  {} chunks, {} stored", self.only_a_chunks, human(self.only_a_bytes))?;
        write!(
            f,
            "only B  {} chunks, {} stored: {share:.1} % of B",
            self.only_b_chunks,
            human(self.only_b_bytes)
        )?;
        if let Some(BlockReport { only_b_bytes, also_in_a_bytes }) = self.blocks {
            write!(
                f,
                "\n        {} of content, of which {} stand in A in 4 KiB blocks",
                human(only_b_bytes),
                human(also_in_a_bytes)
            )?;
        }
        Ok(())
    }
}

fn distinct(manifest: &Manifest) -> HashMap<ChunkId, (usize, u64)> {
    let entries = manifest.entries().iter().enumerate();
    entries.map(|(position, entry)| (entry.id, (position, u64::from(entry.stored_len)))).collect()
}

/// Compares the chunk lists of two images; no chunk is fetched.
#[must_use]
pub fn chunks(a: &Manifest, b: &Manifest) -> DiffReport {
    let (a, b) = (distinct(a), distinct(b));
    let sum = |of: &HashMap<ChunkId, (usize, u64)>, keep: &dyn Fn(&ChunkId) -> bool| {
        let kept = of.iter().filter(|(id, _)| keep(id)).map(|(_, &(_, bytes))| bytes);
        kept.fold((0, 0), |(count, total), bytes| (count + 1, total + bytes))
    };
    let (shared_chunks, shared_bytes) = sum(&b, &|id| a.contains_key(id));
    let (only_a_chunks, only_a_bytes) = sum(&a, &|id| !b.contains_key(id));
    let (only_b_chunks, only_b_bytes) = sum(&b, &|id| !a.contains_key(id));
    DiffReport {
        a_chunks: a.len() as u64,
        b_chunks: b.len() as u64,
        shared_chunks,
        shared_bytes,
        only_a_chunks,
        only_a_bytes,
        only_b_chunks,
        only_b_bytes,
        blocks: None,
    }
}

/// Compares contents as well: all of A and what only B has is fetched.
///
/// # Errors
/// [`FetchError`] for the first chunk that cannot be had.
pub async fn blocks(
    origin: Arc<dyn Origin>,
    a: Arc<Manifest>,
    b: Arc<Manifest>,
    progress: &Progress,
) -> Result<BlockReport, FetchError> {
    let (in_a, in_b) = (distinct(&a), distinct(&b));
    let of_a: Vec<usize> = in_a.values().map(|&(position, _)| position).collect();
    let of_b: Vec<usize> =
        in_b.iter().filter(|(id, _)| !in_a.contains_key(id)).map(|(_, &(position, _))| position).collect();
    let stage = progress.stage("compare", Unit::Count, (of_a.len() + of_b.len()) as u64);

    let mut known = HashSet::new();
    let mut hashes = std::pin::pin!(fetch::each(Arc::clone(&origin), a, of_a, block_hashes));
    while let Some((_, found)) = hashes.next().await {
        known.extend(found?);
        stage.add(1);
    }
    let (mut only_b, mut also) = (0, 0);
    let mut hashes = std::pin::pin!(fetch::each(origin, b, of_b, block_hashes));
    while let Some((_, found)) = hashes.next().await {
        let found = found?;
        only_b += found.len() as u64;
        also += found.iter().filter(|hash| known.contains(*hash)).count() as u64;
        stage.add(1);
    }
    stage.finish();
    let block = u64::from(BLOCK_SIZE);
    Ok(BlockReport { only_b_bytes: only_b * block, also_in_a_bytes: also * block })
}

/// 128 bits of hash per block that is not all zeros: enough to count by, half the memory.
fn block_hashes(_: usize, plain: &image_format::chunk::PlainChunk) -> Vec<[u8; 16]> {
    let held = u32::try_from(plain.held_len()).expect("a chunk is at most 4 MiB");
    let [bytes, _] = plain.slices(0..held);
    let blocks = bytes.chunks(BLOCK_SIZE as usize).filter(|block| block.iter().any(|&byte| byte != 0));
    blocks
        .map(|block| {
            let mut padded = [0; BLOCK_SIZE as usize];
            padded[..block.len()].copy_from_slice(block);
            let hash = blake3::hash(&padded);
            *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
        })
        .collect()
}
