//! What is simulated: raw settings as an operator writes them, and their checks.
//!
//! Every field has a default, so that an empty file is a fleet; unknown fields are refused.
//! Units are in the names: `_s` seconds, `_ms` milliseconds, `_us` microseconds, `_bytes`.

use super::random::part;
use crate::policy::PolicyKind;
use fleet::stripe::Code;
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
        Self { seed: 1, duration_s: 600.0, warm_up_s: 120.0, bucket_s: 1.0, primed: true }
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
            workers: 1000,
            slots: 64,
            worker_bytes: 1 << 30,
            worker_policy: PolicyKind::default(),
            nodes: 100,
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
            functions: 5000,
            zipf: 0.9,
            invocations_per_s: 1000.0,
            run_s: 1.0,
            run_p99_s: 30.0,
            keep_alive_s: 60.0,
            cron_functions: 1000,
            cron_period_s: 300.0,
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
    /// Requests per second it serves.
    pub requests_per_s: f64,
}

impl Default for OriginModel {
    fn default() -> Self {
        Self { p50_ms: 36.0, p999_ms: 175.0, requests_per_s: 50_000.0 }
    }
}

/// What protects the fleet from itself. 0 is no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Starts at the same time on a worker; more are rejected at once.
    pub starts_per_worker: u32,
    /// Requests to the origin at the same time from a worker; more wait on the worker.
    pub origin_per_worker: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { starts_per_worker: 8, origin_per_worker: 2 }
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

/// A scenario that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("scenario: {field} = {value}: {must}")]
pub struct ScenarioError {
    /// Which field.
    pub field: &'static str,
    /// What it says.
    pub value: String,
    /// What it must be.
    pub must: &'static str,
}

/// Most workers, sandboxes, functions and so on: keeps what a run holds in memory bounded.
const MOST_WORKERS: u32 = 20_000;
const MOST_FUNCTIONS: u32 = 1_000_000;
const MOST_CHUNKS: u64 = 20_000_000;
/// Entries of all tiers together; each takes about 200 bytes of this machine's memory.
const MOST_ENTRIES: u64 = 100_000_000;
const MOST_BUCKETS: f64 = 100_000.0;
const MOST_SECONDS: f64 = 1_000_000.0;

impl Scenario {
    /// The stripes' code.
    ///
    /// # Errors
    /// [`ScenarioError`] for numbers of shards that make no code.
    pub fn code(&self) -> Result<Code, ScenarioError> {
        let (data, parity) = (self.fleet.data, self.fleet.parity);
        Code::new(data, parity).map_err(|_| ScenarioError {
            field: "fleet.data",
            value: format!("{data}+{parity}"),
            must: "1 to 16 data and at most 8 parity shards",
        })
    }

    /// Whether this can be run, within bounded time and memory.
    ///
    /// # Errors
    /// [`ScenarioError`] names the first field that is wrong and what it must be.
    pub fn check(&self) -> Result<(), ScenarioError> {
        self.check_numbers()?;
        self.check_shape()?;
        self.check_size()
    }

    fn check_numbers(&self) -> Result<(), ScenarioError> {
        let (run, load, times, origin) = (&self.run, &self.load, &self.times, &self.origin);
        let within = |field, value: f64, low: f64, high: f64, must| {
            let fits = (low..=high).contains(&value);
            if fits { Ok(()) } else { Err(ScenarioError { field, value: value.to_string(), must }) }
        };
        let second = "above 0 and at most a million seconds";
        within("run.duration_s", run.duration_s, 1e-3, MOST_SECONDS, second)?;
        within("run.bucket_s", run.bucket_s, 1e-3, MOST_SECONDS, second)?;
        let buckets = "so many points that the run has at most 100,000";
        within("run.bucket_s", run.duration_s / run.bucket_s, 0.0, MOST_BUCKETS, buckets)?;
        within("run.warm_up_s", run.warm_up_s, 0.0, run.duration_s, "0 up to the duration")?;
        within("load.zipf", load.zipf, 0.0, 10.0, "0 to 10")?;
        within("load.invocations_per_s", load.invocations_per_s, 0.0, 1e6, "0 to a million")?;
        within("load.run_s", load.run_s, 1e-6, MOST_SECONDS, second)?;
        within("load.run_p99_s", load.run_p99_s, load.run_s, MOST_SECONDS, "at least run_s")?;
        within("load.cron_period_s", load.cron_period_s, 1e-3, MOST_SECONDS, second)?;
        within("load.cron_spread_s", load.cron_spread_s, 0.0, load.cron_period_s, "0 up to the period")?;
        within("load.deploys_per_s", load.deploys_per_s, 0.0, 1e4, "0 to 10,000")?;
        within("load.patience_s", load.patience_s, 1e-3, MOST_SECONDS, second)?;
        within("replay.speed", self.replay.speed, 1e-3, 1e6, "0.001 to a million")?;
        within("fleet.epsilon", self.fleet.epsilon, 0.0, 100.0, "0 to 100")?;
        for (field, part) in [
            ("fleet.memory_share", self.fleet.memory_share),
            ("load.deploy_fresh", load.deploy_fresh),
            ("times.straggler_share", times.straggler_share),
        ] {
            within(field, part, 0.0, 1.0, "0 to 1")?;
        }
        for (field, value) in [
            ("load.keep_alive_s", load.keep_alive_s),
            ("load.retry_after_s", load.retry_after_s),
            ("fleet.leave_after_s", self.fleet.leave_after_s),
            ("times.boot_ms", times.boot_ms),
            ("times.l1_us", times.l1_us),
            ("times.shard_us", times.shard_us),
            ("times.shard_jitter_us", times.shard_jitter_us),
            ("times.shard_ssd_us", times.shard_ssd_us),
            ("times.straggler_min_ms", times.straggler_min_ms),
            ("times.open_us", times.open_us),
        ] {
            within(field, value, 0.0, 1e6, "0 to a million")?;
        }
        let longer = "at least straggler_min_ms";
        within("times.straggler_max_ms", times.straggler_max_ms, times.straggler_min_ms, 1e6, longer)?;
        within("times.l2_deadline_ms", times.l2_deadline_ms, 1e-3, 1e9, "above 0")?;
        within("times.chunk_deadline_ms", times.chunk_deadline_ms, 1e-3, 1e9, "above 0")?;
        within("origin.p50_ms", origin.p50_ms, 1e-3, 1e6, "above 0")?;
        within("origin.p999_ms", origin.p999_ms, origin.p50_ms, 1e6, "at least p50_ms")?;
        within("origin.requests_per_s", origin.requests_per_s, 1e-3, 1e9, "above 0")?;
        self.events.iter().try_for_each(|event| {
            within("events.at_s", event.at_s, 0.0, run.duration_s, "0 up to the duration")
        })
    }

