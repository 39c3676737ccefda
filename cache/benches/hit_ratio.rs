//! Hit ratios of the eviction policies: a Zipf base under a storm of scans, as a worker sees
//! it and as a cache node behind many workers sees it; and a trace.
//!
//! `cargo bench -p cache --bench hit_ratio`; a trace is a text file of one key a line, named
//! by `LANTERN_TRACE`; without it that part is left out and says so. Decides the defaults in
//! `docs/decisions/0005-eviction.md`, and fails if the default no longer keeps the hot set.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a bench prints its result and stops on error")]

use cache::policy::{Policy, PolicyKind};
use image_format::ids::ChunkId;
use std::io::BufRead;

const CHUNK: u64 = 512 * 1024;

/// Keys below `BASE` are the base; the storm's are above.
const BASE: u64 = 10_000;
/// Workers in front of the cache node, and chunks of each one's first level.
const WORKERS: u64 = 32;
const FIRST_LEVEL: u64 = 500;
/// What the default keeps of the hot set's calm hit ratio under a storm, at least.
const KEPT: f64 = 0.95;

fn key(n: u64) -> ChunkId {
    ChunkId::of(&n.to_le_bytes())
}

/// A small deterministic generator (SplitMix64), so that every policy sees the same trace.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Zipf-distributed requests to a base of chunks; with `storm`, every 5,000 requests 3,000
/// keys come by that are used once, as hourly cron functions do.
fn zipf(requests: u64, storm: bool) -> Vec<u64> {
    let weights: Vec<f64> = (1..=BASE).map(|rank| 1.0 / (rank as f64).powf(0.9)).collect();
    let total: f64 = weights.iter().sum();
    let cumulative: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect();
    let mut random = Random(7);
    let mut cold = BASE;
    let mut trace = Vec::new();
    for request in 0..requests {
        let at = random.unit();
        trace.push(cumulative.partition_point(|&c| c < at) as u64);
        if storm && request % 5_000 == 4_999 {
            trace.extend(cold..cold + 3_000);
            cold += 3_000;
        }
    }
    trace
}

/// A tier of one policy.
struct Tier {
    capacity: u64,
    policy: Box<dyn Policy>,
}

impl Tier {
    fn new(kind: PolicyKind, chunks: u64) -> Self {
        Self { capacity: chunks * CHUNK, policy: kind.build(chunks * CHUNK) }
    }

    /// Whether the key is held; it is afterwards.
    fn read(&mut self, key: ChunkId) -> bool {
        if self.policy.contains(&key) {
            self.policy.touch(&key);
            return true;
        }
        while self.policy.weight() + CHUNK > self.capacity {
            self.policy.evict().expect("a full policy holds something");
        }
        self.policy.insert(key, CHUNK);
        false
    }
}

/// Hit ratio over the keys below `below`.
fn ratio(kind: PolicyKind, chunks: u64, trace: &[u64], below: u64) -> f64 {
    let mut tier = Tier::new(kind, chunks);
    let (mut hits, mut asked) = (0_u64, 0_u64);
    for &n in trace {
        let hit = tier.read(key(n));
        asked += u64::from(n < below);
        hits += u64::from(hit && n < below);
    }
    hits as f64 / asked.max(1) as f64
}

/// What passes the first level of the workers, each request being made by one of them.
fn misses(trace: &[u64]) -> Vec<u64> {
    let mut random = Random(11);
    let mut workers: Vec<Tier> =
        (0..WORKERS).map(|_| Tier::new(PolicyKind::default(), FIRST_LEVEL)).collect();
    let missed = |n: &&u64| !workers[(random.next() % WORKERS) as usize].read(key(**n));
    trace.iter().filter(missed).copied().collect()
}

