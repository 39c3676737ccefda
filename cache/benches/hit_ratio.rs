//! Hit ratios of the eviction policies: a Zipf base under a storm of scans, and a trace.
//!
//! `cargo bench -p cache --bench hit_ratio`; a trace is a file of one key a line, named by
//! `LANTERN_TRACE`; without it that part is left out and says so. Decides the default in
//! `docs/decisions/0005-eviction.md`.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a bench prints its result and stops on error")]

use cache::policy::PolicyKind;
use image_format::ids::ChunkId;

const CHUNK: u64 = 512 * 1024;
const KINDS: [PolicyKind; 3] = [PolicyKind::Lru, PolicyKind::LruK, PolicyKind::S3Fifo];

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

/// Keys below `BASE` are the base; the storm's are above.
const BASE: u64 = 10_000;

/// Zipf-distributed starts of a base of images; with `storm`, every 5,000 requests 3,000
/// keys come by that are used once, as hourly cron functions do.
fn zipf(storm: bool) -> Vec<u64> {
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
    for request in 0..200_000 {
        let at = random.unit();
        trace.push(cumulative.partition_point(|&c| c < at) as u64);
        if storm && request % 5_000 == 4_999 {
            trace.extend(cold..cold + 3_000);
            cold += 3_000;
        }
    }
    trace
}

fn ratio(kind: PolicyKind, chunks: u64, trace: &[u64], counts: impl Fn(u64) -> bool) -> f64 {
    let mut policy = kind.build(chunks * CHUNK);
    let (mut hits, mut asked) = (0_u64, 0_u64);
    for &n in trace {
        let key = key(n);
        let hit = policy.contains(&key);
        if counts(n) {
            asked += 1;
            hits += u64::from(hit);
        }
        if hit {
            policy.touch(&key);
            continue;
        }
        while policy.weight() + CHUNK > chunks * CHUNK {
            policy.evict().expect("a full policy holds something");
        }
        policy.insert(key, CHUNK);
    }
    hits as f64 / asked.max(1) as f64
}

fn main() {
    let (calm, stormy) = (zipf(false), zipf(true));
    println!("Zipf(0.9) over {BASE} chunks; hit ratio of the base without and with a storm of scans");
    println!("{:>8}  {:>8}  {:>7}  {:>7}  kept", "policy", "capacity", "calm", "storm");
    for capacity in [500, 1_000, 2_000, 4_000] {
        for kind in KINDS {
            let before = ratio(kind, capacity, &calm, |n| n < BASE);
            let after = ratio(kind, capacity, &stormy, |n| n < BASE);
            println!(
                "{:>8}  {capacity:>8}  {:>6.2}%  {:>6.2}%  {:.1}%",
                format!("{kind:?}"),
                100.0 * before,
                100.0 * after,
                100.0 * after / before
            );
        }
    }
    let Some(path) = std::env::var_os("LANTERN_TRACE") else {
        println!("trace: left out; name a file of one key a line with LANTERN_TRACE");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("LANTERN_TRACE names a readable text file");
    let trace: Vec<u64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    println!("trace of {} requests; hit ratio", trace.len());
    for capacity in [1_000, 4_000, 16_000] {
        for kind in KINDS {
            let all = ratio(kind, capacity, &trace, |_| true);
            println!("{:>8}  {capacity:>8}  {:>6.2}%", format!("{kind:?}"), 100.0 * all);
        }
    }
}
