//! The fleet as one cache: chunks in, chunks out, whatever single nodes do.
//!
//! ```text
//! get ─▶ all k+m nodes at once ─▶ first k shards that verify ─▶ chunk
//!                                    └▶ the rest is heard out, what is missing is repaired
//! ```
//!
//! Invariants: a chunk that comes out was verified against its id; a read ends within the
//! deadline; nothing is repeated but calls on stale connections, out of a token bucket; reads,
//! writes, repairs and the calls that are heard out are each bounded in number. The work is
//! the same whether nodes are well or not (ATC'23 section 4.1).

mod gather;
mod health;
mod metrics;
mod tokens;

pub use metrics::{FleetSnapshot, NodeSnapshot};

use crate::members::{Members, Node};
use crate::ring::{Ring, RingSettings};
use crate::stripe::Code;
use crate::transport::{CallError, CallKind, Transport};
use crate::wire::ShardHeader;
use bytes::Bytes;
use health::Health;
use image_format::chunk::VerifiedChunk;
use image_format::ids::ChunkId;
use metrics::Metrics;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokens::Tokens;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How the fleet is used.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetSettings {
    /// Stripes: data and parity shards of a chunk.
    pub code: Code,
    /// How far a node's load may be above the mean: 0.1 is a tenth.
    pub epsilon: f64,
    /// After it a read is a miss and the origin is asked.
    pub deadline: Duration,
    /// After it a write to a node is given up.
    pub write_deadline: Duration,
    /// Chunks read at the same time; each holds its shards in memory, 1.25 chunks by default.
    /// More are misses at once.
    pub reads: usize,
    /// Chunks written at the same time; more wait.
    pub writes: usize,
    /// Stripes repaired at the same time; more wait.
    pub repairs: usize,
    /// Calls on stale connections that may be repeated before some calls succeed again.
    pub retry_budget: u32,
    /// Use the nodes of this zone alone, a fleet per zone; all nodes where none is named.
    pub zone: Option<String>,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            code: Code::PUBLISHED,
            epsilon: 0.1,
            deadline: Duration::from_millis(50),
            write_deadline: Duration::from_secs(2),
            reads: 128,
            writes: 32,
            repairs: 16,
            retry_budget: 10,
            zone: None,
        }
    }
}

/// A fleet that cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No node lies in the zone.
    #[error("no cache node lies in zone {0:?}; name a zone of the members file, or none")]
    Zone(String),
    /// Fewer nodes than a chunk has data shards.
    #[error("{nodes} cache nodes cannot hold stripes of {data} data shards; add nodes, or use fewer shards")]
    TooFew {
        /// Nodes there are.
        nodes: usize,
        /// Data shards of a stripe.
        data: u8,
    },
}

/// The fleet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    settings: FleetSettings,
    /// None until the first list of nodes is known.
    ring: RwLock<Option<Arc<Ring>>>,
    transport: Arc<dyn Transport>,
    health: Health,
    tokens: Tokens,
    metrics: Metrics,
    reads: Semaphore,
    writes: Semaphore,
    repairs: Semaphore,
    /// Reads whose last shards are still heard out.
    tails: Arc<Semaphore>,
}

/// Reads that are heard out after their chunk is there, at most.
const TAILS: u32 = 256;

/// How many of a chunk's shards were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Shards that nodes took.
    pub shards: usize,
    /// Shards of the stripe.
    pub width: usize,
}

impl Stored {
    /// Whether the chunk can be read back.
    #[must_use]
    pub const fn readable(self, code: Code) -> bool {
        self.shards >= code.data() as usize
    }
}

impl Fleet {
    /// The fleet of these nodes.
    ///
    /// # Errors
    /// [`FleetError`] if they are too few.
    pub fn new(
        settings: FleetSettings,
        members: Members,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, FleetError> {
        let fleet = Self::without_members(settings, transport);
        fleet.set_members(members)?;
        Ok(fleet)
    }

    /// A fleet whose nodes are not known yet: nothing is found in it until they are.
    #[must_use]
    pub fn without_members(settings: FleetSettings, transport: Arc<dyn Transport>) -> Self {
        Self(Arc::new(Inner {
            ring: RwLock::new(None),
            transport,
            health: Health::default(),
            tokens: Tokens::new(settings.retry_budget),
            metrics: Metrics::default(),
            reads: Semaphore::new(settings.reads.max(1)),
            writes: Semaphore::new(settings.writes.max(1)),
            repairs: Semaphore::new(settings.repairs.max(1)),
            tails: Arc::new(Semaphore::new(TAILS as usize)),
            settings,
        }))
    }

    /// Uses these nodes from now on. Chunks on nodes that are gone are misses until they are
    /// filled again.
    ///
    /// # Errors
    /// [`FleetError`] if they are too few; the old ones stay in use.
    pub fn set_members(&self, members: Members) -> Result<(), FleetError> {
        let ring = Arc::new(ring_of(&self.0.settings, members)?);
        self.0.health.retain(ring.members());
        self.0.transport.retain(ring.members());
        *self.0.ring.write().unwrap_or_else(PoisonError::into_inner) = Some(ring);
        Ok(())
    }

    /// Where chunks lie at present; `None` until the nodes are known.
    #[must_use]
    pub fn ring(&self) -> Option<Arc<Ring>> {
        self.0.ring()
    }

    /// The stripes in use.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.settings.code
    }

