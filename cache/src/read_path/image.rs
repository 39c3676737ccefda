//! One image through the read path: which chunks its readers demand, what is fetched ahead
//! for them, and where everything came from.

use super::fetch::Cargo;
use super::{Cause, Inner, Landing, ReadError, Wanted};
use crate::metrics::Source;
use crate::prefetch::Window;
use image_format::chunk::PlainChunk;
use image_format::manifest::Manifest;
use image_format::units::ChunkIndex;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A reader of one image. Clones share prefetch and statistics; when the last one is
/// dropped, nothing more is fetched ahead.
#[derive(Debug, Clone)]
pub struct ImageReader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    manifest: Arc<Manifest>,
    progress: Arc<Progress>,
    closed: Arc<AtomicBool>,
}

/// What is known of the image's reads. Flights hold it too: they end after the reader.
#[derive(Debug)]
struct Progress {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// Positions in the order of their first demand.
    order: Vec<usize>,
    seen: HashSet<usize>,
    stats: ImageStats,
}

/// Chunks and stored bytes from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceStats {
    /// Chunks.
    pub chunks: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// What the readers of one image caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageStats {
    /// Stored chunks of the image.
    pub image_chunks: u64,
    /// Their stored bytes.
    pub image_bytes: u64,
    /// Distinct chunks that readers demanded.
    pub demanded: SourceStats,
    /// Chunks asked for ahead of demand, and their stored bytes.
    pub prefetched: SourceStats,
    /// Of those, chunks that no reader has demanded yet.
    pub prefetched_unused: SourceStats,
    /// Chunks fetched from SSD.
    pub from_ssd: SourceStats,
    /// Chunks fetched from the remote fleet.
    pub from_l2: SourceStats,
    /// Chunks fetched from the store of record.
    pub from_origin: SourceStats,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        // counters may be off by one after a panic elsewhere, never inconsistent
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImageReader {
    pub(super) fn new(inner: Arc<Inner>, manifest: Arc<Manifest>) -> Self {
        let lengths = manifest.entries().iter().map(|entry| entry.stored_len);
        let state = State {
            window: Window::new(inner.settings.window, lengths),
            order: Vec::new(),
            seen: HashSet::new(),
            stats: ImageStats {
                image_chunks: manifest.entries().len() as u64,
                image_bytes: manifest.stored_bytes(),
                ..ImageStats::default()
            },
        };
        let progress = Arc::new(Progress { state: Mutex::new(state) });
        Self(Arc::new(Shared { inner, manifest, progress, closed: Arc::new(AtomicBool::new(false)) }))
    }

    /// The image's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.0.manifest
    }

    /// The chunk at `index` if it is all zeros or in memory. Never blocks or waits.
    #[must_use]
    pub fn try_read(&self, index: ChunkIndex) -> Option<PlainChunk> {
        let manifest = &self.0.manifest;
        let Some(position) = manifest.position(index) else {
            return Some(PlainChunk::zero(manifest.head().chunk_size));
        };
        let entry = &manifest.entries()[position];
        let plain = self.0.inner.memory.get(&entry.id, manifest.key(position), entry.codec)?;
        let metrics = self.0.inner.metrics.source(Source::Memory);
        metrics.hits.fetch_add(1, Ordering::Relaxed);
        self.demanded(position);
        Some(plain)
    }

    /// The chunk at `index`, from wherever it is. Cancel-safe: the fetch goes on for others.
    ///
    /// # Errors
    /// [`ReadError`] if no tier and not the origin gave it within the chunk deadline.
    pub async fn read(&self, index: ChunkIndex) -> Result<PlainChunk, ReadError> {
        if let Some(plain) = self.try_read(index) {
            return Ok(plain);
        }
        let Some(position) = self.0.manifest.position(index) else {
            return Ok(PlainChunk::zero(self.0.manifest.head().chunk_size));
        };
        self.0.inner.metrics.source(Source::Memory).misses.fetch_add(1, Ordering::Relaxed);
        let mut landing = self.0.join(position, Cause::Demand);
        self.demanded(position);
        let landed = landing.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(self.0.lost(position)),
        }
    }

    /// Notes a first demand and fetches what the window proposes.
    fn demanded(&self, position: usize) {
        let ahead = {
            let mut state = self.0.progress.state();
            if !state.seen.insert(position) {
                return;
            }
            state.order.push(position);
            let bytes = u64::from(self.0.manifest.entries()[position].stored_len);
            state.stats.demanded.chunks += 1;
            state.stats.demanded.bytes += bytes;
            state.window.demand(position)
        };
        self.fetch_ahead(&ahead);
    }

    fn fetch_ahead(&self, positions: &[usize]) {
        for &position in positions {
            let entry = &self.0.manifest.entries()[position];
            let held = self.0.inner.memory.get(&entry.id, self.0.manifest.key(position), entry.codec);
            if held.is_none() {
                let mut state = self.0.progress.state();
                state.stats.prefetched.chunks += 1;
                state.stats.prefetched.bytes += u64::from(entry.stored_len);
                drop(state);
                self.0.join(position, Cause::Prefetch);
            }
        }
    }

    /// Fetches a set of chunks ahead of demand, in this order. Returns at once.
    pub fn prefetch(&self, set: &[ChunkIndex]) {
        let positions: Vec<usize> = set.iter().filter_map(|&index| self.0.manifest.position(index)).collect();
        self.fetch_ahead(&positions);
    }

    /// The chunks demanded so far, in the order of their first demand: the start set.
    #[must_use]
    pub fn recorded(&self) -> Vec<ChunkIndex> {
        let state = self.0.progress.state();
        state.order.iter().map(|&position| self.0.manifest.entries()[position].index).collect()
    }

    /// What the readers of this image caused so far.
    #[must_use]
    pub fn stats(&self) -> ImageStats {
        let state = self.0.progress.state();
        let mut stats = state.stats;
        stats.prefetched_unused.bytes = state.window.unused_bytes();
        stats.prefetched_unused.chunks = state.window.unused_chunks();
        stats
    }
}

impl Shared {
    fn join(&self, position: usize, cause: Cause) -> tokio::sync::watch::Receiver<Landing> {
        let head = self.manifest.head();
        let progress = Arc::clone(&self.progress);
        let landed = move |source, stored_len: u32| {
            let mut state = progress.state();
            let stats = match source {
                Source::Memory => return,
                Source::Ssd => &mut state.stats.from_ssd,
                Source::L2 => &mut state.stats.from_l2,
                Source::Origin => &mut state.stats.from_origin,
            };
            stats.chunks += 1;
            stats.bytes += u64::from(stored_len);
        };
        let cargo = Cargo {
            wanted: self.wanted(position),
            root: head.root.clone(),
            chunk_size: head.chunk_size,
            landed: Box::new(landed),
            closed: Arc::clone(&self.closed),
        };
        self.inner.join(cargo, cause)
    }

    fn wanted(&self, position: usize) -> Wanted {
        let entry = self.manifest.entries()[position];
        Wanted {
            image: self.manifest.head().image,
            index: entry.index,
            id: entry.id,
            stored_len: entry.stored_len,
            codec: entry.codec,
            key: self.manifest.key(position).clone(),
        }
    }

    /// The flight's task is gone without a landing: the runtime is shutting down.
    fn lost(&self, position: usize) -> ReadError {
        let wanted = self.wanted(position);
        ReadError {
            kind: origin::store::ErrorKind::Unavailable,
            image: wanted.image,
            index: wanted.index,
            id: wanted.id,
            reason: "the worker is shutting down".into(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}
