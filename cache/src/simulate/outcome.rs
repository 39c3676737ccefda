//! What a simulation found: numbers for machines, and a table of them for people.

use super::histogram::Percentiles;
use super::l2;
use super::scenario::Scenario;
use serde::Serialize;
use std::fmt::Write as _;

/// What a simulation found. The scenario is in it, so that it can be run again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What was simulated.
    pub scenario: Scenario,
    /// Chunks that all images have at the end.
    pub chunks: u64,
    /// Steps the simulation took.
    pub happenings: u64,
    /// The warm-up, the steady state, and from each event to the next.
    pub phases: Vec<Phase>,
    /// How the fleet came back from each event.
    pub recoveries: Vec<Recovery>,
    /// What the cache nodes had to do; `None` without nodes.
    pub nodes: Option<Nodes>,
    /// All that over time, a point per bucket.
    pub series: Vec<Point>,
}

/// Reads of chunks by the tier that served them, over a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reads {
    /// From the worker's own cache.
    pub local: u64,
    /// From the cache nodes, reads that joined another's included.
    pub nodes: u64,
    /// From the origin, reads that joined another's included.
    pub origin: u64,
    /// Not at all within the deadline.
    pub failed: u64,
}

/// `part` of `whole`, 0 to 1; 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Reads {
    /// All reads.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.local + self.nodes + self.origin + self.failed
    }

    /// Part of all reads that a worker's own cache served, 0 to 1.
    #[must_use]
    pub fn local_rate(&self) -> f64 {
        ratio(self.local, self.total())
    }

    /// Part of the reads that went beyond the worker which the nodes served, 0 to 1.
    #[must_use]
    pub fn nodes_rate(&self) -> f64 {
        ratio(self.nodes, self.total() - self.local)
    }

    /// Part of all reads that a cache served, 0 to 1: the end-to-end hit rate.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        ratio(self.local + self.nodes, self.total())
    }

    /// Adds those of another span.
    pub(super) fn add(&mut self, other: &Self) {
        self.local += other.local;
        self.nodes += other.nodes;
        self.origin += other.origin;
        self.failed += other.failed;
    }
}

/// Invocations and what became of them, over a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Starts {
    /// Invocations that came for the first time.
    pub invocations: u64,
    /// Invocations that came again after a rejected or failed start.
    pub retried: u64,
    /// Invocations that an idle sandbox took.
    pub reused: u64,
    /// Invocations that needed a new sandbox.
    pub asked: u64,
    /// Starts rejected at once by the limit on concurrent starts.
    pub rejected: u64,
    /// Starts rejected at once because the worker had no room.
    pub no_room: u64,
    /// Starts that were given up: a chunk did not come, or the caller left.
    pub failed: u64,
    /// Starts that were completed.
    pub completed: u64,
    /// Invocations that were never served, after all retries.
    pub lost: u64,
}

impl Starts {
    /// Starts that came to nothing.
    #[must_use]
    pub const fn unsuccessful(&self) -> u64 {
        self.rejected + self.no_room + self.failed
    }
}

/// A span of the run between two events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// `warm-up`, `steady`, or the event it begins with.
    pub name: String,
    /// From this second.
    pub from_s: f64,
    /// To this second.
    pub to_s: f64,
    /// Reads of chunks.
    pub reads: Reads,
    /// Invocations and starts.
    pub starts: Starts,
    /// Time of completed starts, from asking to serving.
    pub start_ms: Percentiles,
    /// Time of reads that the nodes served.
    pub nodes_ms: Percentiles,
    /// Time of reads that the origin served, waits for a turn included.
    pub origin_ms: Percentiles,
    /// Requests to the origin.
    pub origin_requests: u64,
    /// The same per second.
    pub origin_mean_per_s: f64,
    /// The most in one second.
    pub origin_max_per_s: u32,
}

/// How the fleet came back from an event. Measured over windows of 10 seconds, and only if
/// what follows until the next event is as good on the whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recovery {
    /// The event.
    pub event: String,
    /// When it happened, in seconds.
    pub at_s: f64,
    /// Seconds until caches serve 99 % of all reads again; `None` if they never do.
    pub hits_after_s: Option<f64>,
    /// Seconds until 99 % of the starts that are asked for succeed; `None` if they never do.
    pub starts_after_s: Option<f64>,
}

