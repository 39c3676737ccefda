//! Reading chunks through the tiers: memory, then each [`ChunkTier`], then the origin; the
//! first hit wins and every miss is filled back.
//!
//! ```text
//! read ─▶ memory ──miss──▶ flight (one per chunk) ─▶ tiers ─▶ origin (deadline, limit)
//!            ▲                    │ verify, open         │
//!            └────────────────────┴──── fill back ◀──────┘
//! ```
//!
//! Invariants: one fetch per chunk at a time, owned by a task and not by its first caller,
//! so callers may come and go; bytes are used only after they were verified against their
//! id; a wrong copy is dropped, counted, and replaced from the next tier; demand never waits
//! behind prefetch for the origin; every wait ends within the chunk deadline.

mod fetch;
mod image;

pub use image::{ImageReader, ImageStats, SourceStats};

use crate::memory::MemoryTier;
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::policy::PolicyKind;
use crate::prefetch::WindowSettings;
use crate::tier::{ChunkTier, Usage};
use image_format::chunk::PlainChunk;
use image_format::ids::{ChunkId, ImageDigest};
use image_format::manifest::Manifest;
use image_format::seal::{ChunkKey, Codec};
use image_format::units::ChunkIndex;
use origin::store::{ErrorKind, Origin};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// How the read path works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadPathSettings {
    /// Budget of the memory tier in bytes.
    pub memory_bytes: u64,
    /// Replacement policy of the memory tier.
    pub policy: PolicyKind,
    /// A read that has no chunk by then fails; must be below the guest's own patience
    /// (120 s until the kernel reports a hung task).
    pub chunk_deadline_ms: u64,
    /// Requests to the origin at the same time.
    pub origin_concurrency: usize,
    /// Of those, how many prefetch may take; the rest is for demand alone.
    pub prefetch_concurrency: usize,
    /// Chunks being filled back to tiers at the same time; more are dropped, not queued.
    pub fills: usize,
    /// How far ahead to fetch.
    pub window: WindowSettings,
}

impl Default for ReadPathSettings {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            policy: PolicyKind::default(),
            chunk_deadline_ms: 20_000,
            origin_concurrency: 64,
            prefetch_concurrency: 32,
            fills: 256,
            window: WindowSettings::default(),
        }
    }
}

/// A chunk that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("chunk {id} ({index}) of image {image}: {reason}")]
pub struct ReadError {
    /// What the failure means.
    pub kind: ErrorKind,
    /// Which image was read.
    pub image: ImageDigest,
    /// Where in the image.
    pub index: ChunkIndex,
    /// Which chunk.
    pub id: ChunkId,
    /// What each tier said, and what to do.
    pub reason: Arc<str>,
}

impl ReadError {
    /// What the failure means.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// What a flight ends with.
type Landing = Option<Result<PlainChunk, ReadError>>;

/// A chunk as one manifest knows it; two manifests that disagree on the key do not share.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    image: ImageDigest,
    index: ChunkIndex,
    id: ChunkId,
    stored_len: u32,
    codec: Codec,
    key: ChunkKey,
}

/// Why a chunk is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Demand,
    Prefetch,
}

#[derive(Debug)]
struct Flight {
    key: ChunkKey,
    codec: Codec,
    landing: watch::Receiver<Landing>,
    demanded: Arc<Demanded>,
}

/// Whether a reader waits for a flight, which may have begun as a prefetch. Raised under the
/// lock of the flights.
#[derive(Debug, Default)]
pub(crate) struct Demanded {
    raised: AtomicBool,
    told: tokio::sync::Notify,
}

/// The read path of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadPath(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    settings: ReadPathSettings,
    memory: MemoryTier,
    tiers: Vec<Arc<dyn ChunkTier>>,
    origin: Arc<dyn Origin>,
    origin_permits: Semaphore,
    prefetch_permits: Semaphore,
    fill_permits: Arc<Semaphore>,
    flights: Mutex<HashMap<ChunkId, Flight>>,
    metrics: Metrics,
    /// Flights start here, also those that a thread outside the runtime asks for.
    runtime: tokio::runtime::Handle,
}

impl ReadPath {
    /// A read path over `tiers`, the nearest first, and the origin.
    ///
    /// # Panics
    /// Outside a tokio runtime; its readers may then be used from any thread.
    #[must_use]
    pub fn new(settings: ReadPathSettings, origin: Arc<dyn Origin>, tiers: Vec<Arc<dyn ChunkTier>>) -> Self {
        let demand_only = settings.origin_concurrency.saturating_sub(1).max(1);
        Self(Arc::new(Inner {
            memory: MemoryTier::new(settings.memory_bytes, settings.policy),
            tiers,
            origin,
            origin_permits: Semaphore::new(settings.origin_concurrency.max(1)),
            prefetch_permits: Semaphore::new(settings.prefetch_concurrency.min(demand_only)),
            fill_permits: Arc::new(Semaphore::new(settings.fills)),
            flights: Mutex::new(HashMap::new()),
            metrics: Metrics::default(),
            runtime: tokio::runtime::Handle::current(),
            settings,
        }))
    }

    /// A reader of one image.
    #[must_use]
    pub fn open_image(&self, manifest: Arc<Manifest>) -> ImageReader {
        ImageReader::new(Arc::clone(&self.0), manifest)
    }

    /// All figures so far.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.0.metrics.snapshot()
    }

    /// How full the memory tier is.
    #[must_use]
    pub fn memory_usage(&self) -> Usage {
        self.0.memory.usage()
    }

    /// The tiers below memory, with how full they are.
    pub fn tier_usage(&self) -> impl Iterator<Item = (&'static str, Usage)> + '_ {
        self.0.tiers.iter().map(|tier| (tier.name(), tier.usage()))
    }

    /// The longest that a read waits.
    #[must_use]
    pub fn chunk_deadline(&self) -> Duration {
        Duration::from_millis(self.0.settings.chunk_deadline_ms)
    }

    /// Waits until nothing is being filled back.
    pub async fn settle(&self) {
        let all = u32::try_from(self.0.settings.fills).unwrap_or(u32::MAX);
        let _ = self.0.fill_permits.acquire_many(all).await;
    }
}

#[cfg(test)]
mod tests;