    /// A chunk, if enough of its shards are there within the deadline. Cancel-safe.
    ///
    /// # Errors
    /// [`GetError`] if nodes failed, so that nobody knows; `None` if the fleet does not have it.
    pub async fn get(&self, id: &ChunkId) -> Result<Option<VerifiedChunk>, GetError> {
        self.0.metrics.gets.fetch_add(1, Ordering::Relaxed);
        let Ok(_permit) = self.0.reads.try_acquire() else {
            self.0.metrics.over_limit.fetch_add(1, Ordering::Relaxed);
            return Err(GetError { id: *id, reason: "too many reads at once".into() });
        };
        gather::get(&self.0, id).await
    }

    /// Stores a chunk's stripe. Not an error if nodes do not take their shard: the number
    /// says. A cancelled call leaves some of the shards stored, which is harmless.
    pub async fn put(&self, chunk: &VerifiedChunk) -> Stored {
        let width = usize::from(self.0.settings.code.width());
        let Ok(_permit) = self.0.writes.acquire().await else { return Stored { shards: 0, width } };
        let Some(ring) = self.0.ring() else { return Stored { shards: 0, width } };
        let payloads = self.0.settings.code.encode(chunk.sealed_bytes());
        let mut calls = JoinSet::new();
        for (index, (&place, payload)) in (0_u8..).zip(ring.place(chunk.id()).iter().zip(payloads)) {
            let node = ring.members().nodes()[usize::from(place)].clone();
            let record = self.0.record(chunk, index, payload);
            let (inner, id) = (Arc::clone(&self.0), *chunk.id());
            calls.spawn(async move { inner.put_record(&node, &id, record).await });
        }
        let shards = calls.join_all().await.into_iter().filter(Result::is_ok).count();
        Stored { shards, width }
    }

    /// Has the nodes forget a chunk. Returns how many confirmed it.
    pub async fn remove(&self, id: &ChunkId) -> usize {
        let Some(ring) = self.0.ring() else { return 0 };
        let mut calls = JoinSet::new();
        for &place in ring.place(id) {
            let node = ring.members().nodes()[usize::from(place)].clone();
            let (inner, id) = (Arc::clone(&self.0), *id);
            calls.spawn(async move {
                inner.call(&node, inner.settings.write_deadline, || inner.transport.remove(&node, &id)).await
            });
        }
        calls.join_all().await.into_iter().filter(Result::is_ok).count()
    }

    /// Waits until nothing is heard out or repaired any more: at most about the read deadline
    /// and a write deadline for each repair in line.
    pub async fn settle(&self) {
        let _ = self.0.tails.acquire_many(TAILS).await;
    }

    /// All figures so far.
    #[must_use]
    pub fn metrics(&self) -> FleetSnapshot {
        let ring = self.0.ring();
        let nodes = ring.as_ref().map_or(&[][..], |ring| ring.members().nodes());
        self.0.metrics.snapshot(nodes, &self.0.health)
    }
}

/// A read that nobody could answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("chunk {id}: {reason}")]
pub struct GetError {
    /// Which chunk.
    pub id: ChunkId,
    /// What the nodes said.
    pub reason: String,
}

fn ring_of(settings: &FleetSettings, members: Members) -> Result<Ring, FleetError> {
    let members = match &settings.zone {
        Some(zone) => members.of_zone(zone).ok_or_else(|| FleetError::Zone(zone.clone()))?,
        None => members,
    };
    let (nodes, data) = (members.nodes().len(), settings.code.data());
    if nodes < usize::from(data) {
        return Err(FleetError::TooFew { nodes, data });
    }
    let width = usize::from(settings.code.width());
    Ok(Ring::new(Arc::new(members), RingSettings { width, epsilon: settings.epsilon }))
}

impl Inner {
    fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The record of one shard, header and payload apart.
    fn record(&self, chunk: &VerifiedChunk, index: u8, payload: Bytes) -> [Bytes; 2] {
        let code = self.settings.code;
        let stored_len = u32::try_from(chunk.sealed_bytes().len()).expect("chunks are at most 4 MiB");
        let header = ShardHeader { index, data: code.data(), parity: code.parity(), stored_len };
        [Bytes::copy_from_slice(&header.encode(chunk.id(), &payload)), payload]
    }

    async fn put_record(&self, node: &Node, id: &ChunkId, record: [Bytes; 2]) -> Result<(), CallError> {
        let put = || self.transport.put(node, id, record.clone());
        self.call(node, self.settings.write_deadline, put).await
    }

    /// One call of a node that is believed to be well, with what it teaches about the node.
    /// Repeated once if the connection was stale and the budget allows it.
    async fn call<T, F>(
        &self,
        node: &Node,
        patience: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let end = Instant::now() + patience;
        let Some(trial) = self.health.begin(&node.name, Instant::now()) else {
            let message = "left alone for a while after failures".into();
            return Err(CallError { kind: CallKind::Unreachable, node: node.name.clone(), message });
        };
        let begun = Instant::now();
        let mut outcome = self.attempt(node, end, &attempt).await;
        if matches!(&outcome, Err(error) if error.kind == CallKind::Stale) && self.tokens.take() {
            self.metrics.retries.fetch_add(1, Ordering::Relaxed);
            outcome = self.attempt(node, end, &attempt).await;
        }
        trial.over();
        match &outcome {
            Ok(_) => {
                self.tokens.give_back();
                self.health.well(&node.name, begun.elapsed());
            }
            Err(error) => {
                self.health.failed(&node.name, error.kind, Instant::now());
                tracing::trace!(%error, "call failed");
            }
        }
        outcome
    }

    async fn attempt<T, F>(&self, node: &Node, end: Instant, attempt: &impl Fn() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        self.metrics.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::timeout_at(end, attempt()).await.unwrap_or_else(|_| {
            let message = "no answer by the deadline".into();
            Err(CallError { kind: CallKind::Late, node: node.name.clone(), message })
        })
    }
}

#[cfg(test)]
mod tests;
