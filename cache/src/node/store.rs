//! What a node holds: shard records in memory over shard records on SSD.
//!
//! Invariants: both levels keep their byte budgets under a scan-resistant policy; what is
//! put is a whole record with a right checksum; a read of what is in memory or in the
//! kernel's page cache never waits; losing a record is harmless, a wrong one is the reader's
//! to find.

use crate::policy::{Policy, PolicyKind};
use crate::ssd::{SsdFiles, SsdStats};
use crate::tier::Usage;
use bytes::Bytes;
use fleet::wire::{ShardRecord, WireError};
use image_format::ids::ChunkId;
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that a record in memory costs besides its own: map, policy, reference counts.
const ENTRY_OVERHEAD: u64 = 256;

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// In the node's own memory.
    Memory,
    /// On SSD, or in the kernel's cache of it.
    Ssd,
}

#[derive(Debug)]
struct Memory {
    records: HashMap<ChunkId, Bytes>,
    policy: Box<dyn Policy>,
    capacity: u64,
}

impl Memory {
    fn insert(&mut self, id: ChunkId, record: Bytes) {
        let weight = record.len() as u64 + ENTRY_OVERHEAD;
        if weight > self.capacity {
            return;
        }
        self.policy.remove(&id);
        while self.policy.weight() + weight > self.capacity {
            let Some((evicted, _)) = self.policy.evict() else { return };
            self.records.remove(&evicted);
        }
        self.policy.insert(id, weight);
        self.records.insert(id, record);
    }
}

/// The records of one node.
#[derive(Debug)]
pub struct ShardStore {
    memory: Mutex<Memory>,
    files: Option<SsdFiles>,
}

impl ShardStore {
    /// A store of at most `memory_bytes` in memory over `files`.
    #[must_use]
    pub fn new(memory_bytes: u64, policy: PolicyKind, files: Option<SsdFiles>) -> Self {
        let memory =
            Memory { records: HashMap::new(), policy: policy.build(memory_bytes), capacity: memory_bytes };
        Self { memory: Mutex::new(memory), files }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // map and policy change together without a panic in between
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_memory(&self, id: &ChunkId) -> Option<Bytes> {
        let mut memory = self.memory();
        let record = memory.records.get(id).cloned()?;
        memory.policy.touch(id);
        Some(record)
    }

    /// The record of a chunk, as it was put or as the disk gives it now.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn get(&self, id: &ChunkId) -> io::Result<Option<(Bytes, Level)>> {
        if let Some(record) = self.in_memory(id) {
            return Ok(Some((record, Level::Memory)));
        }
        let Some(files) = &self.files else { return Ok(None) };
        if !files.touch(id) {
            return Ok(None);
        }
        let record = match files.read_cached(id) {
            Some(record) => Some(record),
            None => files.read(id).await?,
        };
        Ok(record.map(|record| {
            self.memory().insert(*id, record.clone());
            (record, Level::Ssd)
        }))
    }

