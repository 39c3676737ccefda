//! One push, from an image's name to its manifest in the store.
//!
//! ```text
//! resolve ▶ known? ──yes──▶ done with one request
//!    │ no
//!    ▼
//! layers (parallel) ▶ tree ▶ layout ▶ chunks (parallel) ▶ manifest ▶ reference
//! ```
//!
//! Invariants: the manifest is written after all its chunks, the reference after the
//! manifest, so a crash leaves garbage at worst; everything read was checked against its
//! digest before the first chunk is written; a root that takes no new data gets none.

use crate::ext4::{self, FilesystemIdentity, Layout};
use crate::layer::entry::{Layer, LayerIndex};
use crate::layer::{self, Budget, LayerDescriptor, LayerError, Limits, Spool};
use crate::oci::{Image, ImageSource, SourceError};
use crate::pipeline::{self, RenderFailed, StoreError, StoreSettings, Tally};
use crate::progress::{Progress, Stage, Unit};
use crate::report::{Outcome, PushReport, StageSeconds};
use crate::tree::{Tree, TreeError};
use image_format::ids::{ChunkId, ImageDigest, ImageId};
use image_format::manifest::{InvalidManifest, Manifest, ManifestHead};
use image_format::names::{ImageName, ObjectName};
use image_format::reference::Reference;
use image_format::root::{RootError, RootTable};
use image_format::units::{CHUNK_SIZE, ChunkIndex};
use origin::catalog::{Catalog, CatalogError};
use origin::store::{ErrorKind, OriginError};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Largest root table that is read, in bytes.
const MAX_ROOT_TABLE_BYTES: usize = 1024 * 1024;

/// How a push works.
#[derive(Debug, Clone)]
pub struct PushSettings {
    /// The store stage.
    pub store: StoreSettings,
    /// Bounds on what an image may hold.
    pub limits: Limits,
    /// Where layers wait between reading and rendering, in unlinked files.
    pub work_dir: PathBuf,
}

