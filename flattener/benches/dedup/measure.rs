//! Pushing an image through the real pipeline, and what its chunks hold.
//!
//! Chunk ids come from the manifest that the push stored. What a chunk is for comes from
//! planning the layout again from the same layers; both must name the same chunks.

use anyhow::{Context, Result, ensure};
use flattener::ext4::{ChunkUse, FilesystemIdentity, Layout, Place};
use flattener::layer::entry::{Layer, LayerIndex};
use flattener::layer::{Budget, Digest, Limits, read_layer};
use flattener::oci::{self, ImageRef, SourceOptions};
use flattener::pipeline::StoreSettings;
use flattener::progress::Progress;
use flattener::push::{self, PushSettings};
use flattener::tree::NodeKind;
use image_format::envelope::{CustodyError, KeyCustodian, TenantKey};
use image_format::ids::{ChunkId, ImageDigest, RootId, TenantId};
use image_format::names::ImageName;
use image_format::seal::{Compression, Salt};
use image_format::units::CHUNK_SIZE;
use origin::catalog::Catalog;
use origin::memory::MemoryStore;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// One key for the one tenant of a bench.
struct FixedKey;

impl KeyCustodian for FixedKey {
    fn tenant_key(&self, _: &TenantId) -> Result<TenantKey, CustodyError> {
        Ok(TenantKey::from_bytes([7; 32]))
    }
}

/// A store with one fixed salt, and what is needed to push to it.
pub(crate) struct Bench {
    catalog: Catalog,
    settings: PushSettings,
    layers: HashMap<Digest, Arc<Layer>>,
}

/// A pushed image: its chunks by their place, and its layout.
pub(crate) struct Pushed {
    /// Chunks that are not all zeros.
    pub(crate) chunks: BTreeMap<u32, ChunkId>,
    ids: HashSet<ChunkId>,
    layout: Layout,
    sizes: HashMap<Vec<u8>, u64>,
}

/// Why some data chunks are new.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Blame {
    /// Where the changed files are; none if no file in the chunks was changed.
    pub(crate) directory: Option<String>,
    /// Chunks that are new.
    pub(crate) chunks: usize,
    /// Bytes in them of changed files.
    pub(crate) changed_bytes: u64,
    /// Bytes in them of other files.
    pub(crate) beside_bytes: u64,
}

/// A file's bytes by the chunks that hold them. Files that do not fit one chunk begin one.
pub(crate) fn pieces(chunks: std::ops::Range<u32>, size: u64) -> impl Iterator<Item = (u32, u64)> {
    let chunk = u64::from(CHUNK_SIZE.bytes());
    chunks
        .enumerate()
        .map(move |(number, index)| (index, size.saturating_sub(number as u64 * chunk).min(chunk)))
}

/// What the chunks are for that one image has and another lacks.
pub(crate) type ByUse = BTreeMap<&'static str, usize>;

impl Bench {
    /// An empty store in memory.
    pub(crate) fn new(work_dir: PathBuf) -> Result<Self> {
        let root: RootId = "bench".parse()?;
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let salt = Salt::derive(&root, &[0; 32]);
        let store = StoreSettings {
            threads,
            uploads: 16,
            salt,
            compression: Compression::Zstd(1),
            root: root.clone(),
            prime: None,
        };
        let origin = Arc::new(MemoryStore::new());
        let catalog = Catalog::new(origin, Arc::new(FixedKey), root, "bench".parse()?);
        let settings = PushSettings { store, limits: Limits::default(), work_dir };
        Ok(Self { catalog, settings, layers: HashMap::new() })
    }

    /// Flattens and stores the image that `reference` names.
    pub(crate) async fn push(&mut self, reference: &str) -> Result<Pushed> {
        let image: ImageRef = reference.parse()?;
        let options = SourceOptions { work_dir: self.settings.work_dir.clone(), ..SourceOptions::default() };
        let source = Arc::new(oci::open(&image, &options).await?);
        let name: ImageName = "family".parse()?;
        let quiet = Progress::new(true);
        let report = push::push(Arc::clone(&source), &name, &self.catalog, &self.settings, &quiet).await?;
        let manifest = self.catalog.manifest(report.image_id).await?;
        let chunks: BTreeMap<u32, ChunkId> =
            manifest.entries().iter().map(|entry| (entry.index.0, entry.id)).collect();
        let (layout, sizes) = self.plan(&source, report.digest).await?;
        let occupied: HashSet<u32> = layout.occupied_chunks().collect();
        ensure!(
            layout.device_length() == report.device_bytes
                && chunks.keys().all(|index| occupied.contains(index)),
            "the layout planned for the report is not the one that was pushed"
        );
        Ok(Pushed { ids: chunks.values().copied().collect(), chunks, layout, sizes })
    }

