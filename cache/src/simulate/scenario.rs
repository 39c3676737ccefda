//! What is simulated: settings as an operator writes them; their checks are in `check`.
//!
//! Every field has a default, so that an empty file is a fleet; unknown fields are refused.
//! Units are in the names: `_s` seconds, `_ms` milliseconds, `_us` microseconds, `_bytes`.

use crate::policy::PolicyKind;
use serde::{Deserialize, Serialize};

/// A fleet, its load and what happens to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Seed of all chance, length, resolution.
    pub run: Run,
    /// Workers and cache nodes.
    pub fleet: FleetShape,
    /// What images are made of.
    pub images: Images,
    /// Who asks for sandboxes, where no trace says it.
    pub load: Load,
    /// How a trace is replayed.
    pub replay: Replay,
    /// How long things take.
    pub times: Times,
    /// The object store.
    pub origin: OriginModel,
    /// What protects the fleet from itself.
    pub limits: Limits,
    /// What happens, and when.
    pub events: Vec<Event>,
}

/// Seed of all chance, length, resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Seed: the same seed and scenario give the same outcome to the last bit.
    pub seed: u64,
    /// Simulated seconds.
    pub duration_s: f64,
    /// Seconds at the beginning that are reported on their own, while the tiers fill.
    pub warm_up_s: f64,
    /// Seconds per point of the series and the plot.
    pub bucket_s: f64,
    /// Whether the cache nodes begin with every image, as after `flattener push --prime`.
    pub primed: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self { seed: 1, duration_s: 300.0, warm_up_s: 60.0, bucket_s: 1.0, primed: true }
    }
}

/// Workers and cache nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetShape {
    /// Workers.
    pub workers: u32,
    /// Sandboxes a worker has room for, starting, busy and idle together.
    pub slots: u32,
    /// Bytes of each worker's own cache (L1, memory and SSD together).
    pub worker_bytes: u64,
    /// Replacement policy of the workers' caches.
    pub worker_policy: PolicyKind,
    /// Cache nodes; 0 for workers that go straight to the origin.
    pub nodes: u32,
    /// Bytes of each cache node, memory and SSD together.
    pub node_bytes: u64,
    /// Part of a node's bytes that is memory, 0 to 1; what it holds is on the SSD too.
    pub memory_share: f64,
    /// Replacement policy of the nodes' tiers.
    pub node_policy: PolicyKind,
    /// Zones the nodes are spread over evenly, numbered from 0.
    pub zones: u32,
    /// Data shards of a stripe.
    pub data: u8,
    /// Parity shards of a stripe.
    pub parity: u8,
    /// How far a node's load may go above its share: 0.1 is a tenth.
    pub epsilon: f64,
    /// Seconds until lost nodes leave the list of members and their places go to others; 0
    /// leaves them in the list.
    pub leave_after_s: f64,
}

impl Default for FleetShape {
    fn default() -> Self {
        Self {
            workers: 200,
            slots: 64,
            worker_bytes: 1 << 30,
            worker_policy: PolicyKind::default(),
            nodes: 20,
            node_bytes: 4 << 30,
            memory_share: 0.1,
            node_policy: PolicyKind::default(),
            zones: 5,
            data: 4,
            parity: 1,
            epsilon: 0.1,
            leave_after_s: 30.0,
        }
    }
}

/// What images are made of: shared base chunks and own ones, as far as a start reads them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// Bytes of a stored chunk.
    pub chunk_bytes: u32,
    /// Base images; their popularity is Zipf-distributed with exponent 1.
    pub bases: u32,
    /// Chunks of its base that a start reads.
    pub base_chunks: u32,
    /// Chunks of its own that a start reads, at least.
    pub own_chunks_min: u32,
    /// Chunks of its own that a start reads, at most.
    pub own_chunks_max: u32,
}

impl Default for Images {
    fn default() -> Self {
        Self { chunk_bytes: 512 * 1024, bases: 20, base_chunks: 30, own_chunks_min: 5, own_chunks_max: 45 }
    }
}

