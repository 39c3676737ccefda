//! Which nodes hold a chunk: rendezvous hashing over partitions, with bounded loads and zones
//! (ATC'23 section 4; the bound after Mirrokni, Thorup and Zadimoghaddam, 2018).
//!
//! A chunk falls into one of [`Ring::PARTITIONS`] partitions; a table made once per list of
//! members says which nodes hold a partition. The table is a pure function of the members and
//! the settings, so every client has the same one without asking anybody: it depends on no
//! load, no clock, no order of joining, and on no arithmetic that differs between machines.
//!
//! The table: every pair of partition and node has a distance ([`distance`], normative). All
//! pairs are taken in the order of their distance, the nearest first. A pair becomes a place
//! unless its partition already has `width` places, its node is full ([`capacities`]), or the
//! node's zone has its part of the partition ([`zone_limits`]). A full node so keeps what is
//! nearest to it, and only its farthest partitions go on to their next node; the result does
//! not depend on who came first, and a change of members moves little more than it must.
//!
//! A partition that is short of places after that (nodes or zones too unequal) gets the node
//! that goes least over its capacity, then the one that goes least over its zone's limit.
//!
//! Invariants: the nodes of a partition are distinct; there are `width` of them, or all where
//! the fleet is smaller. Their order is no part of a stripe's layout: a shard carries its
//! index, so only who is in the list matters.

use crate::members::{Members, Node};
use image_format::ids::ChunkId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;

/// What placement depends on besides the members. Part of a fleet's configuration: clients
/// that differ in it look for chunks in different places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RingSettings {
    /// Nodes a chunk is spread over: its data and parity shards.
    pub width: usize,
    /// How far a node's load may go above its fair share, as a part of it. Smaller balances
    /// better; larger moves less when members change. Below zero or no number counts as zero.
    pub epsilon: f64,
}

impl Default for RingSettings {
    /// Five shards, as published, and 0.1: the load then differs less between nodes than
    /// between hours.
    fn default() -> Self {
        Self { width: 5, epsilon: 0.1 }
    }
}

/// The places of all chunks in a fleet.
#[derive(Clone)]
pub struct Ring {
    members: Arc<Members>,
    /// Nodes a partition has: the width, or the fleet's size if that is less.
    width: usize,
    /// `width` positions for every partition, in the order in which they were taken.
    table: Vec<u16>,
}

const PARTITIONS: usize = Ring::PARTITIONS as usize;

impl Ring {
    /// Parts into which all chunks fall. A power of two, so that a chunk's partition is some
    /// of its id's bits. Enough that the bound is rarely needed (50 nodes of width 5 have
    /// 1638 places each, varying by 2.4 %), few enough that the table of a large fleet takes
    /// milliseconds and 160 KiB. Normative: another number places every chunk elsewhere.
    pub const PARTITIONS: u32 = 16384;

    /// The places of all chunks in this fleet. Takes about 0.1 ms a node.
    #[must_use]
    pub fn new(members: Arc<Members>, settings: RingSettings) -> Self {
        let width = settings.width.min(members.nodes().len());
        let table = Filling::new(members.nodes(), width, settings.epsilon).fill();
        Self { members, width, table }
    }

    /// The fleet.
    #[must_use]
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The nodes that hold a chunk's shards, as positions in [`Members::nodes`]: distinct, as
    /// many as the width, fewer only if the fleet is smaller.
    #[must_use]
    pub fn place(&self, id: &ChunkId) -> &[u16] {
        self.nodes_of(self.partition(id))
    }

    /// The part that a chunk falls into, below [`Ring::PARTITIONS`]: the low bits of its id's
    /// last two bytes, little endian (the first bytes are what others index by).
    #[must_use]
    pub fn partition(&self, id: &ChunkId) -> u32 {
        let [.., low, high] = *id.as_bytes();
        u32::from(u16::from_le_bytes([low, high])) % Self::PARTITIONS
    }

    /// The nodes of a partition; none for a partition that does not exist.
    #[must_use]
    pub fn nodes_of(&self, partition: u32) -> &[u16] {
        let start = partition as usize * self.width;
        self.table.get(start..start + self.width).unwrap_or_default()
    }

    /// How many places of all partitions each node has, in the order of [`Members::nodes`].
    #[must_use]
    pub fn loads(&self) -> Vec<u32> {
        let mut loads = vec![0; self.members.nodes().len()];
        for &node in &self.table {
            loads[usize::from(node)] += 1;
        }
        loads
    }

    /// The part of all places, 0 to 1, that are on another node than in `other`, nodes being
    /// told apart by their names: what has to be filled again after a change of members.
    #[must_use]
    pub fn moved_from(&self, other: &Self) -> f64 {
        let theirs: Vec<Option<u16>> = self.members.nodes().iter().map(|node| other.position(node)).collect();
        let moved = (0..Self::PARTITIONS).map(|partition| {
            let held = other.nodes_of(partition);
            let stays = |node: &&u16| theirs[usize::from(**node)].is_some_and(|at| held.contains(&at));
            self.width - self.nodes_of(partition).iter().filter(stays).count()
        });
        moved.sum::<usize>() as f64 / self.table.len().max(1) as f64
    }

