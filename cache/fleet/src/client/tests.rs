//! The client against nodes in memory, under a paused clock.

use super::*;
use crate::transport::{MemoryTransport, NodeFaults};
use image_format::chunk::SealedChunk;

const NODES: usize = 8;

struct World {
    fleet: Fleet,
    nodes: Arc<MemoryTransport>,
}

fn members(names: impl Iterator<Item = usize>) -> Members {
    Members::new(
        names.map(|n| Node { name: format!("n{n}"), ..Node::at(&format!("10.0.0.{n}:1")) }).collect(),
    )
    .unwrap()
}

fn world(change: impl FnOnce(&mut FleetSettings)) -> World {
    let nodes = Arc::new(MemoryTransport::new(1));
    let mut settings = FleetSettings::default();
    change(&mut settings);
    let fleet = Fleet::new(settings, members(1..=NODES), nodes.clone()).unwrap();
    World { fleet, nodes }
}

fn chunk(n: u32) -> VerifiedChunk {
    let bytes: Vec<u8> = (0..50_000_u32).map(|i| (i.wrapping_mul(n + 7) >> 5).to_le_bytes()[0]).collect();
    let bytes = Bytes::from(bytes);
    let id = ChunkId::of(&bytes);
    SealedChunk::new(bytes).verify(&id).unwrap()
}

impl World {
    async fn stored(&self, n: u32) -> VerifiedChunk {
        let chunk = chunk(n);
        assert_eq!(self.fleet.put(&chunk).await, Stored { shards: 5, width: 5 });
        chunk
    }

    fn places(&self, id: &ChunkId) -> Vec<String> {
        let ring = self.fleet.ring().unwrap();
        ring.place(id).iter().map(|&at| ring.members().nodes()[usize::from(at)].name.clone()).collect()
    }

    async fn reads(&self, chunk: &VerifiedChunk) {
        let got = self.fleet.get(chunk.id()).await.unwrap().expect("the fleet has the chunk");
        assert_eq!(got.sealed_bytes(), chunk.sealed_bytes());
    }