/// Why a push stopped. Nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The image could not be found or fetched.
    #[error("the image could not be read")]
    Source(#[from] SourceError),
    /// A layer is damaged, hostile or too large.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The layers do not make a file tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree does not fit an ext4 file system.
    #[error("the image cannot be laid out as ext4")]
    Layout(#[from] ext4::LayoutError),
    /// The store stage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store could not be read or written.
    #[error("the store failed")]
    Origin(#[from] OriginError),
    /// A manifest or reference could not be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The root takes no new data, or the root table is damaged.
    #[error("nothing was pushed")]
    Root(#[from] RootError),
    /// A fault of ours.
    #[error("the flattened image is inconsistent")]
    Manifest(#[from] InvalidManifest),
}

impl PushError {
    /// What the failure means to whoever asked.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::Tree(_) | Self::Layout(_) | Self::Root(_) => ErrorKind::Invalid,
            Self::Store(error) => error.kind(),
            Self::Origin(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Manifest(_) => ErrorKind::Internal,
        }
    }
}

/// Pushes the image of `source` under `name`.
///
/// Not cancel-safe in one respect: what was uploaded stays as garbage.
///
/// # Errors
/// [`PushError`] says what stopped it; the store is as consistent as before.
pub async fn push(
    source: Arc<ImageSource>,
    name: &ImageName,
    catalog: &Catalog,
    settings: &PushSettings,
    progress: &Progress,
) -> Result<PushReport, PushError> {
    let mut clock = Clock::start();
    let digest = ImageDigest::from_bytes(*source.digest().await?.as_bytes());
    let image_id = ImageId::of(&digest, Layout::POLICY, CHUNK_SIZE);
    let previous = catalog.reference(name).await?;
    let mut report = PushReport {
        outcome: Outcome::UpToDate,
        name: name.clone(),
        digest,
        image_id,
        store: catalog.origin().describe(),
        layers: 0,
        layer_bytes: 0,
        inodes: 0,
        device_bytes: previous.as_ref().map_or(0, |found| found.device_len),
        tally: Tally::default(),
        seconds: StageSeconds::default(),
    };
    if previous.as_ref().is_some_and(|found| found.image == image_id) {
        report.seconds.resolve = clock.lap();
        return Ok(report);
    }
    check_root(catalog).await?;
    if let Some(manifest) = known_manifest(catalog, image_id).await? {
        catalog.set_reference(name, &reference(&manifest)).await?;
        report.outcome = Outcome::Renamed;
        report.device_bytes = manifest.head().device_len;
        report.seconds.resolve = clock.lap();
        return Ok(report);
    }
    let known = known_chunks(catalog, previous.map(|found| found.image)).await;
    let image = source.resolve().await?;
    report.seconds.resolve = clock.lap();

    report.outcome = Outcome::Stored;
    report.layers = image.layers.len();
    report.layer_bytes = image.layers.iter().map(|layer| layer.size).sum();
    let (layers, spools) = read_layers(&source, &image, settings, progress).await?;
    report.seconds.layers = clock.lap();

    let layout = Arc::new(plan(layers, digest).await?);
    report.inodes = inodes(layout.counts());
    report.device_bytes = layout.device_length();
    report.seconds.layout = clock.lap();

    let indices: Vec<ChunkIndex> = layout.occupied_chunks().map(ChunkIndex).collect();
    let stage = progress.stage("chunks", Unit::Count, indices.len() as u64);
    let render = renderer(Arc::clone(&layout), spools);
    let origin = catalog.origin();
    let advance = |_| stage.add(1);
    let stored = pipeline::store_chunks(&settings.store, origin, indices, render, &known, advance).await?;
    stage.finish();
    report.tally = stored.tally;
    report.seconds.store = clock.lap();

    let head = ManifestHead {
        image: digest,
        layout_policy: Layout::POLICY,
        chunk_size: CHUNK_SIZE,
        device_len: layout.device_length(),
        root: catalog.root().clone(),
        tenant: catalog.tenant().clone(),
    };
    let manifest = Manifest::new(head, stored.entries, stored.keys, image.config)?;
    catalog.store_manifest(&manifest).await?;
    catalog.set_reference(name, &reference(&manifest)).await?;
    report.seconds.commit = clock.lap();
    Ok(report)
}

/// Measures stages one after the other.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = now.duration_since(self.0).as_secs_f64();
        self.0 = now;
        lap
    }
}

fn reference(manifest: &Manifest) -> Reference {
    Reference {
        image: manifest.head().image_id(),
        digest: manifest.head().image,
        device_len: manifest.head().device_len,
        stored_bytes: manifest.stored_bytes(),
        chunk_count: u32::try_from(manifest.entries().len()).expect("chunk indices are u32 and unique"),
    }
}

/// Refuses roots that take no new data; makes the table of a new store.
async fn check_root(catalog: &Catalog) -> Result<(), PushError> {
    let (origin, name) = (catalog.origin(), ObjectName::RootTable);
    let table = match origin.get(&name, MAX_ROOT_TABLE_BYTES).await {
        Ok(bytes) => RootTable::decode(&bytes)?,
        Err(error) if error.is_not_found() => {
            // racing creators with one root write equal bytes; with two, one is refused below
            let table = RootTable::initial(catalog.root().clone());
            origin.put_if_absent(&name, table.encode().into()).await?;
            RootTable::decode(&origin.get(&name, MAX_ROOT_TABLE_BYTES).await?)?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(table.check_writable(catalog.root())?)
}

async fn known_manifest(catalog: &Catalog, image: ImageId) -> Result<Option<Manifest>, PushError> {
    match catalog.manifest(image).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(CatalogError::Origin(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The chunks of the image that the name meant before: in this root with their manifest,
/// so they need not be asked for one by one. Only an optimisation; never an error.
async fn known_chunks(catalog: &Catalog, previous: Option<ImageId>) -> HashSet<ChunkId> {
    let Some(image) = previous else { return HashSet::new() };
    match catalog.manifest(image).await {
        Ok(manifest) => manifest.entries().iter().map(|entry| entry.id).collect(),
        Err(error) => {
            tracing::debug!(%image, %error, "previous manifest not usable; every chunk is asked for");
            HashSet::new()
        }
    }
}

/// Reads all layers, as many at a time as there are sealing threads.
async fn read_layers(
    source: &Arc<ImageSource>,
    image: &Image,
    settings: &PushSettings,
    progress: &Progress,
) -> Result<(Vec<Layer>, Vec<Spool>), PushError> {
    let total = image.layers.iter().map(|layer| layer.size).sum();
    let stage = Arc::new(progress.stage("layers", Unit::Bytes, total));
    let budget = Arc::new(Budget::new(settings.limits));
    let permits = Arc::new(Semaphore::new(settings.store.threads.max(1)));
    let mut readers = JoinSet::new();
    for (position, descriptor) in image.layers.iter().enumerate() {
        let (permits, source) = (Arc::clone(&permits), Arc::clone(source));
        let (descriptor, stage) = (descriptor.clone(), Arc::clone(&stage));
        let (budget, work_dir) = (Arc::clone(&budget), settings.work_dir.clone());
        let index = LayerIndex(u32::try_from(position).expect("layer counts are bounded"));
        readers.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("the semaphore is never closed");
            let blob = source.blob(&descriptor)?;
            let read = move || read_layer(index, &descriptor, blob, &budget, &work_dir, &stage);
            let read = tokio::task::spawn_blocking(read).await;
            let (layer, spool) = read.expect("layer reading returns errors and does not panic")?;
            Ok::<_, PushError>((position, layer, spool))
        });
    }
    let mut done: Vec<(usize, Layer, Spool)> = Vec::with_capacity(image.layers.len());
    while let Some(joined) = readers.join_next().await {
        done.push(joined.expect("layer readers return errors and do not panic")?);
    }
    done.sort_by_key(|&(position, ..)| position);
    if let Some(stage) = Arc::into_inner(stage) {
        stage.finish();
    }
    Ok(done.into_iter().map(|(_, layer, spool)| (layer, spool)).unzip())
}

fn read_layer(
    index: LayerIndex,
    descriptor: &LayerDescriptor,
    blob: Box<dyn std::io::Read + Send>,
    budget: &Budget,
    work_dir: &std::path::Path,
    stage: &Stage,
) -> Result<(Layer, Spool), LayerError> {
    layer::read_layer(index, descriptor, blob, budget, work_dir, &|bytes| stage.add(bytes))
}

async fn plan(layers: Vec<Layer>, digest: ImageDigest) -> Result<Layout, PushError> {
    let planned = tokio::task::spawn_blocking(move || {
        let tree = Tree::apply(&layers)?;
        Ok::<_, PushError>(Layout::plan(tree, &FilesystemIdentity::from_digest(digest.as_bytes()))?)
    });
    planned.await.expect("planning returns errors and does not panic")
}

const fn inodes(counts: ext4::Counts) -> u64 {
    counts.files + counts.directories + counts.symlinks + counts.special
}

struct Spools(Vec<Spool>);

impl ext4::FileSource for Spools {
    fn read_exact_at(&self, layer: LayerIndex, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let spool = self.0.get(layer.0 as usize).ok_or(std::io::ErrorKind::NotFound)?;
        spool.read_exact_at(offset, buf)
    }
}

fn renderer(layout: Arc<Layout>, spools: Vec<Spool>) -> Arc<pipeline::Render> {
    let spools = Spools(spools);
    Arc::new(move |index: ChunkIndex, out: &mut [u8]| {
        layout
            .render(index.0, &spools, out)
            .map_err(|source| RenderFailed { index, source: Box::new(source) })
    })
}
