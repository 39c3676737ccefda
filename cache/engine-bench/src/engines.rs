//! The engines that are compared, behind one small trait.
//!
//! All get the same budgets and hold whole shard records under their chunk's id. Foyer comes in
//! three settings: written to SSD when inserted (what the node's own store does) or when
//! evicted from memory (its default), and past the page cache by `io_uring`.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cache::node::{Level, ShardStore};
use cache::policy::PolicyKind;
use cache::ssd::{Contents, SsdFiles, SsdSettings};
use foyer::{
    BlockEngineConfig, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, IoEngineConfig, PsyncIoEngineConfig, S3FifoConfig, Source, UringIoEngineConfig,
};
use image_format::ids::ChunkId;
use std::future::Future;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes that an entry in memory is taken to cost besides its own, as in the node's store.
const ENTRY_OVERHEAD: usize = 256;

/// What an engine may use, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) memory: u64,
    pub(crate) ssd: u64,
}

/// A store of records in memory over SSD.
pub(crate) trait Engine: Send + Sync + Sized + 'static {
    /// Holds a record; says at once whether it was taken.
    fn put(&self, id: ChunkId, record: Bytes) -> bool;
    /// A record and where it was found.
    fn get(&self, id: ChunkId) -> impl Future<Output = Result<Option<(Bytes, Level)>>> + Send;
    /// Whether a record is there, without moving anything.
    fn contains(&self, id: ChunkId) -> bool;
    /// Waits until what was put is written.
    fn settle(&self) -> impl Future<Output = ()> + Send;
    /// Ends in order, as on SIGTERM.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// The node's own store.
#[derive(Debug)]
pub(crate) struct Own(ShardStore);

impl Own {
    pub(crate) fn open(directory: &Path, budget: Budget) -> Result<Self> {
        let policy = PolicyKind::default();
        let files = SsdFiles::open(SsdSettings {
            directory: directory.into(),
            capacity_bytes: budget.ssd,
            // foyer leaves none either
            headroom_bytes: 0,
            policy,
            contents: Contents::Shards,
        })?;
        Ok(Self(ShardStore::new(budget.memory, policy, Some(files))))
    }
}

impl Engine for Own {
    fn put(&self, id: ChunkId, record: Bytes) -> bool {
        self.0.put(id, record).unwrap_or(false)
    }

    async fn get(&self, id: ChunkId) -> Result<Option<(Bytes, Level)>> {
        Ok(self.0.get(&id).await?)
    }

    fn contains(&self, id: ChunkId) -> bool {
        self.0.contains(&id)
    }

    async fn settle(&self) {
        self.0.settle().await;
    }

    async fn close(self) -> Result<()> {
        tokio::task::spawn_blocking(move || drop(self)).await.context("closing")
    }
}

/// A chunk's id as a key of foyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Code for Key {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        writer.write_all(&self.0).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut key = [0; 32];
        reader.read_exact(&mut key).map_err(foyer::Error::io_error)?;
        Ok(Self(key))
    }

    fn estimated_size(&self) -> usize {
        self.0.len()
    }
}

/// How foyer is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Insertion,
    Eviction,
    Uring,
}

/// Foyer's hybrid cache.
#[derive(Debug)]
pub(crate) struct Foyer(HybridCache<Key, Bytes>);

impl Foyer {
    pub(crate) async fn open(directory: &Path, budget: Budget, mode: Mode) -> Result<Self> {
        let direct = mode == Mode::Uring;
        let device = FsDeviceBuilder::new(directory)
            .with_capacity(usize::try_from(budget.ssd)?)
            .with_direct(direct)
            .build()?;
        let io: Box<dyn IoEngineConfig> =
            if direct { UringIoEngineConfig::new().boxed() } else { PsyncIoEngineConfig::new().boxed() };
        let policy = match mode {
            Mode::Eviction => HybridCachePolicy::WriteOnEviction,
            Mode::Insertion | Mode::Uring => HybridCachePolicy::WriteOnInsertion,
        };
        let cache = HybridCacheBuilder::new()
            .with_policy(policy)
            .memory(usize::try_from(budget.memory)?)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &Key, record: &Bytes| record.len() + ENTRY_OVERHEAD)
            .storage()
            .with_io_engine_config(io)
            .with_engine_config(BlockEngineConfig::new(device))
            .build()
            .await?;
        if !cache.is_hybrid() {
            bail!("foyer runs without its disk");
        }
        Ok(Self(cache))
    }
}

impl Engine for Foyer {
    fn put(&self, id: ChunkId, record: Bytes) -> bool {
        // the checksum of a record that comes over the network is looked at with any engine
        if fleet::wire::ShardRecord::decode(&id, &record).is_err() {
            return false;
        }
        drop(self.0.insert(Key(*id.as_bytes()), record));
        true
    }

    async fn get(&self, id: ChunkId) -> Result<Option<(Bytes, Level)>> {
        let entry = self.0.get(&Key(*id.as_bytes())).await?;
        Ok(entry.map(|entry| {
            let level = match entry.source() {
                Source::Disk => Level::Ssd,
                Source::Memory | Source::Outer => Level::Memory,
            };
            (entry.value().clone(), level)
        }))
    }

    fn contains(&self, id: ChunkId) -> bool {
        self.0.contains(&Key(*id.as_bytes()))
    }

    async fn settle(&self) {
        self.0.storage().wait().await;
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
