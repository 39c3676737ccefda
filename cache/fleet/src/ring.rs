//! Which nodes hold a chunk: rendezvous hashing over partitions, with bounded loads and zones
//! (ATC'23 section 4; the bound after Mirrokni, Thorup and Zadimoghaddam, 2018).
//!
//! A chunk falls into one of [`Ring::PARTITIONS`] partitions; a table made once per list of
//! members says which nodes hold a partition. The table is a pure function of the members and
//! the settings, so every client has the same one without asking anybody: it depends on no
//! load, no clock, no order of joining, and on no arithmetic that differs between machines.
//!
//! The table: every pair of partition and node has a distance (`distance.rs`, normative). All
//! pairs are taken in the order of their distance, the nearest first. A pair becomes a place
//! unless its partition already has `width` places, its node is full (`capacities`), or the
//! node's zone has its part of the partition (`zone_limits`, both in `table.rs`). A full node so keeps what is
//! nearest to it, and only its farthest partitions go on to their next node; the result does
//! not depend on who came first, and a change of members moves little more than it must.
//!
//! A partition that is short of places after that gets a node that another partition can do
//! without, and where nodes or zones are too unequal for that, the node that goes least over
//! its capacity, then the one that goes least over its zone's limit.
//!
//! Invariants: the nodes of a partition are distinct; there are `width` of them, or all where
//! the fleet is smaller. Their order is no part of a stripe's layout: a shard carries its
//! index, so only who is in the list matters.

use crate::members::{Members, Node};
use image_format::ids::ChunkId;
use std::fmt;
use std::sync::Arc;

mod distance;
mod table;

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

impl Ring {
    /// Parts into which all chunks fall. A power of two, so that a chunk's partition is some
    /// of its id's bits. Enough that the bound is rarely needed (50 nodes of width 5 have
    /// 1638 places each, varying by 2.4 %), few enough that the table of a large fleet takes
    /// tens of milliseconds and 160 KiB. Normative: another number places every chunk elsewhere.
    pub const PARTITIONS: u32 = 16384;

    /// The places of all chunks in this fleet. Takes tens of milliseconds of one core
    /// (`benches/placement.rs`), so async code makes it elsewhere than on its reactor.
    #[must_use]
    pub fn new(members: Arc<Members>, settings: RingSettings) -> Self {
        let width = settings.width.min(members.nodes().len());
        let table = table::Filling::new(members.nodes(), width, settings.epsilon).fill();
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

#[cfg(test)]
mod tests;
