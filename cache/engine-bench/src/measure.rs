//! What the scenarios share: records, a Zipf distribution, percentiles, figures of the process
//! and emptying the page cache.

use anyhow::{Context, Result};
use bytes::Bytes;
use fleet::wire::{ShardHeader, ShardRecord};
use image_format::ids::ChunkId;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Length of a shard of a 512 KiB chunk stored as 4+1.
const PAYLOAD: usize = 128 << 10;
/// A whole record on the wire and on disk, in bytes.
pub(crate) const RECORD: u64 = PAYLOAD as u64 + 16;

/// A generator of the same numbers every time (splitmix64).
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks drawn by Zipf's law.
#[derive(Debug)]
pub(crate) struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(ranks: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=ranks).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self { sums: sums.collect() }
    }

    pub(crate) fn draw(&self, numbers: &mut Numbers) -> u64 {
        let at = numbers.unit() * self.sums.last().copied().unwrap_or(0.0);
        self.sums.partition_point(|&sum| sum < at) as u64
    }
}

/// The id of the record `n`.
pub(crate) fn id(n: u64) -> ChunkId {
    ChunkId::of(&n.to_le_bytes())
}

/// The record `n`: noise that says which it is.
pub(crate) fn record(n: u64) -> (ChunkId, Bytes) {
    let id = id(n);
    let mut payload = vec![0x5a; PAYLOAD];
    payload[..32].copy_from_slice(id.as_bytes());
    payload[PAYLOAD - 8..].copy_from_slice(&n.to_le_bytes());
    let header = ShardHeader { index: 0, data: 4, parity: 1, stored_len: 512 << 10 };
    (id, ShardRecord { header, payload: payload.into() }.to_bytes(&id))
}

/// Whether these are the bytes of the record `n`.
pub(crate) fn is_record(n: u64, bytes: &Bytes) -> bool {
    ShardRecord::decode(&id(n), bytes).is_ok_and(|record| record.payload[PAYLOAD - 8..] == n.to_le_bytes())
}

/// Durations of one kind of operation.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Prints the 50th and 99th percentile in µs, if there were any.
    pub(crate) fn print(mut self, name: &str) {
        self.0.sort_unstable();
        for (percent, suffix) in [(50, "p50"), (99, "p99")] {
            if let Some(time) = self.0.get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1)))
            {
                say(&format!("{name} {suffix} µs"), time.as_secs_f64() * 1e6);
            }
        }
    }
}

/// Tells the parent a figure.
pub(crate) fn say(name: &str, value: f64) {
    println!("{name}\t{value}");
}

fn field(path: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).context("a field of the process")?;
    Ok(number.parse()?)
}

/// Bytes that this process caused to be written to disks: pages made dirty, less those that were
/// deleted before they got there. (A page that is overwritten before it got there counts once.)
pub(crate) fn written_bytes() -> Result<f64> {
    let of = |name| field("/proc/self/io", name);

    Ok(of("write_bytes:")? - of("cancelled_write_bytes:")?)
}

/// Prints the resident memory of this process, now and at its highest.
pub(crate) fn say_memory(prefix: &str) -> Result<()> {
    for (name, key) in [("VmRSS MiB", "VmRSS:"), ("VmHWM MiB", "VmHWM:")] {
        say(&format!("{prefix}{name}"), field("/proc/self/status", key)? / 1024.0);
    }
    Ok(())
}

/// Writes everything below a directory to its disk, so that it can leave the page cache.
pub(crate) fn sync(directory: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}

/// Has the page cache forget the files below a directory.
pub(crate) fn forget_pages(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_pages(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
