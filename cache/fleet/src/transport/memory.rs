//! Nodes in memory, with faults: for tests under a paused clock.
//!
//! Invariant: what happens to a call depends on the seed, the node, the chunk and how often
//! that chunk was asked of that node, never on the order of calls: the same seed gives the
//! same run.

use super::{CallError, CallKind, Transport};
use crate::members::Node;
use async_trait::async_trait;
use bytes::Bytes;
use image_format::ids::ChunkId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong at a node; shares are per mille of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeFaults {
    /// Every call fails at once.
    pub down: bool,
    /// No call is ever answered: the process is stopped, the cable is out.
    pub silent: bool,
    /// Calls that fail.
    pub failing: u16,
    /// Reads that give wrong bytes with a right checksum.
    pub lying: u16,
    /// Calls that take `straggle` instead of `delay`.
    pub straggling: u16,
    /// How long a call takes.
    pub delay: Duration,
    /// How long a slow call takes.
    pub straggle: Duration,
    /// Writes are refused: its disk is full.
    pub full: bool,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<(String, ChunkId), Bytes>,
    faults: HashMap<String, NodeFaults>,
    asked: HashMap<(String, ChunkId), u64>,
    calls: u64,
}

/// Nodes in memory.
#[derive(Debug)]
pub struct MemoryTransport {
    seed: u64,
    state: Mutex<State>,
}

impl MemoryTransport {
    /// Empty nodes without faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // maps change whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what goes wrong at a node from now on.
    pub fn set_faults(&self, node: &str, faults: NodeFaults) {
        self.state().faults.insert(node.into(), faults);
    }

    /// Empties a node, as a new one in its place.
    pub fn wipe(&self, node: &str) {
        self.state().records.retain(|(holder, _), _| holder != node);
    }

    /// Calls made so far, whatever became of them.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Records that a node holds.
    #[must_use]
    pub fn held(&self, node: &str) -> usize {
        self.state().records.keys().filter(|(holder, _)| holder == node).count()
    }

    /// Changes a stored record as a failing or hostile node would.
    pub fn alter(&self, node: &str, id: &ChunkId, change: impl FnOnce(Bytes) -> Bytes) {
        if let Some(record) = self.state().records.get_mut(&(node.to_string(), *id)) {
            *record = change(record.clone());
        }
    }

    /// Waits as the faults say and decides what becomes of the call.
    async fn meet(&self, node: &Node, id: &ChunkId) -> Result<(NodeFaults, u64), CallError> {
        let (faults, dice) = {
            let mut state = self.state();
            state.calls += 1;
            let nth = state.asked.entry((node.name.clone(), *id)).or_default();
            *nth += 1;
            let nth = *nth;
            let mut words = [0; 8];
            words.copy_from_slice(&id.as_bytes()[..8]);
            let name = node.name.bytes().fold(self.seed, |hash, b| mix(hash ^ u64::from(b)));
            let dice = mix(mix(name ^ u64::from_le_bytes(words)) ^ nth);
            (state.faults.get(&node.name).copied().unwrap_or_default(), dice)
        };
        if faults.silent {
            std::future::pending::<()>().await;
        }
        let slow = dice % 1000 < u64::from(faults.straggling);
        let wait = if slow { faults.straggle } else { faults.delay };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if faults.down || (dice >> 20) % 1000 < u64::from(faults.failing) {
            let message = "injected failure".into();
            return Err(CallError { kind: CallKind::Unreachable, node: node.name.clone(), message });
        }
        Ok((faults, dice))
    }
}

/// SplitMix64's finaliser: spreads every bit.
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn get(&self, node: &Node, id: &ChunkId) -> Result<Option<Bytes>, CallError> {
        let (faults, dice) = self.meet(node, id).await?;
        let record = self.state().records.get(&(node.name.clone(), *id)).cloned();
        let lies = (dice >> 40) % 1000 < u64::from(faults.lying);
        Ok(record.map(|record| if lies { lie(id, &record) } else { record }))
    }

    async fn put(&self, node: &Node, id: &ChunkId, record: [Bytes; 2]) -> Result<(), CallError> {
        let (faults, _) = self.meet(node, id).await?;
        if faults.full {
            let message = "injected full disk".into();
            return Err(CallError { kind: CallKind::Busy, node: node.name.clone(), message });
        }
        self.state().records.insert((node.name.clone(), *id), record.concat().into());
        Ok(())
    }

    async fn remove(&self, node: &Node, id: &ChunkId) -> Result<(), CallError> {
        self.meet(node, id).await?;
        self.state().records.remove(&(node.name.clone(), *id));
        Ok(())
    }
}

/// The record with other bytes and a checksum that fits them.
fn lie(id: &ChunkId, record: &Bytes) -> Bytes {
    let Ok(mut record) = crate::wire::ShardRecord::decode(id, record) else { return record.clone() };
    let mut payload = record.payload.to_vec();
    if let Some(byte) = payload.first_mut() {
        *byte ^= 0x55;
    }
    record.payload = payload.into();
    record.to_bytes(id)
}
