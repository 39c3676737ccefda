//! How evenly chunks lie on nodes, what moves when members change, and what a table costs.
//!
//! `cargo bench -p fleet --bench placement`. Prints tables; the decision that they led to is
//! `docs/decisions/0008-placement.md`.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a bench prints its result and stops on error")]

use fleet::members::{Members, Node};
use fleet::ring::{Ring, RingSettings};
use image_format::ids::ChunkId;
use std::sync::Arc;
use std::time::Instant;

const CHUNKS: u32 = 1_000_000;

/// `count` nodes in `zones` zones in turn, in none if that is 0; weights in turn.
fn fleet(count: usize, zones: usize, weights: &[u32]) -> Vec<Node> {
    let node = |at: usize| Node {
        name: format!("cache-{at}"),
        address: format!("10.0.{}.{}:7400", at / 250, at % 250),
        zone: at.checked_rem(zones).map(|zone| format!("zone-{zone}")).unwrap_or_default(),
        weight: weights[at % weights.len()],
    };
    (0..count).map(node).collect()
}

fn ring(nodes: Vec<Node>, epsilon: f64) -> Ring {
    let members = Members::new(nodes).expect("nodes that can be");
    Ring::new(Arc::new(members), RingSettings { width: 5, epsilon })
}

/// Shards on the fullest node, per unit of weight, against the mean: of the table's places
/// and of the chunks.
fn fullest(ring: &Ring, partitions: &[u32]) -> (f64, f64) {
    let nodes = ring.members().nodes();
    let mut shards = vec![0_u32; nodes.len()];
    for &partition in partitions {
        for &node in ring.nodes_of(partition) {
            shards[usize::from(node)] += 1;
        }
    }
    let weights: u32 = nodes.iter().map(|node| node.weight).sum();
    let most = |loads: &[u32]| {
        let mean = f64::from(loads.iter().sum::<u32>()) / f64::from(weights);
        let loads = loads.iter().zip(nodes).map(|(&load, node)| f64::from(load) / f64::from(node.weight));
        loads.fold(0.0, f64::max) / mean
    };
    (most(&ring.loads()), most(&shards))
}

/// Milliseconds of the fastest and the median of some tables.
fn cost(nodes: &[Node]) -> (f64, f64) {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let members = Arc::new(Members::new(nodes.to_vec()).expect("nodes that can be"));
            let start = Instant::now();
            std::hint::black_box(Ring::new(members, RingSettings::default()));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn main() {
    let any = ring(fleet(5, 0, &[1]), 0.1);
    let partitions: Vec<u32> =
        (0..CHUNKS).map(|name| any.partition(&ChunkId::of(&name.to_le_bytes()))).collect();
    println!(
        "{CHUNKS} chunks, width 5; moved: places on other nodes, as a multiple of the changed node's share"
    );
    println!("nodes zones weights epsilon  max/mean places  max/mean chunks  moved by join  by leave");
    let weights: [&[u32]; 2] = [&[1], &[1, 2, 4]];
    let fleets = [0, 3, 5]
        .into_iter()
        .flat_map(|zones| [5, 6, 8, 10, 15, 20, 30, 40, 50, 100, 200].map(|n| (n, zones, 0)));
    let weighted = [20, 50, 200].map(|n| (n, 0, 1));
    for (count, zones, weight) in fleets.chain(weighted) {
        for epsilon in [0.1, 0.05] {
            let weight = weights[weight];
            let before = ring(fleet(count, zones, weight), epsilon);
            let after = ring(fleet(count + 1, zones, weight), epsilon);
            let total: u32 = after.members().nodes().iter().map(|node| node.weight).sum();
            let share = f64::from(weight[count % weight.len()]) / f64::from(total);
            let (places, chunks) = fullest(&before, &partitions);
            let (join, leave) = (after.moved_from(&before) / share, before.moved_from(&after) / share);
            let weights = if weight.len() == 1 { "equal" } else { "1,2,4" };
            println!(
                "{count:5} {zones:5} {weights:>7} {epsilon:7.2} {places:16.3} {chunks:16.3} {join:14.2} {leave:9.2}"
            );
        }
    }
    println!("\nnodes zones  a table: fastest ms, median ms");
    for (count, zones) in [(10, 0), (50, 5), (200, 0), (200, 5), (1000, 10)] {
        let (fastest, median) = cost(&fleet(count, zones, &[1]));
        println!("{count:5} {zones:5} {fastest:11.1} {median:10.1}");
    }
    let nodes = ring(fleet(200, 5, &[1]), 0.1);
    let ids: Vec<ChunkId> = (0..CHUNKS).map(|name| ChunkId::of(&name.to_le_bytes())).collect();
    let start = Instant::now();
    let sum: u64 = ids.iter().map(|id| u64::from(nodes.place(id)[0])).sum();
    let each = start.elapsed().as_nanos() as f64 / f64::from(CHUNKS);
    println!("\na look-up: {each:.1} ns (sum {sum})");
}
