//! The worker's figures as Prometheus text. Names, units and stability: docs/operations.md,
//! "Metrics".

use crate::worker::{TierUsage, WorkerStatus};
use cache::metrics::SourceSnapshot;
use std::fmt::Write;

/// A counter per source: name, help, value.
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

const LATENCY: &str = "lantern_chunk_latency_seconds";

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

fn latencies(out: &mut String, sources: &[SourceSnapshot]) {
    head(out, LATENCY, "summary", "Time from asking to usable, by source");
    for s in sources {
        let (name, latency) = (s.source.name(), s.latency);
        for (quantile, micros) in [("0.5", latency.p50_us), ("0.9", latency.p90_us), ("0.99", latency.p99_us)]
        {
            let seconds = micros as f64 / 1e6;
            let _ = writeln!(out, "{LATENCY}{{source=\"{name}\",quantile=\"{quantile}\"}} {seconds}");
        }
        let _ = writeln!(out, "{LATENCY}_sum{{source=\"{name}\"}} {}", latency.sum_us as f64 / 1e6);
        let _ = writeln!(out, "{LATENCY}_count{{source=\"{name}\"}} {}", latency.count);
    }
}

/// Renders a status.
pub(super) fn render(status: &WorkerStatus) -> String {
    let mut out = String::new();
    let metrics = &status.metrics;
    for (name, help, value) in SOURCE_COUNTERS {
        head(&mut out, name, "counter", help);
        for s in &metrics.sources {
            let _ = writeln!(out, "{name}{{source=\"{}\"}} {}", s.source.name(), value(s));
        }
    }
    latencies(&mut out, &metrics.sources);
    for (name, help, value) in TIER_GAUGES {
        head(&mut out, name, "gauge", help);
        for (tier, usage) in &status.tiers {
            let _ = writeln!(out, "{name}{{tier=\"{tier}\"}} {}", value(usage));
        }
    }
    let joined = "Reads that joined a fetch under way";
    single(&mut out, "lantern_fetches_joined_total", "counter", joined, metrics.joined);
    let ahead = "Chunks fetched ahead of demand";
    single(&mut out, "lantern_prefetched_total", "counter", ahead, metrics.prefetched);
    let failed = "Reads that ended in an error";
    single(&mut out, "lantern_reads_failed_total", "counter", failed, metrics.failed_reads);
    single(&mut out, "lantern_instances", "gauge", "Instances open", status.instances as u64);
    out
}
