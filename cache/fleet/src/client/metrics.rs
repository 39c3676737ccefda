//! What the fleet's client did, in figures.

use super::health::Health;
use crate::members::Node;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a client.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) gets: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) reconstructed: AtomicU64,
    pub(super) wrong_shards: AtomicU64,
    pub(super) repaired_shards: AtomicU64,
    pub(super) unheard: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) retries: AtomicU64,
}

/// What a client did so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetSnapshot {
    /// Chunks asked for.
    pub gets: u64,
    /// Of those, chunks that the fleet gave.
    pub hits: u64,
    /// Of those, chunks that the fleet does not have.
    pub misses: u64,
    /// Of those, chunks of which too few nodes answered in time.
    pub unknown: u64,
    /// Of those, not asked because too many reads were under way.
    pub over_limit: u64,
    /// Hits for which a data shard was rebuilt from parity.
    pub reconstructed: u64,
    /// Shards that came wrong; none were used, their nodes were told to drop them.
    pub wrong_shards: u64,
    /// Shards written again by readers that missed them.
    pub repaired_shards: u64,
    /// Hits whose last shards were not heard out because too many were; what was missing
    /// there is left for the next reader.
    pub unheard: u64,
    /// Requests sent to nodes.
    pub calls: u64,
    /// Of those, repetitions.
    pub retries: u64,
    /// The nodes, as this client sees them.
    pub nodes: Vec<NodeSnapshot>,
}

/// A node as one client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeSnapshot {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Calls that ended, well or not.
    pub calls: u64,
    /// Of those, calls that failed.
    pub failures: u64,
    /// Of those, calls that the node had no time or space for.
    pub busy: u64,
    /// Mean time of an answered call in microseconds.
    pub mean_us: u64,
    /// Longest answered call in microseconds.
    pub longest_us: u64,
    /// Whether it is left alone at present because calls failed.
    pub left_alone: bool,
}

impl Metrics {
    pub(super) fn snapshot(&self, nodes: &[Node], health: &Health) -> FleetSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let nodes = nodes.iter().map(|node| {
            let of = health.of(&node.name);
            NodeSnapshot {
                name: node.name.clone(),
                zone: node.zone.clone(),
                calls: of.calls,
                failures: of.failures,
                busy: of.busy,
                mean_us: of.total_micros / (of.calls - of.failures - of.busy).max(1),
                longest_us: of.longest_micros,
                left_alone: of.left_alone(),
            }
        });
        FleetSnapshot {
            gets: load(&self.gets),
            hits: load(&self.hits),
            misses: load(&self.misses),
            unknown: load(&self.unknown),
            over_limit: load(&self.over_limit),
            reconstructed: load(&self.reconstructed),
            wrong_shards: load(&self.wrong_shards),
            repaired_shards: load(&self.repaired_shards),
            unheard: load(&self.unheard),
            calls: load(&self.calls),
            retries: load(&self.retries),
            nodes: nodes.collect(),
        }
    }
}
