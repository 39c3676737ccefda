//! The cache nodes: the ring, the stripes' arithmetic and the policies of the real fleet,
//! with drawn times instead of a network.
//!
//! A node has a memory tier before an SSD tier, as `node::store`: both take what is written,
//! memory takes what the SSD is asked for, and a hit in memory is not known to the SSD. Lost nodes answer nothing and are left alone by clients
//! that noticed, so they cost no time; their places stay theirs until they leave the list.

use super::random::{Random, nanos, part};
use super::scenario::{Scenario, Times};
use super::tier::Tier;
use super::{Nanos, SimulateError};
use fleet::members::{Members, Node};
use fleet::ring::{Ring, RingSettings};
use fleet::stripe::Code;
use image_format::ids::ChunkId;
use std::sync::Arc;

/// What the nodes say to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Enough shards, after so long.
    Chunk(Nanos),
    /// Too few, known after so long.
    Miss(Nanos),
}

#[derive(Debug)]
struct CacheNode {
    zone: u32,
    up: bool,
    memory: Tier,
    ssd: Tier,
    requests: u64,
}

/// All cache nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    code: Code,
    shard_bytes: u64,
    times: Times,
    ring: Ring,
    epsilon: f64,
    /// In the order of the names, which is that of the numbers; positions of the ring are
    /// positions here only while nobody left, so `listed` translates.
    nodes: Vec<CacheNode>,
    listed: Vec<usize>,
    shape: Shape,
    random: Random,
    /// Drawn times of one read; kept to be used again.
    have: Vec<f64>,
    lack: Vec<f64>,
}

/// What a new node is made of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    zones: u32,
    memory_bytes: u64,
    ssd_bytes: u64,
    policy: crate::policy::PolicyKind,
}

impl Shape {
    fn node(self, number: usize) -> CacheNode {
        CacheNode {
            zone: u32::try_from(number).unwrap_or(u32::MAX) % self.zones,
            up: true,
            memory: Tier::new(self.policy, self.memory_bytes),
            ssd: Tier::new(self.policy, self.ssd_bytes),
            requests: 0,
        }
    }
}

fn ring(nodes: &[CacheNode], listed: &[usize], code: Code, epsilon: f64) -> Result<Ring, SimulateError> {
    let node = |&number: &usize| Node {
        // zero-padded, so that the order of names is that of numbers
        name: format!("node-{number:05}"),
        address: format!("node-{number:05}:7400"),
        zone: format!("zone-{}", nodes[number].zone),
        weight: 1,
    };
    let members = Members::new(listed.iter().map(node).collect())?;
    Ok(Ring::new(Arc::new(members), RingSettings { width: usize::from(code.width()), epsilon }))
}

impl Nodes {
    /// The fleet's nodes, empty; `None` if it has none.
    pub(super) fn new(scenario: &Scenario) -> Result<Option<Self>, SimulateError> {
        let fleet = &scenario.fleet;
        if fleet.nodes == 0 {
            return Ok(None);
        }
        let code = scenario.code()?;
        let shard_bytes = u64::from(code.shard_len(scenario.images.chunk_bytes));
        let memory_bytes = part(fleet.node_bytes, fleet.memory_share);
        let shape = Shape {
            zones: fleet.zones,
            memory_bytes,
            ssd_bytes: fleet.node_bytes - memory_bytes,
            policy: fleet.node_policy,
        };
        let nodes: Vec<CacheNode> = (0..fleet.nodes as usize).map(|number| shape.node(number)).collect();
        let listed: Vec<usize> = (0..nodes.len()).collect();
        Ok(Some(Self {
            ring: ring(&nodes, &listed, code, fleet.epsilon)?,
            code,
            shard_bytes,
            times: scenario.times.clone(),
            epsilon: fleet.epsilon,
            nodes,
            listed,
            shape,
            random: Random::stream(scenario.run.seed, 3),
            have: Vec::new(),
            lack: Vec::new(),
        }))
    }

    /// Microseconds until a node's answer is there.
    fn draw(&mut self, more_us: f64) -> f64 {
        let (times, random) = (&self.times, &mut self.random);
        let mut us = times.shard_us + more_us + random.exponential(times.shard_jitter_us);
        if random.unit() < times.straggler_share {
            let spread = times.straggler_max_ms - times.straggler_min_ms;
            us += 1000.0 * (times.straggler_min_ms + spread * random.unit());
        }
        us
    }

