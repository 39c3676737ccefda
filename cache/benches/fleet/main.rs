//! The fleet, measured: what a node costs, what a chunk costs at the agent, what one node
//! moves, and what the fifth shard does to the tail.
//!
//! `cargo bench --workspace --bench fleet`: starts nodes of its own on loopback, prints tables.
//! On a virtual machine keep the processors awake meanwhile, or every reply includes the time
//! it takes to wake one: `chrt --idle 0 sh -c 'while :; do :; done' &`, once per processor.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench prints its result and stops on error"
)]

mod nodes;
mod tail;

use cache::l2::L2Tier;
use cache::metrics::{Histogram, HistogramSnapshot};
use cache::node::NodeStatus;
use cache::prefetch::WindowSettings;
use cache::read_path::{ReadPath, ReadPathSettings};
use fleet::client::{Fleet, FleetSettings};
use fleet::members::Members;
use fleet::stripe::Code;
use fleet::transport::{HttpTransport, Transport, TransportSettings};
use fleet::wire::ShardHeader;
use image_format::chunk::VerifiedChunk;
use image_format::ids::{ChunkId, ImageDigest};
use image_format::manifest::{Entry, Manifest, ManifestHead};
use image_format::seal::{Compression, Salt, Sealer};
use image_format::units::{CHUNK_SIZE, ChunkIndex};
use nodes::Nodes;
use origin::memory::MemoryStore;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Chunks that are read over and over: more than a processor's cache holds.
const CHUNKS: u32 = 200;

fn line(name: &str, of: HistogramSnapshot) {
    let HistogramSnapshot { count, p50_us, p90_us, p99_us, max_us, .. } = of;
    println!("  {name:<44} {count:>7} {p50_us:>7} {p90_us:>7} {p99_us:>7} {max_us:>8}");
}

fn head(what: &str) {
    println!(
        "\n{what}\n  {:<44} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "", "count", "p50 µs", "p90 µs", "p99 µs", "max µs"
    );
}

/// An image of chunks that do not compress, with its sealed chunks.
fn image() -> (Arc<Manifest>, Vec<VerifiedChunk>) {
    let root = "r1".parse().unwrap();
    let mut sealer = Sealer::new(Salt::derive(&root, &[0; 32]), Compression::Off).unwrap();
    let (mut entries, mut keys, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..CHUNKS {
        let mut plain = vec![0; CHUNK_SIZE.as_usize()];
        blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut plain);
        let sealed = sealer.seal(&plain).unwrap();
        let stored_len = u32::try_from(sealed.bytes.len()).unwrap();
        entries.push(Entry { index: ChunkIndex(index), id: sealed.id, stored_len, codec: sealed.codec });
        chunks.push(VerifiedChunk::from(&sealed));
        keys.push(sealed.key);
    }
    let head = ManifestHead {
        image: ImageDigest::from_bytes([1; 32]),
        layout_policy: 1,
        chunk_size: CHUNK_SIZE,
        device_len: u64::from(CHUNKS) * u64::from(CHUNK_SIZE.bytes()),
        root,
        tenant: "t".parse().unwrap(),
    };
    (Arc::new(Manifest::new(head, entries, keys, vec![]).unwrap()), chunks)
}

fn fleet(members: Members) -> Fleet {
    let settings = FleetSettings { deadline: Duration::from_secs(5), ..FleetSettings::default() };
    Fleet::new(settings, members, Arc::new(HttpTransport::new(TransportSettings::default()))).unwrap()
}

/// What each request costs the node, by its own clock: reads from memory, reads from SSD in
/// the kernel's cache, writes.
async fn node_side(nodes: &Nodes) {
    let status = |statuses: &[NodeStatus], operation: &str| {
        let mut slowest = HistogramSnapshot::default();
        for status in statuses {
            let of = status.operation(operation);
            if of.p50_us >= slowest.p50_us && of.count > 0 {
                slowest = of;
            }
        }
        slowest
    };
    let statuses = nodes.statuses().await;
    head("One node, by its own clock: from a request's headers to its answer's (the slowest of six)");
    line("GET of a shard (128 KiB), in memory", status(&statuses, "get_memory"));
    line("GET of a shard, on SSD", status(&statuses, "get_ssd"));
    line("PUT of a shard, its transfer included", status(&statuses, "put"));
    line("PUT of a shard, once it was received", status(&statuses, "put_store"));
}

