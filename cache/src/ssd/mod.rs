//! The second tier: sealed chunks on local SSD. Layout and recovery: docs/ssd-tier.md.
//!
//! One file per chunk, named by its id; nothing on disk needs to be trusted, because every
//! read is verified by that id. Invariants: a file appears whole (written aside, renamed);
//! the index holds exactly the files that are readable; the tier stays under its byte
//! budget and leaves the file system its headroom; writing and deleting happen on one
//! background thread behind a bounded queue and never delay a read; one process at a time
//! owns a directory (a lock says so).

mod disk;
mod writer;

use crate::policy::{Policy, PolicyKind};
use crate::tier::{ChunkTier, TierError, Usage};
use async_trait::async_trait;
use disk::Disk;
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use writer::{Order, Writer};

/// How large the tier may grow.
#[derive(Debug, Clone)]
pub struct SsdSettings {
    /// Where it lies; made if absent.
    pub directory: PathBuf,
    /// Byte budget of all chunk files.
    pub capacity_bytes: u64,
    /// Bytes that are left free on the file system for others. Below it nothing is written
    /// and old chunks go.
    pub headroom_bytes: u64,
    /// Replacement policy.
    pub policy: PolicyKind,
}

/// Why a tier could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SsdError {
    /// Another process has it.
    #[error("SSD tier {directory} is in use by another process; stop it or choose another --state-dir")]
    InUse {
        /// Which directory.
        directory: PathBuf,
    },
    /// The directory cannot be used.
    #[error("SSD tier {directory} cannot be opened")]
    Io {
        /// Which directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Counters of what the tier did by itself.
#[derive(Debug, Default)]
struct Counters {
    evicted: AtomicU64,
    dropped: AtomicU64,
    write_errors: AtomicU64,
}

/// Counters of what the tier did by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SsdStats {
    /// Chunks forgotten for space.
    pub evicted: u64,
    /// Chunks not written because the queue or the disk was full.
    pub dropped: u64,
    /// Writes that failed.
    pub write_errors: u64,
}

/// State shared by readers and the writer thread.
#[derive(Debug)]
struct Shared {
    disk: Disk,
    settings: SsdSettings,
    counters: Counters,
    policy: Mutex<Box<dyn Policy>>,
}

impl Shared {
    fn policy(&self) -> MutexGuard<'_, Box<dyn Policy>> {
        // the policy is only changed by calls that do not panic
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sealed chunks on local SSD. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct SsdTier {
    shared: Arc<Shared>,
    writer: Writer,
}

impl SsdTier {
    /// Opens the tier and finds what earlier processes left, whatever ended them. Blocks
    /// for one walk over the directory (about 2 µs a chunk).
    ///
    /// # Errors
    /// [`SsdError`] if another process has it or the directory cannot be used.
    pub fn open(settings: SsdSettings) -> Result<Self, SsdError> {
        let directory = settings.directory.clone();
        let failed = |source| SsdError::Io { directory: directory.clone(), source };
        let disk = Disk::lock(&settings.directory).map_err(failed)?;
        let disk = disk.ok_or_else(|| SsdError::InUse { directory: directory.clone() })?;
        let mut policy = settings.policy.build(settings.capacity_bytes);
        for (id, length) in disk.recover().map_err(failed)? {
            policy.insert(id, length);
        }
        let shared =
            Arc::new(Shared { disk, settings, counters: Counters::default(), policy: Mutex::new(policy) });
        let writer = Writer::start(Arc::clone(&shared)).map_err(failed)?;
        Ok(Self { shared, writer })
    }

    /// Counters of what the tier did by itself.
    #[must_use]
    pub fn stats(&self) -> SsdStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        SsdStats {
            evicted: load(&counters.evicted),
            dropped: load(&counters.dropped),
            write_errors: load(&counters.write_errors),
        }
    }

    /// Waits until everything queued so far is on disk (not synced: losing it is harmless).
    pub async fn settle(&self) {
        self.writer.settle().await;
    }
}

#[async_trait]
impl ChunkTier for SsdTier {
    fn name(&self) -> &'static str {
        "ssd"
    }

    async fn get(&self, id: &ChunkId) -> Result<Option<SealedChunk>, TierError> {
        {
            let mut policy = self.shared.policy();
            if !policy.contains(id) {
                return Ok(None);
            }
            policy.touch(id);
        }
        let (shared, id) = (Arc::clone(&self.shared), *id);
        // a read from flash takes 50 µs and more: not on the reactor
        let read = tokio::task::spawn_blocking(move || shared.disk.read(&id)).await;
        match read.expect("reading returns errors and does not panic") {
            Ok(Some(bytes)) => Ok(Some(SealedChunk::new(bytes))),
            Ok(None) => {
                self.shared.policy().remove(&id);
                Ok(None)
            }
            Err(source) => Err(TierError {
                tier: "ssd",
                id,
                message: "the chunk's file could not be read".into(),
                source: Some(source),
            }),
        }
    }

    async fn put(&self, chunk: VerifiedChunk) -> Result<(), TierError> {
        if !self.shared.policy().contains(chunk.id()) && !self.writer.order(Order::Write(chunk)) {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn remove(&self, id: &ChunkId) -> Result<(), TierError> {
        self.shared.policy().remove(id);
        let (shared, id) = (Arc::clone(&self.shared), *id);
        let removed = tokio::task::spawn_blocking(move || shared.disk.delete(&id)).await;
        removed.expect("deleting returns errors and does not panic").map_err(|source| TierError {
            tier: "ssd",
            id,
            message: "the corrupt file could not be removed".into(),
            source: Some(source),
        })
    }

    fn usage(&self) -> Usage {
        let policy = self.shared.policy();
        Usage {
            chunks: policy.len() as u64,
            bytes: policy.weight(),
            capacity_bytes: self.shared.settings.capacity_bytes,
        }
    }
}

#[cfg(test)]
mod tests;
