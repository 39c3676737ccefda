//! What the fifth shard does to the tail: the fleet's client over nodes in memory whose
//! answers are delayed by the same distribution in both modes. No network and no processor
//! of a node is in the way, so what differs is the code alone.
//!
//! Injected, for each call: a base that is log-normal around 200 µs (σ 0.25, as replies of a
//! network vary), and with the stated share a straggler of 2 to 10 ms, evenly spread, instead.

use fleet::client::{Fleet, FleetSettings};
use fleet::members::{Members, Node};
use fleet::stripe::Code;
use fleet::transport::{CallError, MemoryTransport, Transport};
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const READS: usize = 4000;
const ROUNDS: usize = 5;

/// SplitMix64: both modes see delays of the same sequence of seeds.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// The delay of the `nth` call, with `stragglers` per cent.
fn delay(nth: u64, stragglers: f64) -> Duration {
    let (a, b, c) = (mix(nth * 3), mix(nth * 3 + 1), mix(nth * 3 + 2));
    if unit(a) * 100.0 < stragglers {
        return Duration::from_secs_f64(0.002 + 0.008 * unit(b));
    }
    let normal = (-2.0 * unit(b).ln()).sqrt() * (std::f64::consts::TAU * unit(c)).cos();
    Duration::from_secs_f64(200e-6 * (0.25 * normal).exp())
}

type Alarm = (Instant, oneshot::Sender<()>);

/// Tokio's timers count milliseconds: this thread wakes callers to some ten microseconds.
fn clock() -> Sender<Alarm> {
    let (sender, receiver) = channel::<Alarm>();
    std::thread::spawn(move || {
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let (mut order, mut waiting) = (BinaryHeap::new(), std::collections::HashMap::new());
        let mut number = 0_u64;
        loop {
            let wait = match order.peek() {
                Some(Reverse((at, _))) => Instant::saturating_duration_since(at, Instant::now()),
                None => Duration::from_secs(3600),
            };
            match receiver.recv_timeout(wait) {
                Ok((at, wake)) => {
                    number += 1;
                    order.push(Reverse((at, number)));
                    waiting.insert(number, wake);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Some(&Reverse((at, which))) = order.peek() {
                if at > Instant::now() {
                    break;
                }
                order.pop();
                if let Some(wake) = waiting.remove(&which) {
                    let _ = wake.send(());
                }
            }
        }
    });
    sender
}

/// Nodes in memory behind the delays.
#[derive(Debug)]
struct Delayed {
    nodes: MemoryTransport,
    clock: Mutex<Sender<Alarm>>,
    stragglers: f64,
    calls: std::sync::atomic::AtomicU64,
}

#[async_trait::async_trait]
impl Transport for Delayed {
    async fn get(&self, node: &Node, id: &ChunkId) -> Result<Option<bytes::Bytes>, CallError> {
        let nth = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (wake, woken) = oneshot::channel();
        let at = Instant::now() + delay(nth, self.stragglers);
        self.clock.lock().unwrap().send((at, wake)).unwrap();
        let _ = woken.await;
        self.nodes.get(node, id).await
    }

    async fn put(&self, node: &Node, id: &ChunkId, record: [bytes::Bytes; 2]) -> Result<(), CallError> {
        self.nodes.put(node, id, record).await
    }

    async fn remove(&self, node: &Node, id: &ChunkId) -> Result<(), CallError> {
        self.nodes.remove(node, id).await
    }
}

fn chunk(n: u32) -> VerifiedChunk {
    let mut bytes = vec![0; 512 << 10];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let id = ChunkId::of(&bytes);
    SealedChunk::new(bytes.into()).verify(&id).unwrap()
}

fn quantile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

async fn measure(code: Code, stragglers: f64, clock: &Sender<Alarm>, round: usize) -> Vec<u64> {
    let transport = Arc::new(Delayed {
        nodes: MemoryTransport::new(1),
        clock: Mutex::new(clock.clone()),
        stragglers,
        calls: std::sync::atomic::AtomicU64::new((round as u64) << 32),
    });
    let members = (0..10).map(|n| Node { name: format!("n{n}"), ..Node::at(&format!("10.0.0.{}:1", n + 1)) });
    let settings = FleetSettings { code, deadline: Duration::from_secs(1), ..FleetSettings::default() };
    let fleet = Fleet::new(settings, Members::new(members.collect()).unwrap(), transport).unwrap();
    let mut ids = Vec::new();
    for n in 0..40 {
        let chunk = chunk(n);
        assert!(fleet.put(&chunk).await.readable(code));
        ids.push(*chunk.id());
    }
    let mut took = Vec::with_capacity(READS);
    for n in 0..READS {
        let begun = Instant::now();
        fleet.get(&ids[n % ids.len()]).await.unwrap().unwrap();
        took.push(u64::try_from(begun.elapsed().as_micros()).unwrap());
    }
    took
}

/// Prints both distributions for several shares of stragglers. Exits with 1 if 4-of-5 does
/// not beat 4-of-4 by the published margins (ATC'23 figure 9).
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let clock = clock();
    let published = [(50, -10.0), (90, -35.0), (95, -47.0), (98, -56.0)];
    let mut missed = false;
    println!(
        "\nThe tail: a chunk (512 KiB) from its shards, {ROUNDS} rounds of {READS} reads in each mode, in turn"
    );
    println!("  base log-normal, median 200 µs, σ 0.25; stragglers 2 to 10 ms");
    for stragglers in [1.0, 2.0, 3.0, 5.0] {
        let (mut four, mut five) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            four.extend(runtime.block_on(measure(Code::new(4, 0).unwrap(), stragglers, &clock, round)));
            five.extend(runtime.block_on(measure(Code::PUBLISHED, stragglers, &clock, round)));
        }
        four.sort_unstable();
        five.sort_unstable();
        println!("  {stragglers} % of replies straggle     p50     p90     p95     p98     p99  (µs)");
        for (name, sorted) in [("4-of-4", &four), ("4-of-5", &five)] {
            let at = |q| quantile(sorted, q);
            let (p50, p90, p95, p98, p99) = (at(50), at(90), at(95), at(98), at(99));
            println!("    {name:<20} {p50:>8} {p90:>7} {p95:>7} {p98:>7} {p99:>7}");
        }
        print!("    difference          ");
        for (q, wanted) in published {
            let change = 100.0 * (quantile(&five, q) as f64 / quantile(&four, q) as f64 - 1.0);
            missed |= change > wanted;
            print!(" {change:>+6.0}{}", if change > wanted { "!" } else { "%" });
        }
        println!("   (published: -10 % -35 % -47 % -56 %)");
    }
    if missed {
        println!("  ! misses the published difference");
        std::process::exit(1);
    }
}
