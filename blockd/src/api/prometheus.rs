//! The worker's figures as Prometheus text. Names, units and stability: docs/operations.md,
//! "Metrics".

use crate::functions::Service;
use crate::worker::{TierUsage, WorkerStatus};
use cache::metrics::SourceSnapshot;
use cache::prometheus::Text;
use fleet::client::{FleetSnapshot, NodeSnapshot};
use photon::invocation::FunctionStats;

/// A metric by source: name, help, value.
type SourceMetric = (&'static str, &'static str, fn(&SourceSnapshot) -> u64);

const SOURCE_COUNTERS: [SourceMetric; 6] = [
    ("lantern_chunk_hits_total", "Chunks given by source", |s| s.hits),
    ("lantern_chunk_misses_total", "Chunks a source did not have", |s| s.misses),
    ("lantern_chunk_bytes_total", "Stored bytes given by source", |s| s.bytes),
    ("lantern_chunk_errors_total", "Failures by source", |s| s.errors),
    ("lantern_chunk_corrupt_total", "Wrong bytes by source; none were used", |s| s.corrupt),
    ("lantern_chunk_filled_total", "Chunks given back to a source", |s| s.filled),
];

/// A gauge per tier: name, help, value.
type TierMetric = (&'static str, &'static str, fn(&TierUsage) -> u64);

const TIER_GAUGES: [TierMetric; 3] = [
    ("lantern_tier_bytes", "Bytes held by tier", |t| t.bytes),
    ("lantern_tier_capacity_bytes", "Budget by tier", |t| t.capacity_bytes),
    ("lantern_tier_chunks", "Chunks held by tier", |t| t.chunks),
];

/// A counter of the remote cache: name, help, value.
type L2Metric = (&'static str, &'static str, fn(&FleetSnapshot) -> u64);

const L2_COUNTERS: [L2Metric; 10] = [
    ("lantern_l2_gets_total", "Chunks asked of the remote cache", |s| s.gets),
    ("lantern_l2_hits_total", "Chunks the remote cache gave", |s| s.hits),
    ("lantern_l2_misses_total", "Chunks the remote cache does not have", |s| s.misses),
    ("lantern_l2_unknown_total", "Chunks of which too few nodes answered in time", |s| s.unknown),
    ("lantern_l2_over_limit_total", "Chunks not asked for, too many under way", |s| s.over_limit),
    ("lantern_l2_reconstructed_total", "Hits that needed parity", |s| s.reconstructed),
    ("lantern_l2_wrong_shards_total", "Wrong shards; none were used", |s| s.wrong_shards),
    ("lantern_l2_repaired_shards_total", "Shards written again by readers", |s| s.repaired_shards),
    ("lantern_l2_calls_total", "Requests sent to nodes", |s| s.calls),
    ("lantern_l2_retries_total", "Requests sent again", |s| s.retries),
];

/// A figure of a node as this worker sees it: name, kind, help, value.
type NodeMetric = (&'static str, &'static str, &'static str, fn(&NodeSnapshot) -> u64);

const NODE_METRICS: [NodeMetric; 3] = [
    ("lantern_l2_node_calls_total", "counter", "Calls of a node that ended", |n| n.calls),
    ("lantern_l2_node_failures_total", "counter", "Calls of a node that failed", |n| n.failures),
    ("lantern_l2_node_left_alone", "gauge", "1 while a node is not called because it failed", |n| {
        u64::from(n.left_alone)
    }),
];

/// A figure of a function: name, kind, help, value.
type FunctionMetric = (&'static str, &'static str, &'static str, fn(&FunctionStats) -> u64);

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

const FUNCTION_METRICS: [FunctionMetric; 11] = [
    ("lantern_function_invocations_total", "counter", "Invocations", |s| s.invocations),
    ("lantern_function_errors_total", "counter", "Invocations that failed in the function", |s| s.errors),
    ("lantern_function_throttled_total", "counter", "Invocations that were refused", |s| s.throttled),
    ("lantern_function_timeouts_total", "counter", "Invocations over their deadline", |s| s.timeouts),
    ("lantern_function_starts_total", "counter", "Sandboxes started", |s| s.starts),
    ("lantern_function_quarantined_total", "counter", "Sandboxes replaced", |s| s.quarantined),
    ("lantern_function_sandboxes", "gauge", "Sandboxes that serve", |s| wide(s.sandboxes)),
    ("lantern_function_in_flight", "gauge", "Invocations in sandboxes", |s| wide(s.in_flight)),
    ("lantern_function_waiting", "gauge", "Invocations that wait for one", |s| wide(s.waiting)),
    ("lantern_function_concurrency_limit", "gauge", "Most invocations at once in a sandbox", |s| {
        wide(s.concurrency_limit)
    }),
    ("lantern_function_memory_bytes", "gauge", "Memory of its sandboxes without file cache", |s| {
        s.each.iter().map(|sandbox| sandbox.memory_bytes).sum()
    }),
];

fn functions(text: &mut Text, service: &Service) {
    let all = service.all_stats();
    for (name, kind, help, value) in FUNCTION_METRICS {
        text.head(name, kind, help);
        for (key, stats) in &all {
            text.sample(name, ("function", &key.to_string()), value(stats));
        }
    }
    let queue = service.queue_stats();
    text.single("lantern_function_events", "gauge", "Events that wait or run", queue.events);
    text.single("lantern_function_event_bytes", "gauge", "Bytes of their payloads", queue.bytes);
    let dropped = "Events that came to nothing, with nobody to tell";
    text.single("lantern_function_events_dropped_total", "counter", dropped, queue.dropped);
}

fn remote_cache(text: &mut Text, l2: &FleetSnapshot) {
    for (name, help, value) in L2_COUNTERS {
        text.single(name, "counter", help, value(l2));
    }
    for (name, kind, help, value) in NODE_METRICS {
        text.head(name, kind, help);
        for node in &l2.nodes {
            text.sample(name, ("node", &node.name), value(node));
        }
    }
}

/// Renders a status, with the functions where there are any.
pub(super) fn render(status: &WorkerStatus, service: Option<&Service>) -> String {
    let mut text = Text::default();
    let metrics = &status.metrics;
    for (name, help, value) in SOURCE_COUNTERS {
        text.head(name, "counter", help);
        for s in &metrics.sources {
            text.sample(name, ("source", s.source.name()), value(s));
        }
    }
    let latency = "lantern_chunk_latency_seconds";
    text.head(latency, "summary", "Time from asking to usable, by source");
    for s in &metrics.sources {
        text.summary(latency, ("source", s.source.name()), &s.latency);
    }
    for (name, help, value) in TIER_GAUGES {
        text.head(name, "gauge", help);
        for (tier, usage) in &status.tiers {
            text.sample(name, ("tier", tier), value(usage));
        }
    }
    let joined = "Reads that joined a fetch under way";
    text.single("lantern_fetches_joined_total", "counter", joined, metrics.joined);
    let ahead = "Chunks fetched ahead of demand";
    text.single("lantern_prefetched_total", "counter", ahead, metrics.prefetched);
    let failed = "Reads that ended in an error";
    text.single("lantern_reads_failed_total", "counter", failed, metrics.failed_reads);
    text.single("lantern_instances", "gauge", "Instances open", status.instances);
    text.single("lantern_starting", "gauge", "Instances that are starting", status.starting);
    let refused = "Starts refused because too many were under way";
    text.single("lantern_starts_refused_total", "counter", refused, status.starts_refused);
    if let Some(l2) = &status.l2 {
        remote_cache(&mut text, l2);
    }
    if let Some(service) = service {
        functions(&mut text, service);
    }
    text.finish()
}