    /// Until everything that was begun is done.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_is_read_and_what_was_not_is_missed() {
    let world = world(|_| {});
    let chunk = world.stored(1).await;
    world.reads(&chunk).await;
    assert!(world.fleet.get(&ChunkId::of(b"other")).await.unwrap().is_none());
    assert_eq!(world.fleet.remove(chunk.id()).await, 5);
    assert!(world.fleet.get(chunk.id()).await.unwrap().is_none());
    let metrics = world.fleet.metrics();
    assert_eq!((metrics.gets, metrics.hits, metrics.misses, metrics.wrong_shards), (3, 1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn any_one_node_may_be_down_silent_slow_or_empty() {
    let faults = [
        NodeFaults { down: true, ..NodeFaults::default() },
        NodeFaults { silent: true, ..NodeFaults::default() },
        NodeFaults { delay: Duration::from_secs(9), ..NodeFaults::default() },
        NodeFaults { lying: 1000, ..NodeFaults::default() },
    ];
    for faults in faults {
        let world = world(|_| {});
        let chunk = world.stored(2).await;
        for node in world.places(chunk.id()) {
            world.nodes.set_faults(&node, faults);
            world.reads(&chunk).await;
            world.nodes.set_faults(&node, NodeFaults::default());
            world.quiet().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_shard_is_written_again() {
    let world = world(|_| {});
    let chunk = world.stored(3).await;
    let [first, second, ..] = &world.places(chunk.id())[..] else { panic!("five places") };
    world.nodes.wipe(first);
    world.reads(&chunk).await;
    world.quiet().await;
    assert_eq!((world.nodes.held(first), world.fleet.metrics().repaired_shards), (1, 1));
    world.nodes.wipe(second);
    world.reads(&chunk).await;
}

#[tokio::test(start_paused = true)]
async fn wrong_shards_are_found_and_replaced() {
    let world = world(|_| {});
    let chunk = world.stored(4).await;
    for (at, node) in world.places(chunk.id()).into_iter().enumerate() {
        let before = world.fleet.metrics();
        // a right checksum over wrong bytes: only the chunk's id tells
        world.nodes.alter(&node, chunk.id(), |record| {
            let mut record = crate::wire::ShardRecord::decode(chunk.id(), &record).unwrap();
            record.payload = vec![u8::try_from(at).unwrap(); record.payload.len()].into();
            record.to_bytes(chunk.id())
        });
        // the fifth shard may not be needed at first: read until the wrong one was met
        for _ in 0..3 {
            world.reads(&chunk).await;
            world.quiet().await;
        }
        let others: Vec<_> = world.places(chunk.id()).into_iter().filter(|name| *name != node).collect();
        world.nodes.set_faults(&others[0], NodeFaults { down: true, ..NodeFaults::default() });
        if world.fleet.metrics().wrong_shards > before.wrong_shards {
            world.reads(&chunk).await;
        }
        world.nodes.set_faults(&others[0], NodeFaults::default());
        world.stored(4).await;
        world.quiet().await;
    }
    assert!(world.fleet.metrics().wrong_shards >= 4, "{:?}", world.fleet.metrics());
}

#[tokio::test(start_paused = true)]
async fn too_many_wrong_shards_are_a_miss_and_never_a_wrong_byte() {
    let world = world(|_| {});
    let chunk = world.stored(5).await;
    for node in world.places(chunk.id()) {
        world.nodes.set_faults(&node, NodeFaults { lying: 1000, ..NodeFaults::default() });
    }
    assert!(world.fleet.get(chunk.id()).await.unwrap().is_none());
    for node in world.places(chunk.id()) {
        world.nodes.set_faults(&node, NodeFaults::default());
        world.nodes.alter(&node, chunk.id(), |_| Bytes::from_static(b"garbage"));
    }
    assert!(world.fleet.get(chunk.id()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_fleet_costs_the_deadline_and_then_nothing() {
    let world = world(|_| {});
    for n in 1..=NODES {
        world.nodes.set_faults(&format!("n{n}"), NodeFaults { silent: true, ..NodeFaults::default() });
    }
    let begun = Instant::now();
    assert!(world.fleet.get(chunk(6).id()).await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_millis(50));
    for n in 7..40 {
        assert!(world.fleet.get(chunk(n).id()).await.is_err());
    }
    let before = world.nodes.calls();
    let begun = Instant::now();
    assert!(world.fleet.get(chunk(41).id()).await.is_err());
    assert!(begun.elapsed() < Duration::from_millis(1), "nodes are left alone");
    assert!(world.nodes.calls() <= before + 5, "each node is tried at most once");
}

#[tokio::test(start_paused = true)]
async fn failures_cost_at_most_a_tenth_more_requests() {
    let world = world(|_| {});
    for n in 1..=NODES {
        world.nodes.set_faults(&format!("n{n}"), NodeFaults { failing: 1000, ..NodeFaults::default() });
    }
    for n in 0..400 {
        assert!(world.fleet.get(chunk(n % 50).id()).await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = world.fleet.metrics();
    assert!(metrics.calls <= 400 * 5 * 11 / 10 && metrics.retries <= metrics.calls / 10, "{metrics:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_grows_or_shrinks_by_one_keeps_its_chunks() {
    let world = world(|_| {});
    let mut chunks = Vec::new();
    for n in 0..60 {
        chunks.push(world.stored(n).await);
    }
    for fleet in [members(1..=NODES + 1), members(1..=NODES), members(1..NODES)] {
        world.fleet.set_members(fleet).unwrap();
        for chunk in &chunks {
            world.reads(chunk).await;
        }
        world.quiet().await;
    }
    assert!(world.fleet.metrics().repaired_shards > 0, "{:?}", world.fleet.metrics());
    assert!(world.fleet.set_members(members(1..4)).is_err(), "three nodes hold no 4+1 stripes");
    world.reads(&chunks[0]).await;
}

#[tokio::test(start_paused = true)]
async fn reads_above_the_limit_end_at_once() {
    let world = world(|settings| settings.reads = 2);
    for n in 1..=NODES {
        world.nodes.set_faults(
            &format!("n{n}"),
            NodeFaults { delay: Duration::from_millis(5), ..NodeFaults::default() },
        );
    }
    let chunk = chunk(1);
    let begun = Instant::now();
    let (a, b, c) =
        tokio::join!(world.fleet.get(chunk.id()), world.fleet.get(chunk.id()), world.fleet.get(chunk.id()));
    assert!(a.unwrap().is_none() && b.unwrap().is_none() && c.is_err());
    assert!(begun.elapsed() < Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn wider_codes_survive_more() {
    let world = world(|settings| settings.code = Code::new(4, 2).unwrap());
    let chunk = chunk(1);
    assert_eq!(world.fleet.put(&chunk).await.shards, 6);
    for node in &world.places(chunk.id())[..2] {
        world.nodes.set_faults(node, NodeFaults { down: true, ..NodeFaults::default() });
    }
    world.reads(&chunk).await;
}
