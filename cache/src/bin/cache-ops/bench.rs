//! `cache-ops bench`: loads the fleet as workers do and prints percentiles.

use crate::admin::{Admin, progress};
use crate::cli::BenchArgs;
use crate::{failed, print, print_json};
use anyhow::{Context, Result};
use cache::metrics::{Histogram, HistogramSnapshot};
use fleet::client::{Fleet, FleetSnapshot};
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;
use image_format::units::ChunkSize;
use serde::Serialize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Debug, Serialize)]
struct Report {
    chunk_bytes: u64,
    put: HistogramSnapshot,
    get: HistogramSnapshot,
    reads: u64,
    failed_reads: u64,
    megabytes_per_second: f64,
    fleet: FleetSnapshot,
}

/// A chunk of bytes that no other run has.
fn chunk(run: &[u8; 32], n: u32, size: usize) -> VerifiedChunk {
    let mut hasher = blake3::Hasher::new_keyed(run);
    hasher.update(&n.to_le_bytes());
    let mut bytes = vec![0; size];
    hasher.finalize_xof().fill(&mut bytes);
    let bytes = bytes::Bytes::from(bytes);
    let id = ChunkId::of(&bytes);
    SealedChunk::new(bytes).verify(&id).expect("the id was computed from the bytes")
}

async fn write(
    fleet: &Fleet,
    run: &[u8; 32],
    args: &BenchArgs,
    size: usize,
) -> Result<(Vec<ChunkId>, Histogram)> {
    let (mut ids, took) = (Vec::new(), Histogram::default());
    let bar = progress("writing", u64::from(args.chunks), args.fleet.json);
    for n in 0..args.chunks {
        let chunk = chunk(run, n, size);
        let begun = Instant::now();
        let stored = fleet.put(&chunk).await;
        took.record(begun.elapsed());
        if !stored.readable(fleet.code()) {
            return Err(failed(5, format!("the nodes took {} of {} shards", stored.shards, stored.width)));
        }
        ids.push(*chunk.id());
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((ids, took))
}

async fn read(fleet: &Fleet, ids: &Arc<[ChunkId]>, args: &BenchArgs) -> Result<(Histogram, u64)> {
    let (took, wrong) = (Arc::new(Histogram::default()), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut readers = JoinSet::new();
    for reader in 0..usize::from(args.concurrency) {
        let (fleet, ids) = (fleet.clone(), Arc::clone(ids));
        let (took, wrong) = (Arc::clone(&took), Arc::clone(&wrong));
        readers.spawn(async move {
            let mut n = reader * 7919;
            while Instant::now() < end {
                let begun = Instant::now();
                match fleet.get(&ids[n % ids.len()]).await {
                    Ok(Some(_)) => took.record(begun.elapsed()),
                    Ok(None) | Err(_) => drop(wrong.fetch_add(1, Ordering::Relaxed)),
                }
                n += 1;
            }
        });
    }
    while let Some(joined) = readers.join_next().await {
        joined.context("a reader failed")?;
    }
    let took = Arc::into_inner(took).context("readers are gone")?;
    Ok((took, wrong.load(Ordering::Relaxed)))
}

pub(crate) async fn run(args: &BenchArgs) -> Result<ExitCode> {
    let size = usize::try_from(args.size).ok().filter(|&size| (1..=ChunkSize::MAX as usize).contains(&size));
    let size = size.ok_or_else(|| failed(2, "--size must be 1 byte to 4 MiB"))?;
    let fleet = Admin::open(&args.fleet).await?.fleet()?;
    let mut run = [0; 32];
    getrandom::fill(&mut run).context("no random bytes")?;
    let (ids, put) = write(&fleet, &run, args, size).await?;
    let ids: Arc<[ChunkId]> = ids.into();
    // what was just written is in every node's memory; one round warms the connections
    for id in ids.iter().take(50) {
        let _ = fleet.get(id).await;
    }
    let outcome = read(&fleet, &ids, args).await;
    for id in &*ids {
        fleet.remove(id).await;
    }
    let (get, failed_reads) = outcome?;
    let get = get.snapshot();
    let report = Report {
        chunk_bytes: args.size,
        put: put.snapshot(),
        reads: get.count,
        failed_reads,
        megabytes_per_second: get.count as f64 * args.size as f64 / 1e6 / args.seconds as f64,
        get,
        fleet: fleet.metrics(),
    };
    if args.fleet.json {
        print_json(&report)?
    } else {
        show(&report)?
    }
    Ok(if failed_reads == 0 { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

fn show(report: &Report) -> Result<()> {
    print("         COUNT  P50 µs  P90 µs  P99 µs  MAX µs")?;
    for (name, of) in [("put", report.put), ("get", report.get)] {
        let HistogramSnapshot { count, p50_us, p90_us, p99_us, max_us, .. } = of;
        print(format_args!("{name:<5} {count:>8} {p50_us:>7} {p90_us:>7} {p99_us:>7} {max_us:>7}"))?;
    }
    print(format_args!(
        "{:.0} MB/s of chunks; {} of {} reads needed parity, {} failed",
        report.megabytes_per_second, report.fleet.reconstructed, report.reads, report.failed_reads
    ))
}
