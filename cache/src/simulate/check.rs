//! Whether a scenario can be run: every number within its bounds, the fleet possible, and the
//! whole small enough for the machine that simulates it.

use super::random::part;
use super::scenario::{Scenario, What};
use fleet::stripe::Code;

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
const MOST_ENTRIES: u64 = 40_000_000;
/// Sandboxes of all workers.
const MOST_SLOTS: u64 = 5_000_000;
/// Invocations of a run: hours of this machine's time.
const MOST_INVOCATIONS: f64 = 1e8;
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
        let slots = u64::from(self.fleet.workers) * u64::from(self.fleet.slots);
        if slots > MOST_SLOTS {
            let must = "at most 5 million slots on all workers";
            return Err(ScenarioError { field: "fleet.slots", value: slots.to_string(), must });
        }
        let load = &self.load;
        let rate = load.invocations_per_s + f64::from(load.cron_functions) / load.cron_period_s;
        let invocations = rate * self.run.duration_s;
        if invocations > MOST_INVOCATIONS {
            let must = "few enough invocations in the whole run (100 million)";
            let field = "load.invocations_per_s";
            return Err(ScenarioError { field, value: invocations.to_string(), must });
        }
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
                "few enough chunks in all tiers (40 million): simulate a smaller fleet, or a part of it";
            return Err(ScenarioError { field: "fleet.workers", value: (l1 + l2).to_string(), must });
        }
        Ok(())
    }
}