/// One table: the whole base and its hot set, as many chunks as half the tier, calm and
/// stormy. Returns the least that a policy kept of the hot set, over the capacities.
fn table(name: &str, calm: &[u64], stormy: &[u64], capacities: &[u64]) -> Vec<(PolicyKind, f64)> {
    println!("{name}");
    println!("  policy  chunks   base: calm    storm    kept   hot set: calm    storm    kept");
    let mut least: Vec<(PolicyKind, f64)> = PolicyKind::ALL.map(|kind| (kind, f64::MAX)).to_vec();
    for &chunks in capacities {
        for (kind, least) in &mut least {
            let both = |below| (ratio(*kind, chunks, calm, below), ratio(*kind, chunks, stormy, below));
            let ((base, base_storm), (hot, hot_storm)) = (both(BASE), both(chunks / 2));
            println!(
                "{:>8}  {chunks:>6}      {:>6.2}%  {:>6.2}%  {:>5.1}%         {:>6.2}%  {:>6.2}%  {:>5.1}%",
                format!("{kind:?}"),
                100.0 * base,
                100.0 * base_storm,
                100.0 * base_storm / base,
                100.0 * hot,
                100.0 * hot_storm,
                100.0 * hot_storm / hot
            );
            *least = least.min(hot_storm / hot);
        }
    }
    least
}

/// Time of one request to a tier of many chunks, hits and evictions mixed.
fn cost() {
    const HELD: u64 = 100_000;
    let mut random = Random(13);
    // a fifth of the requests goes to keys that are not held
    let keys: Vec<ChunkId> = (0..1_000_000).map(|_| key(random.next() % (HELD * 5 / 4))).collect();
    for kind in PolicyKind::ALL {
        let mut tier = Tier::new(kind, HELD);
        for n in 0..HELD {
            tier.read(key(n));
        }
        let start = std::time::Instant::now();
        let hits = keys.iter().filter(|&&key| tier.read(key)).count();
        let nanos = start.elapsed().as_nanos() / keys.len() as u128;
        println!("{kind:?}: {nanos} ns a request with {HELD} chunks held ({hits} of {} hits)", keys.len());
    }
}

fn public_trace() {
    let Some(path) = std::env::var_os("LANTERN_TRACE") else {
        println!("trace: left out; name a text file of one key a line with LANTERN_TRACE");
        return;
    };
    let file = match std::fs::File::open(&path) {
        Ok(file) => std::io::BufReader::new(file),
        Err(error) => {
            println!("trace: left out; LANTERN_TRACE names {}: {error}", path.display());
            return;
        }
    };
    let line = |line: Result<String, _>| line.expect("the trace is text").trim().parse().ok();
    let trace: Vec<u64> = file.lines().filter_map(line).collect();
    let distinct = trace.iter().collect::<std::collections::HashSet<_>>().len();
    println!("trace of {} requests to {distinct} keys; hit ratio", trace.len());
    print!("  chunks");
    PolicyKind::ALL.iter().for_each(|kind| print!("  {:>8}", format!("{kind:?}")));
    println!();
    for capacity in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000] {
        print!("{capacity:>8}");
        for kind in PolicyKind::ALL {
            print!("  {:>7.2}%", 100.0 * ratio(kind, capacity, &trace, u64::MAX));
        }
        println!();
    }
}

fn main() {
    let (calm, stormy) = (zipf(200_000, false), zipf(200_000, true));
    let name = format!("a worker: Zipf(0.9) over {BASE} chunks");
    let mut least = table(&name, &calm, &stormy, &[500, 1_000, 2_000, 4_000]);
    let (calm, stormy) = (misses(&zipf(1_000_000, false)), misses(&zipf(1_000_000, true)));
    let name = format!("a cache node behind {WORKERS} workers of {FIRST_LEVEL} chunks each");
    least.extend(table(&name, &calm, &stormy, &[2_000, 4_000, 8_000]));
    public_trace();
    cost();
    for (kind, least) in least {
        println!("{kind:?} keeps at least {:.1} % of the hot set", 100.0 * least);
        assert!(kind != PolicyKind::default() || least >= KEPT, "the default loses the hot set");
    }
}
