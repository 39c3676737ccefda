//! What a node says of itself, as JSON and as Prometheus text.

use super::Node;
use crate::metrics::HistogramSnapshot;
use crate::prometheus::Text;
use crate::tier::Usage;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// A node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it fails together with.
    pub zone: String,
    /// Version of its program.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether it takes no new shards.
    pub draining: bool,
    /// How full its memory is.
    pub memory: Usage,
    /// How full its SSD is.
    pub ssd: Usage,
    /// Shards dropped from SSD for space.
    pub evicted: u64,
    /// Shards that were not written because disk or queue were full, and writes that failed.
    pub not_written: u64,
    /// Reads and writes by what became of them.
    pub operations: Vec<OperationStatus>,
    /// Record bytes sent.
    pub sent_bytes: u64,
    /// Record bytes received.
    pub received_bytes: u64,
    /// Requests without the secret.
    pub refused_unauthorised: u64,
    /// Requests that were none.
    pub refused_invalid: u64,
    /// Requests above the limit, or writes while draining.
    pub refused_busy: u64,
    /// Connections above the limit.
    pub refused_connections: u64,
    /// Connections ended because the client stalled.
    pub cut_connections: u64,
    /// Connections open.
    pub connections: u64,
    /// Failures of the disk.
    pub errors: u64,
}

/// One kind of request. Times are from the request's headers to the answer's, in µs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// `get_memory`, `get_ssd`, `miss`, `put`, or `put_store` (a put without its transfer).
    pub operation: String,
    /// How many, and how long they took.
    pub latency: HistogramSnapshot,
}

/// A scrub under way or done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Whether it is under way.
    pub running: bool,
    /// How far it is.
    pub done_permille: u64,
    /// Records read and checked.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were bad and are deleted.
    pub bad: u64,
    /// The chunks of the first of those.
    pub bad_ids: Vec<String>,
    /// Records or directories that could not be read.
    pub failed: u64,
}

impl NodeStatus {
    /// The requests of one kind, and how long they took.
    #[must_use]
    pub fn operation(&self, name: &str) -> HistogramSnapshot {
        let found = self.operations.iter().find(|operation| operation.operation == name);
        found.map_or_else(HistogramSnapshot::default, |found| found.latency)
    }

    /// Reads that found their shard, and all reads.
    #[must_use]
    pub fn hits(&self) -> (u64, u64) {
        let hits = self.operation("get_memory").count + self.operation("get_ssd").count;
        (hits, hits + self.operation("miss").count)
    }
}

impl Node {
    /// What the node says of itself now.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (counters, (ssd, stats)) = (&self.counters, self.store.ssd_usage());
        let of = &self.operations;
        let operations = [
            ("get_memory", &of.get_memory),
            ("get_ssd", &of.get_ssd),
            ("miss", &of.miss),
            ("put", &of.put),
            ("put_store", &of.put_store),
        ];
        let operations = operations.map(|(name, histogram)| OperationStatus {
            operation: name.into(),
            latency: histogram.snapshot(),
        });
        NodeStatus {
            name: self.name.clone(),
            zone: self.zone.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.begun.elapsed().as_secs(),
            draining: self.draining.load(Ordering::Relaxed),
            memory: self.store.memory_usage(),
            ssd,
            evicted: stats.evicted,
            not_written: stats.dropped + stats.write_errors,
            operations: operations.into(),
            sent_bytes: load(&counters.sent_bytes),
            received_bytes: load(&counters.received_bytes),
            refused_unauthorised: load(&counters.refused_unauthorised),
            refused_invalid: load(&counters.refused_invalid),
            refused_busy: load(&counters.refused_busy),
            refused_connections: load(&counters.refused_connections),
            cut_connections: load(&counters.cut_connections),
            connections: load(&counters.connections),
            errors: load(&counters.errors),
        }
    }
}

/// A value of a status: name, help, value.
type Metric = (&'static str, &'static str, fn(&NodeStatus) -> u64);

const COUNTERS: [Metric; 10] = [
    ("lantern_node_sent_bytes_total", "Record bytes sent", |s| s.sent_bytes),
    ("lantern_node_received_bytes_total", "Record bytes received", |s| s.received_bytes),
    ("lantern_node_evicted_total", "Shards dropped from SSD for space", |s| s.evicted),
    ("lantern_node_not_written_total", "Shards not written to SSD", |s| s.not_written),
    ("lantern_node_unauthorised_total", "Requests without the secret", |s| s.refused_unauthorised),
    ("lantern_node_invalid_total", "Requests that were none", |s| s.refused_invalid),
    ("lantern_node_busy_total", "Requests above a limit, or writes while draining", |s| s.refused_busy),
    ("lantern_node_refused_connections_total", "Connections above the limit", |s| s.refused_connections),
    ("lantern_node_cut_connections_total", "Connections of clients that stalled", |s| s.cut_connections),
    ("lantern_node_errors_total", "Failures of the disk", |s| s.errors),
];

const GAUGES: [Metric; 3] = [
    ("lantern_node_connections", "Connections open", |s| s.connections),
    ("lantern_node_draining", "1 while no new shards are taken", |s| u64::from(s.draining)),
    ("lantern_node_uptime_seconds", "Seconds since the start", |s| s.uptime_seconds),
];

/// A value of a level: name, help, value.
type LevelMetric = (&'static str, &'static str, fn(&Usage) -> u64);

const LEVELS: [LevelMetric; 3] = [
    ("lantern_node_bytes", "Bytes held by level", |u| u.bytes),
    ("lantern_node_capacity_bytes", "Budget by level", |u| u.capacity_bytes),
    ("lantern_node_shards", "Shards held by level", |u| u.chunks),
];

impl NodeStatus {
    /// As Prometheus text.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = Text::default();
        for (kind, metrics) in [("counter", &COUNTERS[..]), ("gauge", &GAUGES[..])] {
            for (name, help, value) in metrics {
                text.single(name, kind, help, value(self));
            }
        }
        for (name, help, value) in LEVELS {
            text.head(name, "gauge", help);
            text.sample(name, ("level", "memory"), value(&self.memory));
            text.sample(name, ("level", "ssd"), value(&self.ssd));
        }
        let latency = "lantern_node_request_seconds";
        text.head(latency, "summary", "From a request's headers to its answer's, by operation");
        for operation in &self.operations {
            text.summary(latency, ("operation", &operation.operation), &operation.latency);
        }
        text.finish()
    }
}
