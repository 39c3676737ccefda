//! Bounds on what an image may make us hold, and the account that all its layers share.
//!
//! Invariants: every count is taken before the memory or disk it stands for is used;
//! layers read in parallel draw on one [`Budget`], so the bounds hold for the image.

use super::error::Fault;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an image may cost. Weigh each against trust in the images: the defaults admit
/// every real image known to us and stop bombs before they hurt a small machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Archive entries in all layers; each costs about 200 bytes of memory.
    pub entries: u64,
    /// Bytes of all entries' names, link targets and extended attributes; held in memory.
    pub metadata_bytes: u64,
    /// Uncompressed bytes in all layers, holes that the archive spells out included.
    pub uncompressed_bytes: u64,
    /// Logical size of one file, holes included. ext4 ends at 16 TiB.
    pub file_bytes: u64,
    /// Bytes of all spools on disk: file contents without their zero blocks.
    pub spool_bytes: u64,
    /// Data runs of all files; each costs 24 bytes of memory. Only files that alternate
    /// between zero and non-zero blocks have more than one.
    pub segments: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            metadata_bytes: 256 << 20,
            uncompressed_bytes: 1 << 40,
            file_bytes: 1 << 43,
            spool_bytes: 64 << 30,
            segments: 8_000_000,
        }
    }
}

/// The account of one image, shared by the readers of its layers.
#[derive(Debug, Default)]
pub struct Budget {
    limits: Limits,
    entries: AtomicU64,
    metadata_bytes: AtomicU64,
    uncompressed_bytes: AtomicU64,
    spool_bytes: AtomicU64,
    segments: AtomicU64,
}

fn draw(
    used: &AtomicU64,
    amount: u64,
    limit: u64,
    what: &'static str,
    setting: &'static str,
) -> Result<(), Fault> {
    // Relaxed: only the sum matters, nothing is published through it. Overflow cannot
    // happen: a draw that passes the limit ends its layer, and amounts are buffer sizes.
    let before = used.fetch_add(amount, Ordering::Relaxed);
    if before.saturating_add(amount) > limit {
        return Err(Fault::Limit { what, limit, setting });
    }
    Ok(())
}

impl Budget {
    /// An untouched account with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// One entry with this many bytes of names, targets and extended attributes.
    pub(super) fn entry(&self, metadata_bytes: u64) -> Result<(), Fault> {
        draw(&self.entries, 1, self.limits.entries, "entries in the image", "max-entries")?;
        let (what, limit) =
            ("bytes of names and extended attributes in the image", self.limits.metadata_bytes);
        draw(&self.metadata_bytes, metadata_bytes, limit, what, "max-metadata-bytes")
    }

    pub(super) fn segment(&self) -> Result<(), Fault> {
        draw(&self.segments, 1, self.limits.segments, "data runs in the image's files", "max-segments")
    }

    pub(super) fn uncompressed(&self, bytes: u64) -> Result<(), Fault> {
        let limit = self.limits.uncompressed_bytes;
        draw(
            &self.uncompressed_bytes,
            bytes,
            limit,
            "uncompressed bytes in the image",
            "max-uncompressed-bytes",
        )
    }

    pub(super) fn spool(&self, bytes: u64) -> Result<(), Fault> {
        let limit = self.limits.spool_bytes;
        draw(&self.spool_bytes, bytes, limit, "bytes of file contents to be spooled", "max-spool-bytes")
    }

    pub(super) fn file(&self, bytes: u64) -> Result<(), Fault> {
        let limit = self.limits.file_bytes;
        if bytes > limit {
            return Err(Fault::Limit { what: "bytes in one file", limit, setting: "max-file-bytes" });
        }
        Ok(())
    }
}