/// What the cache nodes had to do, over the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Nodes {
    /// Shard requests per second to the mean node.
    pub mean_requests_per_s: f64,
    /// Shard requests per second to the busiest node.
    pub max_requests_per_s: f64,
    /// Bytes per second the busiest node sends, at most.
    pub max_bytes_per_s: f64,
    /// Bytes the mean node holds at the end.
    pub mean_bytes: f64,
    /// Bytes the fullest node holds at the end.
    pub max_bytes: u64,
}

impl Nodes {
    pub(super) fn of(nodes: &l2::Nodes, duration_s: f64) -> Self {
        let (max, mean) = nodes.requests();
        let (max_bytes, mean_bytes) = nodes.fullness();
        Self {
            mean_requests_per_s: mean / duration_s,
            max_requests_per_s: max as f64 / duration_s,
            max_bytes_per_s: max as f64 * nodes.shard_bytes() as f64 / duration_s,
            mean_bytes,
            max_bytes,
        }
    }
}

/// A point of the series: one bucket of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Where the bucket begins, in seconds.
    pub at_s: f64,
    /// Reads of chunks in the bucket.
    pub reads: Reads,
    /// Invocations and starts in the bucket.
    pub starts: Starts,
    /// Requests to the origin in the bucket.
    pub origin_requests: u64,
    /// Starts under way at its end.
    pub starting: u32,
    /// Invocations that run at its end.
    pub busy: u32,
    /// How long a request to the origin would wait in line at its end, in milliseconds.
    pub origin_line_ms: f64,
}

const HEADER: &str = "phase           from s    to s  starts/s  rejected   failed   start p50     p99      L1      L2    hits  origin/s     max";

/// The outcome as a table: a line per phase, then recoveries and the nodes' load.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let fleet = &outcome.scenario.fleet;
    let mut text = format!(
        "{} workers, {} nodes in {} zones ({}+{}), {} chunks, seed {}\n{HEADER}\n",
        fleet.workers,
        fleet.nodes,
        fleet.zones,
        fleet.data,
        fleet.parity,
        outcome.chunks,
        outcome.scenario.run.seed,
    );
    for phase in &outcome.phases {
        line(&mut text, phase).expect("strings take everything");
    }
    for recovery in &outcome.recoveries {
        let after = |time: Option<f64>| time.map_or("never".into(), |time| format!("after {time} s"));
        let (hits, starts) = (after(recovery.hits_after_s), after(recovery.starts_after_s));
        let (event, at) = (&recovery.event, recovery.at_s);
        writeln!(text, "{event} at {at} s: 99 % hits {hits}, 99 % of starts succeed {starts}")
            .expect("strings take everything");
    }
    if let Some(nodes) = &outcome.nodes {
        writeln!(
            text,
            "nodes: {:.0} requests/s on the mean, {:.0} on the busiest ({:.0} MB/s); {:.2} GiB held on the mean, {:.2} on the fullest",
            nodes.mean_requests_per_s,
            nodes.max_requests_per_s,
            nodes.max_bytes_per_s / 1e6,
            nodes.mean_bytes / f64::from(1 << 30),
            nodes.max_bytes as f64 / f64::from(1 << 30),
        )
        .expect("strings take everything");
    }
    text
}

fn line(text: &mut String, phase: &Phase) -> std::fmt::Result {
    let (reads, starts) = (&phase.reads, &phase.starts);
    let length = (phase.to_s - phase.from_s).max(f64::MIN_POSITIVE);
    let part = |count: u64| 100.0 * ratio(count, starts.asked);
    writeln!(
        text,
        "{:<14} {:>7} {:>7} {:>9.1} {:>8.2}% {:>7.2}% {:>8.0} ms {:>5.0} ms {:>6.2}% {:>6.2}% {:>6.2}% {:>9.1} {:>7}",
        phase.name,
        phase.from_s,
        phase.to_s,
        starts.asked as f64 / length,
        part(starts.rejected + starts.no_room),
        part(starts.failed),
        phase.start_ms.p50_ms,
        phase.start_ms.p99_ms,
        100.0 * reads.local_rate(),
        100.0 * reads.nodes_rate(),
        100.0 * reads.hit_rate(),
        phase.origin_mean_per_s,
        phase.origin_max_per_s,
    )
}