    fn check_shape(&self) -> Result<(), ScenarioError> {
        let (fleet, images) = (&self.fleet, &self.images);
        let bad = |field, value: u64, must| Err(ScenarioError { field, value: value.to_string(), must });
        let width = u32::from(self.code()?.width());
        let within = |field, value: u32, low: u32, high: u32, must| {
            if (low..=high).contains(&value) { Ok(()) } else { bad(field, value.into(), must) }
        };
        within("fleet.workers", fleet.workers, 1, MOST_WORKERS, "1 to 20,000")?;
        within("fleet.slots", fleet.slots, 1, 10_000, "1 to 10,000")?;
        within("fleet.zones", fleet.zones, 1, 100, "1 to 100")?;
        let added = self.events.iter().map(|event| if let What::AddNodes(n) = event.what { n } else { 0 });
        let nodes = added.fold(fleet.nodes, u32::saturating_add);
        let most = u32::try_from(fleet::members::MAX_NODES).unwrap_or(u32::MAX);
        within("fleet.nodes", nodes, 0, most, "at most 1024, those that join later among them")?;
        if fleet.nodes != 0 && fleet.nodes < width {
            return bad("fleet.nodes", fleet.nodes.into(), "0, or at least as many as a stripe has shards");
        }
        within("images.chunk_bytes", images.chunk_bytes, 4096, 4 << 20, "4 KiB to 4 MiB")?;
        within("images.bases", images.bases, 1, 100_000, "1 to 100,000")?;
        within("images.base_chunks", images.base_chunks, 0, 20_000, "at most 20,000")?;
        let (low, high) = (images.own_chunks_min, images.own_chunks_max);
        within("images.own_chunks_max", high, low.max(1), 20_000, "own_chunks_min to 20,000, at least 1")?;
        within("load.functions", self.load.functions, 1, MOST_FUNCTIONS, "1 to a million")?;
        within("load.cron_functions", self.load.cron_functions, 0, MOST_FUNCTIONS, "at most a million")?;
        within("load.retries", self.load.retries, 0, 100, "at most 100")?;
        within("replay.copies", self.replay.copies, 1, 100_000, "1 to 100,000")?;
        within("times.window", self.times.window, 1, 10_000, "1 to 10,000")?;
        for event in &self.events {
            match event.what {
                What::LoseZone(zone) if zone >= fleet.zones => {
                    return bad("events.lose-zone", zone.into(), "below the number of zones");
                }
                What::LoseNode(node) if node >= fleet.nodes => {
                    return bad("events.lose-node", node.into(), "below the number of nodes");
                }
                What::AddNodes(n) if n == 0 || fleet.nodes == 0 => {
                    return bad("events.add-nodes", n.into(), "at least one, to a fleet that has nodes");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Chunks that the images ever have, at most, for so many functions.
    fn chunks(&self, functions: u64) -> u64 {
        let bases = u64::from(self.images.bases) * u64::from(self.images.base_chunks);
        let versions = part(1 << 40, self.load.deploys_per_s * self.run.duration_s / (1_u64 << 40) as f64);
        bases + (functions + versions) * u64::from(self.images.own_chunks_max)
    }

    fn check_size(&self) -> Result<(), ScenarioError> {
        let functions = u64::from(self.load.functions) + u64::from(self.load.cron_functions);
        self.check_chunks(functions)
    }

    /// Whether so many functions fit the machine that simulates.
    pub(super) fn check_chunks(&self, functions: u64) -> Result<(), ScenarioError> {
        let chunks = self.chunks(functions);
        if chunks > MOST_CHUNKS {
            let must = "images and functions of at most 20 million chunks";
            return Err(ScenarioError { field: "images.own_chunks_max", value: chunks.to_string(), must });
        }
        let of = |bytes: u64, each: u32| (bytes / u64::from(each.max(1))).min(chunks);
        let shard = self.code()?.shard_len(self.images.chunk_bytes);
        let l1 = of(self.fleet.worker_bytes, self.images.chunk_bytes) * u64::from(self.fleet.workers);
        let l2 = of(self.fleet.node_bytes, shard) * u64::from(self.fleet.nodes);
        let l2 = l2.min(chunks * u64::from(self.code()?.width()));
        if l1 + l2 > MOST_ENTRIES {
            let must =
                "few enough chunks in all tiers (100 million): simulate a smaller fleet, or a part of it";
            return Err(ScenarioError { field: "fleet.workers", value: (l1 + l2).to_string(), must });
        }
        Ok(())
    }
}
