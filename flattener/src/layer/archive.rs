//! The uncompressed side of a layer: archive bytes as blocks and runs, digested as they pass.
//!
//! Invariants: every byte of the archive passes through the digest, also those after the
//! end marker; no read is longer than its caller said.

use super::digest::{Digest, Hasher};
use super::error::Fault;
use super::limits::Budget;
use super::spool::to_u64;
use std::sync::mpsc::{Receiver, SyncSender};

/// Unit of tar.
pub(super) const BLOCK_BYTES: usize = 512;

/// One header-sized block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// The archive, front to back.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    /// Uncompressed offset of the next byte.
    offset: u64,
    pushed_back: Option<Block>,
    hasher: Hasher,
    budget: &'a Budget,
}

impl<'a> Archive<'a> {
    pub(super) fn new(full: Receiver<Vec<u8>>, empty: SyncSender<Vec<u8>>, budget: &'a Budget) -> Self {
        Self {
            full,
            empty,
            current: Vec::new(),
            at: 0,
            offset: 0,
            pushed_back: None,
            hasher: Hasher::new(),
            budget,
        }
    }

    /// Uncompressed offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset - if self.pushed_back.is_some() { to_u64(BLOCK_BYTES) } else { 0 }
    }

    /// Some of the next bytes; none at the end.
    fn fill(&mut self) -> Result<&[u8], Fault> {
        debug_assert!(self.pushed_back.is_none(), "a block pushed back is read as a block");
        if self.at == self.current.len() {
            let Ok(next) = self.full.recv() else { return Ok(&[]) };
            self.budget.uncompressed(to_u64(next.len()))?;
            self.hasher.update(&next);
            // Full or gone: the other side makes a new buffer then.
            let _ = self.empty.try_send(std::mem::replace(&mut self.current, next));
            self.at = 0;
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
        self.offset += to_u64(amount);
    }

    /// Hands the next `length` bytes to `sink` in pieces.
    pub(super) fn run(
        &mut self,
        mut length: u64,
        what: &'static str,
        mut sink: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if length > 0
            && let Some(block) = self.pushed_back.take()
        {
            let take = usize::try_from(length).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            sink(&block[..take])?;
            length -= to_u64(take);
            // Runs after a push-back begin and are padded on block boundaries, so a run
            // that is shorter than the block skips its padding here.
        }
        while length > 0 {
            let offset = self.offset;
            let available = self.fill()?;
            if available.is_empty() {
                return Err(Fault::Truncated { what, offset });
            }
            let take = usize::try_from(length).unwrap_or(usize::MAX).min(available.len());
            sink(&available[..take])?;
            self.consume(take);
            length -= to_u64(take);
        }
        Ok(())
    }

    /// The next block; `None` at a clean end of the archive.
    pub(super) fn block(&mut self, what: &'static str) -> Result<Option<Block>, Fault> {
        if let Some(block) = self.pushed_back.take() {
            return Ok(Some(block));
        }
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let offset = self.offset;
            let available = self.fill()?;
            match (available.len(), filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(Fault::Truncated { what, offset }),
                _ => {}
            }
            let take = available.len().min(BLOCK_BYTES - filled);
            block[filled..filled + take].copy_from_slice(&available[..take]);
            filled += take;
            self.consume(take);
        }
        Ok(Some(block))
    }

    /// Makes `block`, the last one read, the next one again.
    pub(super) fn push_back(&mut self, block: Block) {
        self.pushed_back = Some(block);
    }

    /// Skips to the next block boundary, or to the end of an archive that was cut there.
    pub(super) fn skip_padding(&mut self) -> Result<(), Fault> {
        let over = self.offset % to_u64(BLOCK_BYTES);
        let mut left = if over == 0 { 0 } else { to_u64(BLOCK_BYTES) - over };
        while left > 0 {
            let available = to_u64(self.fill()?.len());
            if available == 0 {
                return Ok(());
            }
            let take = available.min(left);
            self.consume(usize::try_from(take).expect("at most one block"));
            left -= take;
        }
        Ok(())
    }

    /// Reads what follows the archive's end marker and tells the digest of everything.
    pub(super) fn finish(&mut self) -> Result<Digest, Fault> {
        self.pushed_back = None;
        loop {
            let rest = self.fill()?.len();
            if rest == 0 {
                return Ok(std::mem::take(&mut self.hasher).finish());
            }
            self.consume(rest);
        }
    }
}
