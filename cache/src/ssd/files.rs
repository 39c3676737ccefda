//! Files named by chunk ids under a byte budget: what a worker's SSD tier and a cache node's
//! are made of. Layout and recovery: docs/ssd-tier.md.
//!
//! Invariants: a file appears whole (written aside, renamed); the index holds exactly the
//! files that are readable; the files stay under their byte budget and leave the file system
//! its headroom; writing and deleting for space happen on one background thread behind a
//! bounded queue and never delay a read; one process at a time owns a directory (a lock says
//! so). What is read is what was found there: verifying it is the caller's business.

use super::disk::{Contents, Disk};
use super::writer::{Order, Writer};
use crate::policy::{Policy, PolicyKind};
use crate::tier::Usage;
use bytes::Bytes;
use image_format::ids::ChunkId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What the files are.
    pub contents: Contents,
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
pub(super) struct Counters {
    pub(super) evicted: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) write_errors: AtomicU64,
}

/// Counters of what the tier did by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) settings: SsdSettings,
    pub(super) counters: Counters,
    policy: Mutex<Box<dyn Policy>>,
}

impl Shared {
    pub(super) fn policy(&self) -> MutexGuard<'_, Box<dyn Policy>> {
        // the policy is only changed by calls that do not panic
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory of files. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct SsdFiles {
    shared: Arc<Shared>,
    writer: Writer,
}

impl SsdFiles {
    /// Opens the directory and finds what earlier processes left, whatever ended them. Blocks
    /// for one walk over it (3 µs a file, 19 µs where the kernel has to read it).
    ///
    /// # Errors
    /// [`SsdError`] if another process has it or the directory cannot be used.
    pub fn open(settings: SsdSettings) -> Result<Self, SsdError> {
        let directory = settings.directory.clone();
        let failed = |source| SsdError::Io { directory: directory.clone(), source };
        let disk = Disk::lock(&settings.directory, settings.contents).map_err(failed)?;
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

    /// Whether a file is held.
    #[must_use]
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.shared.policy().contains(id)
    }

    /// Notes a use of a file; `false` if it is not held.
    #[must_use]
    pub fn touch(&self, id: &ChunkId) -> bool {
        let mut policy = self.shared.policy();
        let held = policy.contains(id);
        if held {
            policy.touch(id);
        }
        held
    }

    /// A file's bytes if the kernel has them in memory. Waits for the disk at most for the
    /// file's inode.
    #[must_use]
    pub fn read_cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.shared.disk.read_cached(id)
    }

    /// A file's bytes, on a thread where waiting for the disk hurts nobody (a read from flash
    /// takes 50 µs and more). `None` if the file is gone, which the index then knows.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read(&self, id: &ChunkId) -> io::Result<Option<Bytes>> {
        let (shared, id) = (Arc::clone(&self.shared), *id);
        let read = tokio::task::spawn_blocking(move || shared.disk.read(&id)).await;
        let read = read.expect("reading returns errors and does not panic");
        if matches!(read, Ok(None)) {
            self.shared.policy().remove(&id);
        }
        read
    }

    /// Queues a file to be written; one that is held already is replaced. `false` if the
    /// queue is full, and then it is dropped and counted.
    #[must_use]
    pub fn offer(&self, id: ChunkId, bytes: Bytes) -> bool {
        let taken = self.writer.order(Order::Write(id, bytes));
        if !taken {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Deletes a file; what is not there is deleted.
    ///
    /// # Errors
    /// If the disk fails. The file is not served any more in any case.
    pub async fn remove(&self, id: &ChunkId) -> io::Result<()> {
        self.shared.policy().remove(id);
        let (shared, id) = (Arc::clone(&self.shared), *id);
        let removed = tokio::task::spawn_blocking(move || shared.disk.delete(&id)).await;
        removed.expect("deleting returns errors and does not panic")
    }

    /// The ids of the files whose first byte is `fan`, in order: a 256th of all.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn list(&self, fan: u8) -> io::Result<Vec<ChunkId>> {
        let shared = Arc::clone(&self.shared);
        let listed = tokio::task::spawn_blocking(move || shared.disk.list(fan)).await;
        listed.expect("listing returns errors and does not panic")
    }

    /// How full the directory is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let policy = self.shared.policy();
        Usage {
            chunks: policy.len() as u64,
            bytes: policy.weight(),
            capacity_bytes: self.shared.settings.capacity_bytes,
        }
    }

    /// Counters of what happened by itself.
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