    fn position(&self, node: &Node) -> Option<u16> {
        let found = self.members.nodes().binary_search_by(|own| own.name.cmp(&node.name)).ok();
        found.and_then(|at| u16::try_from(at).ok())
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.members.nodes().len();
        f.debug_struct("Ring").field("nodes", &nodes).field("width", &self.width).finish_non_exhaustive()
    }
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of `z`.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A node's part of its distances: [`mix`] of the 64-bit FNV-1a of its name. Normative.
fn node_seed(name: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// A partition's part of its distances. Normative.
fn partition_seed(partition: u32) -> u64 {
    mix((u64::from(partition) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Minus the natural logarithm of `u`, for `u` in (0, 1).
///
/// From additions, multiplications and one division of IEEE doubles, which give the same bits
/// on every machine; a library's `ln` need not. Off by less than 1e-12.
fn minus_ln(u: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = u.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let mut m = f64::from_bits(bits & MANTISSA | 1.0_f64.to_bits());
    // within a factor of √2 of 1, where the series is short
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 1.0 / 11.0 + q * (1.0 / 13.0);
    let series = 1.0 / 7.0 + q * (1.0 / 9.0 + q * series);
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * series));
    -(exponent * std::f64::consts::LN_2 + 2.0 * s * series)
}

/// How far a node is from a partition: exponentially distributed with the node's weight as
/// its rate, so that a node is nearest to a part of the partitions proportional to its
/// weight, and weights elsewhere change nothing (weighted rendezvous hashing). Normative.
///
/// Returned as the bits of a double above zero, which sort as the double does. Equal distances
/// are told apart by partition and then by the order of names.
fn distance(node_seed: u64, weight: u32, partition_seed: u64) -> u64 {
    let hash = mix(node_seed ^ partition_seed);
    // 52 bits as an odd multiple of 2^-53: never 0 or 1
    let above_one = f64::from_bits(hash >> 12 | 1.0_f64.to_bits());
    let uniform = above_one - (1.0 - f64::EPSILON / 2.0);
    (minus_ln(uniform) / f64::from(weight)).to_bits()
}

/// The most places each node may have: `1 + epsilon` times its fair share, rounded up.
///
/// The fair share is the node's part of all weights, except that no node can have more than
/// one place of a partition; what is too much for the heavy is shared among the others.
/// In integers, `epsilon` in millionths, so that no rounding differs.
fn capacities(nodes: &[Node], width: usize, epsilon: f64) -> Vec<u32> {
    const ONE: u128 = 1_000_000;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before; NaN is 0")]
    let factor = ONE + u128::from((epsilon.clamp(0.0, 1000.0) * 1e6).round() as u32);
    let all = u128::from(Ring::PARTITIONS);
    let mut heaviest: Vec<usize> = (0..nodes.len()).collect();
    heaviest.sort_by_key(|&node| Reverse(nodes[node].weight));
    let mut places = all * width as u128;
    let mut weights: u128 = nodes.iter().map(|node| u128::from(node.weight)).sum();
    let mut capacities = vec![Ring::PARTITIONS; nodes.len()];
    for node in heaviest {
        let weight = u128::from(nodes[node].weight);
        if places * weight >= all * weights {
            places = places.saturating_sub(all);
            weights -= weight;
        } else {
            let most = (factor * places * weight).div_ceil(ONE * weights).min(all);
            capacities[node] = u32::try_from(most).unwrap_or(Ring::PARTITIONS);
        }
    }
    capacities
}

/// The most places that one partition may have in each zone: as even as the zones can bear.
///
/// That is the width divided by the zones, rounded up. Where zones are so unequal that their
/// nodes' capacities could not hold every partition that way, the limit of the zone with most
/// capacity to spare is raised, one by one, until they can: a bounded load goes before an
/// even spread.
fn zone_limits(capacity: &[u64], width: usize) -> Vec<usize> {
    let all = u64::from(Ring::PARTITIONS);
    let mut limits = vec![width.div_ceil(capacity.len().max(1)); capacity.len()];
    loop {
        let held = |(&capacity, &limit): (&u64, &usize)| capacity.min(all * limit as u64);
        let room: u64 = capacity.iter().zip(&limits).map(held).sum();
        let spare = |&zone: &usize| capacity[zone].saturating_sub(all * limits[zone] as u64);
        let widest = (0..capacity.len()).rev().max_by_key(spare);
        let Some(zone) = widest.filter(|zone| room < all * width as u64 && spare(zone) > 0) else {
            return limits;
        };
        limits[zone] += 1;
    }
}

/// A node and how far it is from the partition at hand; sorts by that.
type Candidate = (u64, u16);

/// Candidates looked up for a partition at first; doubled when they are used up.
const FIRST_CANDIDATES: usize = 16;

/// The nodes nearest to a partition, and how many of them were considered.
#[derive(Default)]
struct Queue {
    nearest: Vec<Candidate>,
    considered: usize,
}

/// The table while it is being made.
struct Filling {
    width: usize,
    /// Of each node: seed, weight and zone.
    nodes: Vec<(u64, u32, usize)>,
    capacity: Vec<u32>,
    load: Vec<u32>,
    zone_limit: Vec<usize>,
    queues: Vec<Queue>,
    places: Vec<Vec<u16>>,
}

impl Filling {
    fn new(nodes: &[Node], width: usize, epsilon: f64) -> Self {
        let mut zones: BTreeMap<&str, usize> = nodes.iter().map(|node| (node.zone.as_str(), 0)).collect();
        for (number, zone) in zones.values_mut().enumerate() {
            *zone = number;
        }
        let capacity = capacities(nodes, width, epsilon);
        let mut of_zone = vec![0; zones.len()];
        for (node, &most) in nodes.iter().zip(&capacity) {
            of_zone[zones[node.zone.as_str()]] += u64::from(most);
        }
        let node = |node: &Node| (node_seed(&node.name), node.weight, zones[node.zone.as_str()]);
        Self {
            width,
            nodes: nodes.iter().map(node).collect(),
            load: vec![0; nodes.len()],
            capacity,
            zone_limit: zone_limits(&of_zone, width),
            queues: (0..PARTITIONS).map(|_| Queue::default()).collect(),
            places: (0..PARTITIONS).map(|_| Vec::with_capacity(width)).collect(),
        }
    }

    /// The `count` nodes nearest to a partition, in order.
    fn nearest(&self, partition: u32, count: usize) -> Vec<Candidate> {
        let at = partition_seed(partition);
        let candidate = |(position, &(seed, weight, _)): (u16, &(u64, u32, usize))| {
            (distance(seed, weight, at), position)
        };
        let mut all: Vec<Candidate> = (0..).zip(&self.nodes).map(candidate).collect();
        if count < all.len() {
            all.select_nth_unstable(count);
            all.truncate(count);
        }
        all.sort_unstable();
        all
    }

    /// How many places a partition has in a zone.
    fn in_zone(&self, partition: u32, zone: usize) -> usize {
        let same = |node: &&u16| self.nodes[usize::from(**node)].2 == zone;
        self.places[partition as usize].iter().filter(same).count()
    }

    fn has_room(&self, node: u16) -> bool {
        self.load[usize::from(node)] < self.capacity[usize::from(node)]
    }

    /// The next pair of a partition that is short of places which may still become one. What
    /// is passed over stays so: loads and zones only fill up.
    fn next(&mut self, partition: u32) -> Option<Reverse<(u64, u32, u16)>> {
        while self.places[partition as usize].len() < self.width {
            let queue = &self.queues[partition as usize];
            let Some(&(far, node)) = queue.nearest.get(queue.considered) else {
                let known = queue.nearest.len();
                if known == self.nodes.len() {
                    return None;
                }
                let nearest = self.nearest(partition, (2 * known).max(FIRST_CANDIDATES));
                self.queues[partition as usize].nearest = nearest;
                continue;
            };
            self.queues[partition as usize].considered += 1;
            let zone = self.nodes[usize::from(node)].2;
            if self.has_room(node) && self.in_zone(partition, zone) < self.zone_limit[zone] {
                return Some(Reverse((far, partition, node)));
            }
        }
        None
    }

    fn take(&mut self, partition: u32, node: u16) {
        self.load[usize::from(node)] += 1;
        self.places[partition as usize].push(node);
    }

    /// Takes pairs in the order of their distance; of each partition only the next one waits.
    fn fill(mut self) -> Vec<u16> {
        let mut waiting = BinaryHeap::with_capacity(PARTITIONS);
        for partition in 0..Ring::PARTITIONS {
            waiting.extend(self.next(partition));
        }
        while let Some(Reverse((_, partition, node))) = waiting.pop() {
            if self.has_room(node) {
                self.take(partition, node);
            }
            waiting.extend(self.next(partition));
        }
        for partition in 0..Ring::PARTITIONS {
            while self.places[partition as usize].len() < self.width {
                let Some(node) = self.least_bad(partition) else { break };
                self.take(partition, node);
            }
        }
        self.places.concat()
    }

    /// The node that breaks a bound the least, for a partition that no other could help.
    fn least_bad(&self, partition: u32) -> Option<u16> {
        let places = &self.places[partition as usize];
        let others = self.nearest(partition, self.nodes.len()).into_iter();
        let cost = |&(far, node): &Candidate| {
            let (at, zone) = (usize::from(node), self.nodes[usize::from(node)].2);
            let over = (self.load[at] + 1).saturating_sub(self.capacity[at]);
            let crowd = (self.in_zone(partition, zone) + 1).saturating_sub(self.zone_limit[zone]);
            (over, crowd, far, node)
        };
        others.filter(|(_, node)| !places.contains(node)).min_by_key(cost).map(|(_, node)| node)
    }
}

#[cfg(test)]
mod tests;