/// Who asks for sandboxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Functions that are invoked all the time, each an image of its own.
    pub functions: u32,
    /// Exponent of their popularity (Zipf).
    pub zipf: f64,
    /// Invocations per second of all of them; they arrive independently (Poisson).
    pub invocations_per_s: f64,
    /// Seconds an invocation runs, median of a log-normal distribution.
    pub run_s: f64,
    /// The same, 99th percentile.
    pub run_p99_s: f64,
    /// Seconds an idle sandbox waits for another invocation of its function.
    pub keep_alive_s: f64,
    /// Functions that are invoked once every period, one sandbox each.
    pub cron_functions: u32,
    /// Their period in seconds.
    pub cron_period_s: f64,
    /// Seconds over which the invocations of one period are spread; the period itself for
    /// no storm at all.
    pub cron_spread_s: f64,
    /// New versions of functions per second.
    pub deploys_per_s: f64,
    /// Part of a function's own chunks that are new in a new version, 0 to 1.
    pub deploy_fresh: f64,
    /// Whether new versions are written to the cache nodes when they are pushed.
    pub deploy_primed: bool,
    /// Times a caller asks again after a rejected or failed start.
    pub retries: u32,
    /// Seconds it waits before that.
    pub retry_after_s: f64,
    /// Seconds after which a caller no longer waits for a start; the start is given up.
    pub patience_s: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            functions: 2000,
            zipf: 0.9,
            invocations_per_s: 800.0,
            run_s: 1.0,
            run_p99_s: 30.0,
            keep_alive_s: 10.0,
            cron_functions: 400,
            cron_period_s: 120.0,
            cron_spread_s: 10.0,
            deploys_per_s: 0.1,
            deploy_fresh: 0.043,
            deploy_primed: false,
            retries: 2,
            retry_after_s: 1.0,
            patience_s: 30.0,
        }
    }
}

/// How a trace is replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// How often the trace is laid over itself, each time with other functions and moved by
    /// a random part of its length: makes a fleet's load of a sample.
    pub copies: u32,
    /// How much faster than recorded it is replayed.
    pub speed: f64,
}

impl Default for Replay {
    fn default() -> Self {
        Self { copies: 1, speed: 1.0 }
    }
}

/// How long things take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// Milliseconds from the last chunk to a sandbox that serves.
    pub boot_ms: f64,
    /// Chunks that a start asks for at the same time.
    pub window: u32,
    /// Microseconds for a chunk from the worker's own cache.
    pub l1_us: f64,
    /// Microseconds for a shard from a node, at least.
    pub shard_us: f64,
    /// Mean of what comes on top (exponentially distributed).
    pub shard_jitter_us: f64,
    /// More for a shard that is not in the node's memory.
    pub shard_ssd_us: f64,
    /// Part of the shards that are stragglers, 0 to 1.
    pub straggler_share: f64,
    /// Milliseconds a straggler takes more, at least.
    pub straggler_min_ms: f64,
    /// The same, at most.
    pub straggler_max_ms: f64,
    /// Milliseconds after which the nodes are not waited for.
    pub l2_deadline_ms: f64,
    /// Microseconds to verify and decrypt a chunk from a node or the origin.
    pub open_us: f64,
    /// Milliseconds after which a read of a chunk fails.
    pub chunk_deadline_ms: f64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            boot_ms: 50.0,
            window: 16,
            l1_us: 100.0,
            shard_us: 600.0,
            shard_jitter_us: 200.0,
            shard_ssd_us: 100.0,
            straggler_share: 0.02,
            straggler_min_ms: 2.0,
            straggler_max_ms: 10.0,
            l2_deadline_ms: 50.0,
            open_us: 500.0,
            chunk_deadline_ms: 20_000.0,
        }
    }
}

/// The object store: log-normal latency, and a rate above which requests wait in line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginModel {
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// The latency in milliseconds that 1 of 1000 requests exceeds.
    pub p999_ms: f64,
    /// Requests per second it serves: by default what S3 promises for one prefix.
    pub requests_per_s: f64,
}

impl Default for OriginModel {
    fn default() -> Self {
        Self { p50_ms: 36.0, p999_ms: 175.0, requests_per_s: 5_500.0 }
    }
}

/// What protects the fleet from itself. 0 is no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Starts at the same time on a worker (`--max-starts`); more are rejected at once.
    pub starts_per_worker: u32,
    /// Requests to the origin at the same time from a worker (`--origin-concurrency`); more
    /// wait on the worker.
    pub origin_per_worker: u32,
}

impl Default for Limits {
    /// Those of a worker that is told nothing.
    fn default() -> Self {
        Self { starts_per_worker: 64, origin_per_worker: 64 }
    }
}

/// Something that happens to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, in seconds from the beginning.
    pub at_s: f64,
    /// What: `"wipe"`, `{ lose-zone = 2 }`, `{ lose-node = 7 }` or `{ add-nodes = 10 }`.
    pub what: What,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// All caches, of workers and of nodes, are emptied.
    Wipe,
    /// The nodes of this zone are gone.
    LoseZone(u32),
    /// The node of this number is gone.
    LoseNode(u32),
    /// So many empty nodes join.
    AddNodes(u32),
}
