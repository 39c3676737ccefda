//! How the table of places is made: who may hold how much, and pairs taken in the order of
//! their distance. Pure; used by [`Ring`] alone, whose header says what it achieves.
//!
//! Invariants while it is made: `load` counts `places`; no node is twice in a partition.

use super::Ring;
use super::distance::{distance, distance_within, node_seed, partition_seed};
use crate::members::Node;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub(super) const PARTITIONS: usize = Ring::PARTITIONS as usize;

/// The most places each node may have: `1 + epsilon` times its fair share, rounded up.
///
/// The fair share is the node's part of all weights, except that no node can have more than
/// one place of a partition; what is too much for the heavy is shared among the others.
/// In integers, `epsilon` in millionths, so that no rounding differs.
pub(super) fn capacities(nodes: &[Node], width: usize, epsilon: f64) -> Vec<u32> {
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
pub(super) fn zone_limits(capacity: &[u64], width: usize) -> Vec<usize> {
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

/// About how many candidates are looked up for a partition at first; doubled when they are
/// used up.
const FIRST_CANDIDATES: f64 = 16.0;

/// The nodes within a radius of a partition, in order, and how many of them were considered.
#[derive(Default)]
struct Queue {
    radius: f64,
    nearest: Vec<Candidate>,
    considered: usize,
}

/// The table while it is being made.
pub(super) struct Filling {
    width: usize,
    /// Of each node: seed, weight and zone.
    pub(super) nodes: Vec<(u64, f64, usize)>,
    pub(super) capacity: Vec<u32>,
    load: Vec<u32>,
    pub(super) zone_limit: Vec<usize>,
    /// Within which a partition has about [`FIRST_CANDIDATES`] nodes.
    first_radius: f64,
    queues: Vec<Queue>,
    places: Vec<Vec<u16>>,
    /// Of each node, the first partition not yet looked at for one that can do without it.
    spared: Vec<u32>,
}

impl Filling {
    pub(super) fn new(nodes: &[Node], width: usize, epsilon: f64) -> Self {
        let mut zones: BTreeMap<&str, usize> = nodes.iter().map(|node| (node.zone.as_str(), 0)).collect();
        for (number, zone) in zones.values_mut().enumerate() {
            *zone = number;
        }
        let capacity = capacities(nodes, width, epsilon);
        let mut of_zone = vec![0; zones.len()];
        for (node, &most) in nodes.iter().zip(&capacity) {
            of_zone[zones[node.zone.as_str()]] += u64::from(most);
        }
        let node = |node: &Node| (node_seed(&node.name), f64::from(node.weight), zones[node.zone.as_str()]);
        let weights: f64 = nodes.iter().map(|node| f64::from(node.weight)).sum();
        let few = nodes.len() as f64 <= 2.0 * FIRST_CANDIDATES;
        Self {
            width,
            first_radius: if few { f64::INFINITY } else { FIRST_CANDIDATES / weights },
            nodes: nodes.iter().map(node).collect(),
            load: vec![0; nodes.len()],
            capacity,
            zone_limit: zone_limits(&of_zone, width),
            queues: (0..PARTITIONS).map(|_| Queue::default()).collect(),
            spared: vec![0; nodes.len()],
            places: (0..PARTITIONS).map(|_| Vec::with_capacity(width)).collect(),
        }
    }

    /// The nodes within a radius of a partition, in order.
    fn nearest(&self, partition: u32, radius: f64) -> Vec<Candidate> {
        let at = partition_seed(partition);
        let within = |(node, &(seed, weight, _)): (u16, &(u64, f64, usize))| {
            let far = distance_within(radius, seed, weight, at)?;
            (far < radius.to_bits()).then_some((far, node))
        };
        let mut nearest: Vec<Candidate> = (0..).zip(&self.nodes).filter_map(within).collect();
        nearest.sort_unstable();
        nearest
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
                if queue.nearest.len() == self.nodes.len() {
                    return None;
                }
                let radius = (2.0 * queue.radius).max(self.first_radius);
                let nearest = self.nearest(partition, radius);
                let queue = &mut self.queues[partition as usize];
                (queue.radius, queue.nearest) = (radius, nearest);
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
    pub(super) fn fill(mut self) -> Vec<u16> {
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
                let Some(node) = self.freed(partition).or_else(|| self.least_bad(partition)) else { break };
                self.take(partition, node);
            }
        }
        self.places.concat()
    }

    /// The nearest node that a partition may have within all bounds, once another partition
    /// took a node with room in its stead.
    ///
    /// Every node's partitions are looked through once, in order: what one of them could not
    /// spare is not asked for again, so that this takes no longer than making the distances.
    fn freed(&mut self, partition: u32) -> Option<u16> {
        for (_, node) in self.nearest(partition, f64::INFINITY) {
            let zone = self.nodes[usize::from(node)].2;
            let fits = self.in_zone(partition, zone) < self.zone_limit[zone];
            if !fits || self.places[partition as usize].contains(&node) {
                continue;
            }
            while !self.has_room(node) && self.spared[usize::from(node)] < Ring::PARTITIONS {
                let other = self.spared[usize::from(node)];
                self.spared[usize::from(node)] += 1;
                self.exchange(other, node);
            }
            if self.has_room(node) {
                return Some(node);
            }
        }
        None
    }

    /// Replaces a node of a partition by one that has room, if it has it and there is one.
    fn exchange(&mut self, partition: u32, node: u16) {
        let places = &self.places[partition as usize];
        let Some(slot) = places.iter().position(|&place| place == node) else { return };
        let old = self.nodes[usize::from(node)].2;
        let with_room =
            (0..).zip(&self.nodes).filter(|(other, _)| self.has_room(*other) && !places.contains(other));
        let fits = |zone: usize| zone == old || self.in_zone(partition, zone) < self.zone_limit[zone];
        let at = partition_seed(partition);
        let fitting = with_room.filter(|(_, (.., zone))| fits(*zone));
        let nearest = fitting.map(|(other, &(seed, weight, _))| (distance(seed, weight, at), other)).min();
        if let Some((_, other)) = nearest {
            self.places[partition as usize][slot] = other;
            self.load[usize::from(node)] -= 1;
            self.load[usize::from(other)] += 1;
        }
    }

    /// The node that breaks a bound the least, for a partition that no other could help.
    fn least_bad(&self, partition: u32) -> Option<u16> {
        let places = &self.places[partition as usize];
        let others = self.nearest(partition, f64::INFINITY).into_iter();
        let cost = |&(far, node): &Candidate| {
            let (at, zone) = (usize::from(node), self.nodes[usize::from(node)].2);
            let over = (self.load[at] + 1).saturating_sub(self.capacity[at]);
            let crowd = (self.in_zone(partition, zone) + 1).saturating_sub(self.zone_limit[zone]);
            (over, crowd, far, node)
        };
        others.filter(|(_, node)| !places.contains(node)).min_by_key(cost).map(|(_, node)| node)
    }
}