    /// Whether a record of the chunk is held.
    #[must_use]
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.memory().records.contains_key(id) || self.files.as_ref().is_some_and(|files| files.contains(id))
    }

    /// Holds a record, in place of one that is held already. Returns whether it will also be
    /// on SSD; `true` where there is none to be on.
    ///
    /// # Errors
    /// [`WireError`] if it is no record of the chunk.
    pub fn put(&self, id: ChunkId, record: Bytes) -> Result<bool, WireError> {
        ShardRecord::decode(&id, &record)?;
        self.memory().insert(id, record.clone());
        Ok(self.files.as_ref().is_none_or(|files| files.offer(id, record)))
    }

    /// Forgets a record.
    ///
    /// # Errors
    /// If the disk fails; the record is not served any more in any case.
    pub async fn remove(&self, id: &ChunkId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.records.remove(id);
            memory.policy.remove(id);
        }
        match &self.files {
            Some(files) => files.remove(id).await,
            None => Ok(()),
        }
    }

    /// The chunks of which a record is held and whose id begins with `fan`, in order. With an
    /// SSD, those that are written there.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn list(&self, fan: u8) -> io::Result<Vec<ChunkId>> {
        if let Some(files) = &self.files {
            return files.list(fan).await;
        }
        let memory = self.memory();
        let mut ids: Vec<ChunkId> =
            memory.records.keys().filter(|id| id.as_bytes()[0] == fan).copied().collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads a record afresh from where it lies longest and checks it; a bad one is forgotten.
    /// Returns its length and whether it was good, or `None` if it is gone.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn check(&self, id: &ChunkId) -> io::Result<Option<(u64, bool)>> {
        let record = match &self.files {
            Some(files) => files.read(id).await?,
            None => self.in_memory(id),
        };
        let Some(record) = record else { return Ok(None) };
        let good = ShardRecord::decode(id, &record).is_ok();
        if !good {
            self.remove(id).await?;
        }
        Ok(Some((record.len() as u64, good)))
    }

    /// How full the memory is.
    #[must_use]
    pub fn memory_usage(&self) -> Usage {
        let memory = self.memory();
        Usage {
            chunks: memory.policy.len() as u64,
            bytes: memory.policy.weight(),
            capacity_bytes: memory.capacity,
        }
    }

    /// How full the SSD is, and what happened there by itself.
    #[must_use]
    pub fn ssd_usage(&self) -> (Usage, SsdStats) {
        self.files.as_ref().map_or_else(Default::default, |files| (files.usage(), files.stats()))
    }

    /// Waits until everything put so far is on SSD.
    pub async fn settle(&self) {
        if let Some(files) = &self.files {
            files.settle().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssd::{Contents, SsdSettings};
    use fleet::wire::ShardHeader;

    fn record(n: u32) -> (ChunkId, Bytes) {
        let id = ChunkId::of(&n.to_le_bytes());
        let payload: Bytes = vec![n.to_le_bytes()[0]; 1024].into();
        let header = ShardHeader { index: 0, data: 4, parity: 1, stored_len: 4096 };
        (id, ShardRecord { header, payload }.to_bytes(&id))
    }

    fn files(directory: &std::path::Path) -> SsdFiles {
        SsdFiles::open(SsdSettings {
            directory: directory.into(),
            capacity_bytes: 40 << 10,
            headroom_bytes: 0,
            policy: PolicyKind::default(),
            contents: Contents::Shards,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn both_levels_hold_and_forget() {
        let dir = tempfile::tempdir().unwrap();
        let store = ShardStore::new(4 << 10, PolicyKind::default(), Some(files(dir.path())));
        for n in 0..20 {
            let (id, record) = record(n);
            assert!(store.put(id, record).unwrap());
            store.settle().await;
        }
        assert!(store.memory_usage().bytes <= 4 << 10);
        assert!(store.ssd_usage().0.bytes <= 40 << 10);
        let (last, bytes) = record(19);
        assert_eq!(store.get(&last).await.unwrap(), Some((bytes, Level::Memory)));
        let (first, bytes) = record(0);
        assert_eq!(store.get(&first).await.unwrap(), Some((bytes.clone(), Level::Ssd)));
        assert_eq!(store.get(&first).await.unwrap(), Some((bytes, Level::Memory)), "a hit moves up");
        store.remove(&first).await.unwrap();
        assert_eq!(store.get(&first).await.unwrap(), None);
        assert!(!store.contains(&first) && store.contains(&last));
    }

    #[tokio::test]
    async fn a_restart_keeps_the_ssd_and_a_check_finds_rot() {
        let dir = tempfile::tempdir().unwrap();
        let (id, bytes) = record(3);
        {
            let store = ShardStore::new(1 << 20, PolicyKind::default(), Some(files(dir.path())));
            assert!(store.put(id, bytes.clone()).unwrap());
            store.settle().await;
        }
        let store = ShardStore::new(1 << 20, PolicyKind::default(), Some(files(dir.path())));
        assert_eq!(store.list(id.as_bytes()[0]).await.unwrap(), [id]);
        assert_eq!(store.check(&id).await.unwrap(), Some((bytes.len() as u64, true)));
        let path = dir.path().join(&id.to_string()[..2]).join(id.to_string());
        let mut rotten = bytes.to_vec();
        rotten[100] ^= 1;
        std::fs::write(path, rotten).unwrap();
        assert_eq!(store.check(&id).await.unwrap(), Some((bytes.len() as u64, false)));
        assert_eq!(store.get(&id).await.unwrap(), None, "a bad record is forgotten");
    }

    #[test]
    fn only_records_of_the_chunk_are_taken() {
        let store = ShardStore::new(1 << 20, PolicyKind::default(), None);
        let ((id, bytes), (other, _)) = (record(1), record(2));
        assert!(store.put(other, bytes.clone()).is_err());
        assert!(store.put(id, bytes.slice(1..)).is_err());
        assert!(store.put(id, bytes).unwrap());
    }
}