/// Chunks read by a worker whose memory holds none: asked, four of five shards, verified,
/// decrypted.
async fn agent_side(nodes: &Nodes, manifest: &Arc<Manifest>) {
    let settings = ReadPathSettings {
        memory_bytes: 0,
        window: WindowSettings { first: 0, ..WindowSettings::default() },
        ..ReadPathSettings::default()
    };
    let fleet = fleet(nodes.members());
    let path =
        ReadPath::new(settings, Arc::new(MemoryStore::new()), vec![Arc::new(L2Tier::new(fleet.clone()))]);
    let reader = path.open_image(Arc::clone(manifest));
    for round in 0..10 {
        for index in 0..CHUNKS {
            reader.read(ChunkIndex(index)).await.unwrap();
        }
        if round == 0 {
            continue;
        }
    }
    head("A chunk (512 KiB) at the agent, from L2 on loopback: verified, decrypted, ready");
    line("one after another", path.metrics().sources[2].latency);
    println!("  {} of {} needed parity", fleet.metrics().reconstructed, fleet.metrics().hits);
}

/// What one node moves when it is asked without a pause.
async fn one_node(nodes: &Nodes, ids: &[ChunkId]) {
    let member = nodes.members().nodes()[0].clone();
    let transport = Arc::new(HttpTransport::new(TransportSettings::default()));
    let (mut held, mut bytes) = (Vec::new(), 0_u64);
    for id in ids {
        if transport.get(&member, id).await.unwrap().is_some() {
            held.push(*id);
        }
    }
    let held: Arc<[ChunkId]> = held.into();
    let (begun, cpu) = (Instant::now(), nodes.cpu_seconds(0));
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..8 {
        let (transport, member, held) = (Arc::clone(&transport), member.clone(), Arc::clone(&held));
        readers.spawn(async move {
            let mut read = 0;
            for n in 0..3000 {
                let id = &held[(n * 8 + reader) % held.len()];
                read += transport.get(&member, id).await.unwrap().map_or(0, |record| record.len() as u64);
            }
            read
        });
    }
    while let Some(read) = readers.join_next().await {
        bytes += read.unwrap();
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), nodes.cpu_seconds(0) - cpu);
    let megabytes = bytes as f64 / 1e6;
    println!("\nOne node under eight readers without a pause, all on two processors");
    println!(
        "  {:.0} MB/s; the node used {:.2} processors: {:.0} MB/s for each it has to itself",
        megabytes / seconds,
        cpu / seconds,
        megabytes / cpu
    );
}

/// Writes and reads of single shards, one call at a time, so that every node is idle.
async fn exercise(nodes: &Nodes, chunks: &[VerifiedChunk], write: bool) {
    let ring = fleet(nodes.members()).ring().unwrap();
    let transport = HttpTransport::new(TransportSettings::default());
    let code = Code::PUBLISHED;
    let took = Histogram::default();
    for chunk in chunks {
        let sealed = chunk.sealed_bytes();
        let stored_len = u32::try_from(sealed.len()).unwrap();
        for ((index, payload), &at) in (0..).zip(code.encode(sealed)).zip(ring.place(chunk.id())) {
            let node = &ring.members().nodes()[usize::from(at)];
            let header = ShardHeader { index, data: code.data(), parity: code.parity(), stored_len };
            let header = header.encode(chunk.id(), &payload).to_vec().into();
            if write {
                transport.put(node, chunk.id(), [header, payload]).await.unwrap();
                // until the record is on disk, so that the next call meets an idle node
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let begun = Instant::now();
            assert!(transport.get(node, chunk.id()).await.unwrap().is_some());
            took.record(begun.elapsed());
        }
    }
    head("A shard at the client, one call at a time");
    line(if write { "GET over HTTP/2 on loopback" } else { "the same, from SSD" }, took.snapshot());
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (manifest, chunks) = image();
        let ids: Vec<ChunkId> = chunks.iter().map(|chunk| *chunk.id()).collect();
        let mut nodes = Nodes::start(6).await;
        for _ in 0..4 {
            exercise(&nodes, &chunks, true).await;
        }
        // a second life: memory is empty, the kernel still has the files
        nodes.settle().await;
        let first = nodes.statuses().await;
        nodes.restart().await;
        exercise(&nodes, &chunks, false).await;
        nodes.keep(first);
        node_side(&nodes).await;
        agent_side(&nodes, &manifest).await;
        one_node(&nodes, &ids).await;
    });
    drop(runtime);
    tail::run();
}