    /// Asks all nodes of a stripe at once. The chunk is there with its k-th shard; it is
    /// missed when so many lack it that k cannot come any more. What is missing is repaired.
    pub(super) fn read(&mut self, id: &ChunkId) -> Answer {
        let (mut have, mut lack) = (std::mem::take(&mut self.have), std::mem::take(&mut self.lack));
        have.clear();
        lack.clear();
        for position in 0..self.ring.place(id).len() {
            let number = self.listed[usize::from(self.ring.place(id)[position])];
            let node = &mut self.nodes[number];
            if !node.up {
                continue;
            }
            node.requests += 1;
            if node.memory.touch(id) {
                have.push(self.draw(0.0));
            } else if node.ssd.touch(id) {
                node.memory.insert(id, self.shard_bytes);
                have.push(self.draw(self.times.shard_ssd_us));
            } else {
                lack.push(self.draw(0.0));
            }
        }
        let data = usize::from(self.code.data());
        have.sort_unstable_by(f64::total_cmp);
        lack.sort_unstable_by(f64::total_cmp);
        let deadline = 1000.0 * self.times.l2_deadline_ms;
        let answer = if have.len() >= data && have[data - 1] <= deadline {
            if !lack.is_empty() {
                self.fill(id);
            }
            Answer::Chunk(nanos((have[data - 1] + self.times.open_us) / 1e6))
        } else {
            // one more than parity can make up for, or all that answer
            let known = lack.get(usize::from(self.code.parity())).or(lack.last()).copied();
            Answer::Miss(nanos(known.unwrap_or(0.0).min(deadline) / 1e6))
        };
        (self.have, self.lack) = (have, lack);
        answer
    }

    /// Writes a stripe to the nodes of its places that are up.
    pub(super) fn fill(&mut self, id: &ChunkId) {
        for &position in self.ring.place(id) {
            let node = &mut self.nodes[self.listed[usize::from(position)]];
            if node.up && !node.ssd.contains(id) {
                node.memory.insert(id, self.shard_bytes);
                node.ssd.insert(id, self.shard_bytes);
            }
        }
    }

    /// Puts a stripe on the SSDs of its places, as if it had been there for long.
    pub(super) fn prime(&mut self, id: &ChunkId) {
        for &position in self.ring.place(id) {
            self.nodes[self.listed[usize::from(position)]].ssd.insert(id, self.shard_bytes);
        }
    }

    /// Empties all nodes.
    pub(super) fn wipe(&mut self) {
        for node in &mut self.nodes {
            node.memory.clear();
            node.ssd.clear();
        }
    }

    /// Takes nodes down. They stay in the list.
    pub(super) fn lose(&mut self, gone: impl Fn(usize, u32) -> bool) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if gone(number, node.zone) {
                node.up = false;
                node.memory.clear();
                node.ssd.clear();
            }
        }
    }

    /// Takes the nodes that are down out of the list, if others are left.
    pub(super) fn forget_lost(&mut self) -> Result<(), SimulateError> {
        self.relist(|node| node.up)
    }

    /// Adds empty nodes to the list.
    pub(super) fn add(&mut self, count: u32) -> Result<(), SimulateError> {
        let listed = self.nodes.len();
        self.nodes.extend((listed..listed + count as usize).map(|number| self.shape.node(number)));
        self.listed.extend(listed..self.nodes.len());
        self.relist(|_| true)
    }

    fn relist(&mut self, stays: impl Fn(&CacheNode) -> bool) -> Result<(), SimulateError> {
        let left: Vec<usize> =
            self.listed.iter().copied().filter(|&number| stays(&self.nodes[number])).collect();
        if !left.is_empty() {
            self.ring = ring(&self.nodes, &left, self.code, self.epsilon)?;
            self.listed = left;
        }
        Ok(())
    }

    /// Requests that the busiest node and the mean node answered.
    pub(super) fn requests(&self) -> (u64, f64) {
        let all: u64 = self.nodes.iter().map(|node| node.requests).sum();
        let most = self.nodes.iter().map(|node| node.requests).max().unwrap_or(0);
        (most, all as f64 / self.nodes.len() as f64)
    }

    /// Bytes on the fullest node and on the mean node.
    pub(super) fn fullness(&self) -> (u64, f64) {
        let bytes = |node: &CacheNode| node.ssd.weight();
        let most = self.nodes.iter().map(bytes).max().unwrap_or(0);
        (most, self.nodes.iter().map(bytes).sum::<u64>() as f64 / self.nodes.len() as f64)
    }

    /// Bytes of a shard.
    pub(super) fn shard_bytes(&self) -> u64 {
        self.shard_bytes
    }
}