    async fn plan(
        &mut self,
        source: &oci::ImageSource,
        digest: ImageDigest,
    ) -> Result<(Layout, HashMap<Vec<u8>, u64>)> {
        let image = source.resolve().await?;
        let mut tree = flattener::tree::Tree::new();
        for (position, descriptor) in image.layers.iter().enumerate() {
            if !self.layers.contains_key(&descriptor.digest) {
                let blob = source.blob(descriptor)?;
                let index = LayerIndex(u32::try_from(position)?);
                let budget = Budget::new(self.settings.limits);
                let work_dir = &self.settings.work_dir;
                let read = || read_layer(index, descriptor, blob, &budget, work_dir, &|_| ());
                let (layer, _spool) = tokio::task::block_in_place(read)?;
                self.layers.insert(descriptor.digest, Arc::new(layer));
            }
            tree.apply_layer(&self.layers[&descriptor.digest])?;
        }
        let size = |id| match &tree.node(id).kind {
            NodeKind::File(content) => Some(content.size),
            _ => None,
        };
        let sizes = tree.entries().filter_map(|(path, id)| Some((path, size(id)?))).collect();
        Ok((Layout::plan(tree, &FilesystemIdentity::from_digest(digest.as_bytes()))?, sizes))
    }
}

impl Pushed {
    /// Places with chunks that `other` lacks.
    pub(crate) fn lacking<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        self.chunks.iter().filter(|(_, id)| !other.ids.contains(*id)).map(|(&index, _)| index)
    }

    /// Chunks that are not all zeros.
    pub(crate) fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Part of this image's chunks that `other` lacks, and what those are for.
    pub(crate) fn unique(&self, other: &Self) -> (f64, ByUse) {
        let mut by_use = ByUse::new();
        for index in self.lacking(other) {
            *by_use.entry(self.use_of(index)).or_default() += 1;
        }
        (by_use.values().sum::<usize>() as f64 / self.count() as f64, by_use)
    }

    /// What a chunk is for, in a word.
    pub(crate) fn use_of(&self, index: u32) -> &'static str {
        match self.layout.chunk_use(index) {
            ChunkUse::Descriptors => "descriptors",
            ChunkUse::Bitmaps => "bitmaps",
            ChunkUse::Inodes => "inodes",
            ChunkUse::Metadata => "directories",
            ChunkUse::Data => "data",
            ChunkUse::Nothing => "nothing",
        }
    }

    /// Names with chunks of their own, files and directories.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.layout.places().filter(|place| !place.chunks.is_empty())
    }

    /// Chunks with contents of files that layers from `first` on made.
    pub(crate) fn data_of_layers(&self, first: usize) -> HashSet<u32> {
        self.places()
            .filter(|place| place.layer.0 as usize >= first)
            .flat_map(|place| place.chunks)
            .filter(|&index| self.layout.chunk_use(index) == ChunkUse::Data)
            .collect()
    }

    /// What the data chunks hold that `other` lacks, by the directory of the first `changed`
    /// file in each; the most chunks first.
    pub(crate) fn blame(&self, other: &Self, changed: &BTreeSet<String>) -> Vec<Blame> {
        let lacking = self.lacking(other).filter(|&index| self.use_of(index) == "data");
        let mut chunks: BTreeMap<u32, Blame> = lacking.map(|index| (index, Blame::default())).collect();
        for place in self.places() {
            let Some(&size) = self.sizes.get(&place.path) else { continue };
            let path = String::from_utf8_lossy(&place.path);
            for (index, here) in pieces(place.chunks, size) {
                let Some(chunk) = chunks.get_mut(&index) else { continue };
                if changed.contains(&*path) {
                    let top = || path.split('/').take(4).collect::<Vec<_>>().join("/");
                    chunk.directory.get_or_insert_with(top);
                    chunk.changed_bytes += here;
                } else {
                    chunk.beside_bytes += here;
                }
            }
        }
        let mut sums: BTreeMap<Option<String>, Blame> = BTreeMap::new();
        for chunk in chunks.into_values() {
            let sum = sums.entry(chunk.directory.clone()).or_default();
            sum.directory = chunk.directory;
            sum.chunks += 1;
            sum.changed_bytes += chunk.changed_bytes;
            sum.beside_bytes += chunk.beside_bytes;
        }
        let mut sums: Vec<Blame> = sums.into_values().collect();
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.chunks));
        sums
    }

    /// Places of the chunks of one file.
    pub(crate) fn file(&self, path: &str) -> Result<std::ops::Range<u32>> {
        let found = self.places().find(|place| place.path == path.as_bytes());
        Ok(found.with_context(|| format!("{path} is not in the image"))?.chunks)
    }

    /// Whether the image has a chunk with this content anywhere.
    pub(crate) fn has(&self, id: &ChunkId) -> bool {
        self.ids.contains(id)
    }
}
