//! The read path by the tier that answers: memory, SSD, origin; one reader and two.
//!
//! `cargo bench -p cache --bench read_path`. Chunks of 512 KiB, three quarters of which is
//! noise, sealed with zstd-1. The origin is in memory and the SSD tier's files are in the
//! page cache, so this is the cost of our own code (tasks, copies, hashes, ciphers), not of
//! networks and disks. Prefetch is off. With two readers on two threads, a time is the clock's
//! divided by the reads of both, so perfect scaling halves it.
#![allow(clippy::expect_used, reason = "a bench stops on error")]

use cache::prefetch::WindowSettings;
use cache::read_path::{ImageReader, ReadPath, ReadPathSettings};
use cache::ssd::{Contents, SsdSettings, SsdTier};
use cache::tier::ChunkTier;
use criterion::{BenchmarkId, Criterion, Throughput};
use image_format::ids::{ImageDigest, RootId};
use image_format::manifest::{Entry, Manifest, ManifestHead};
use image_format::names::ObjectName;
use image_format::seal::{Compression, Salt, Sealer};
use image_format::units::{CHUNK_SIZE, ChunkIndex};
use origin::memory::MemoryStore;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Chunks of the image: more than any processor cache holds.
const CHUNKS: u32 = 128;
/// What the kernel asks of a FUSE file when it reads a page, and a whole chunk.
const SMALL: u32 = 4096;
const WHOLE: u32 = 512 * 1024;

/// A chunk that compresses a little.
fn content(index: u32) -> Vec<u8> {
    let mut state = u64::from(index) + 1;
    let mut plain = Vec::with_capacity(CHUNK_SIZE.as_usize());
    while plain.len() < CHUNK_SIZE.as_usize() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let quarter_zero = if state >> 62 == 0 { 0 } else { state ^ (state >> 29) };
        plain.extend_from_slice(&quarter_zero.to_le_bytes());
    }
    plain
}

fn image() -> (MemoryStore, Arc<Manifest>) {
    let root: RootId = "bench".parse().expect("a valid label");
    let store = MemoryStore::new();
    let salt = Salt::derive(&root, &[0; 32]);
    let mut sealer = Sealer::new(salt, Compression::Zstd(1)).expect("a level that exists");
    let (mut entries, mut keys) = (Vec::new(), Vec::new());
    for index in 0..CHUNKS {
        let sealed = sealer.seal(&content(index)).expect("not zeros");
        store.overwrite(&ObjectName::chunk(&root, sealed.id), sealed.bytes.clone());
        let stored_len = u32::try_from(sealed.bytes.len()).expect("at most a chunk");
        entries.push(Entry { index: ChunkIndex(index), id: sealed.id, stored_len, codec: sealed.codec });
        keys.push(sealed.key);
    }
    let head = ManifestHead {
        image: ImageDigest::from_bytes([1; 32]),
        layout_policy: 1,
        chunk_size: CHUNK_SIZE,
        device_len: u64::from(CHUNKS) * u64::from(CHUNK_SIZE.bytes()),
        root,
        tenant: "bench".parse().expect("a valid label"),
    };
    let manifest = Manifest::new(head, entries, keys, Vec::new()).expect("a valid manifest");
    (store, Arc::new(manifest))
}

/// Where reads end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Memory,
    Ssd,
    Origin,
}

/// A reader whose every read ends in `tier`, with what keeps that tier alive.
async fn reader(tier: Tier) -> (ImageReader, Option<tempfile::TempDir>) {
    let (store, manifest) = image();
    let memory_bytes = if tier == Tier::Memory { 1 << 30 } else { 0 };
    let window = WindowSettings { first: 0, ..WindowSettings::default() };
    let settings = ReadPathSettings { memory_bytes, window, ..ReadPathSettings::default() };
    let directory = (tier == Tier::Ssd).then(|| tempfile::tempdir().expect("a directory"));
    let mut tiers: Vec<Arc<dyn ChunkTier>> = Vec::new();
    if let Some(directory) = &directory {
        let settings = SsdSettings {
            directory: directory.path().join("ssd"),
            capacity_bytes: 1 << 30,
            headroom_bytes: 0,
            policy: settings.policy,
            contents: Contents::Chunks,
        };
        tiers.push(Arc::new(SsdTier::open(settings).expect("a fresh directory")));
    }
    let path = ReadPath::new(settings, Arc::new(store), tiers);
    let reader = path.open_image(manifest);
    // One at a time: the SSD tier drops what it cannot write in time.
    for _ in 0..2 {
        for index in 0..CHUNKS {
            reader.read(ChunkIndex(index)).await.expect("the origin has it");
            path.settle().await;
        }
    }
    let before = reader.stats();
    reader.read(ChunkIndex(0)).await.expect("it was there");
    let after = reader.stats();
    let moved = [
        after.from_ssd.chunks - before.from_ssd.chunks,
        after.from_origin.chunks - before.from_origin.chunks,
    ];
    let wanted = match tier {
        Tier::Memory => [0, 0],
        Tier::Ssd => [1, 0],
        Tier::Origin => [0, 1],
    };
    assert_eq!(moved, wanted, "reads end in {tier:?}");
    (reader, directory)
}

/// `reads` reads of the first `length` bytes of chunks `from..to` in turn, copied out as the
/// kernel would.
async fn read(reader: ImageReader, reads: u64, length: u32, from: u32, to: u32) {
    let mut out = vec![0; length as usize];
    for index in (from..to).cycle().take(usize::try_from(reads).unwrap_or(usize::MAX)) {
        let chunk = reader.read(ChunkIndex(index)).await.expect("it was there");
        let mut at = 0;
        for slice in chunk.slices(0..length) {
            out[at..at + slice.len()].copy_from_slice(&slice);
            at += slice.len();
        }
        black_box(&out);
    }
}

/// Time of `reads` reads by `readers` at once, each with chunks of its own.
fn measure(runtime: &Runtime, reader: &ImageReader, readers: u32, reads: u64, length: u32) -> Duration {
    let share = CHUNKS / readers;
    let each = reads.div_ceil(u64::from(readers));
    let started = Instant::now();
    let tasks: Vec<_> = (0..readers)
        .map(|n| runtime.spawn(read(reader.clone(), each, length, n * share, (n + 1) * share)))
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("no read fails");
    }
    started.elapsed()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    for (tier, name, lengths) in [
        (Tier::Memory, "memory", &[SMALL, WHOLE][..]),
        (Tier::Ssd, "ssd", &[WHOLE]),
        (Tier::Origin, "origin", &[WHOLE]),
    ] {
        let (reader, _directory) = runtime.block_on(reader(tier));
        let mut group = criterion.benchmark_group(format!("read_path/{name}"));
        for &length in lengths {
            group.throughput(Throughput::Bytes(length.into()));
            for readers in [1, 2] {
                let id = BenchmarkId::new(format!("{} KiB", length / 1024), format!("{readers} readers"));
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|reads| measure(&runtime, &reader, readers, reads, length));
                });
            }
        }
        group.finish();
    }
    criterion.final_summary();
}
