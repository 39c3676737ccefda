//! The worker: store, tiers, FUSE session and the instances on them. The daemon is a worker
//! behind a socket; a command without a daemon is a worker for one instance.
//!
//! Invariants: an instance that was opened is in the table until it is closed; shutting down
//! closes all of them and leaves no mount, loop device or file behind.

use crate::config::WorkerSettings;
use crate::device::{ComposedDevice, ImageDevice, Overlay};
use crate::image::{Images, MountedImage};
use crate::run_dir::RunDir;
use crate::starts::{Place, Starts};
use anyhow::{Context, Result, bail};
use cache::l2::L2Tier;
use cache::metrics::MetricsSnapshot;
use cache::read_path::{ImageReader, ImageStats, ReadPath};
use cache::ssd::{SsdError, SsdTier};
use cache::tier::{ChunkTier, Usage};
use fleet::client::FleetSnapshot;
use fleet::settings::Following;
use fuse_mount::{DeviceMount, DeviceMountOptions, FuseMount, FuseMountOptions, IfBusy};
use image_format::ids::ImageId;
use image_format::manifest::Manifest;
use origin::catalog::Catalog;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an unmount waits for open files before the mount is detached.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(5);

/// Bytes that a writable instance may write where the request does not say.
const DEFAULT_WRITABLE_BYTES: u64 = 10 << 30;

/// What an instance is opened for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// Name or digest of the image.
    pub image: String,
    /// Whether it may be written to; what is written ends with the instance.
    pub writable: bool,
    /// Where to mount it; a place of the worker's own if none is given.
    pub target: Option<PathBuf>,
    /// Most bytes that may be written.
    pub writable_bytes: Option<u64>,
    /// Whether the instance counts as starting until [`Worker::started`]; else until it is
    /// open.
    #[serde(default)]
    pub starting: bool,
}

/// An instance, as others see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its id on this worker.
    pub id: String,
    /// Name or digest as asked for.
    pub image: String,
    /// Digest of the OCI image.
    pub digest: String,
    /// Where its root directory is mounted.
    pub directory: PathBuf,
    /// Whether it can be written to.
    pub writable: bool,
    /// What its image's readers caused so far.
    pub stats: ImageStats,
    /// The image's OCI configuration.
    pub config: serde_json::Value,
}

#[derive(Debug)]
enum Kind {
    /// The shared mount of the image, perhaps bound to a place of the user's.
    Shared { mounted: Arc<MountedImage>, bound: Option<PathBuf> },
    /// A device and mount of its own.
    Writable { reader: ImageReader, mount: DeviceMount, own: Option<PathBuf> },
}

#[derive(Debug)]
struct Instance {
    image: String,
    kind: Kind,
    starting: Option<Place>,
}

impl Instance {
    fn reader(&self) -> &ImageReader {
        match &self.kind {
            Kind::Shared { mounted, .. } => mounted.reader(),
            Kind::Writable { reader, .. } => reader,
        }
    }

    fn directory(&self) -> &Path {
        match &self.kind {
            Kind::Shared { bound: Some(bound), .. } => bound,
            Kind::Shared { mounted, .. } => mounted.directory(),
            Kind::Writable { mount, .. } => mount.target(),
        }
    }

    fn info(&self, id: &str) -> InstanceInfo {
        let manifest = self.reader().manifest();
        InstanceInfo {
            id: id.into(),
            image: self.image.clone(),
            digest: manifest.head().image.to_string(),
            directory: self.directory().to_path_buf(),
            writable: matches!(self.kind, Kind::Writable { .. }),
            stats: self.reader().stats(),
            config: serde_json::from_slice(manifest.config()).unwrap_or_default(),
        }
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerStatus {
    /// The store.
    pub store: String,
    /// Where its mounts are.
    pub run_dir: PathBuf,
    /// Counters and latencies by source.
    pub metrics: MetricsSnapshot,
    /// How full each tier is.
    pub tiers: BTreeMap<&'static str, TierUsage>,
    /// The remote cache as this worker sees it, if there is one.
    pub l2: Option<FleetSnapshot>,
    /// Instances that are starting.
    pub starting: usize,
    /// Starts refused because too many were under way.
    pub starts_refused: u64,
    /// Instances open.
    pub instances: usize,
}

/// How full a tier is.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TierUsage {
    pub chunks: u64,
    pub bytes: u64,
    pub capacity_bytes: u64,
}

impl From<Usage> for TierUsage {
    fn from(usage: Usage) -> Self {
        Self { chunks: usage.chunks, bytes: usage.bytes, capacity_bytes: usage.capacity_bytes }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    catalog: Catalog,
    read_path: ReadPath,
    ssd: Option<Arc<SsdTier>>,
    l2: Option<(Arc<L2Tier>, Following)>,
    starts: Starts,
    fuse: Arc<FuseMount>,
    images: Images,
    run_dir: Arc<RunDir>,
    sequence: AtomicU64,
    instances: Mutex<BTreeMap<String, Instance>>,
}

/// What to do if another process has the SSD tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfSsdInUse {
    /// Refuse to start: a daemon without its tier would be a surprise.
    Fail,
    /// Go on without: a single command must not fail beside a daemon.
    GoWithout,
}

impl Worker {
    /// Starts a worker: opens the store and the SSD tier and mounts the FUSE session. Asks
    /// the store nothing.
    ///
    /// # Errors
    /// If the store, the SSD tier or FUSE cannot be used.
    pub async fn start(settings: &WorkerSettings, run_dir: Arc<RunDir>, in_use: IfSsdInUse) -> Result<Self> {
        let catalog = settings.store.catalog().await?;
        let mut tiers: Vec<Arc<dyn ChunkTier>> = Vec::new();
        let mut ssd = None;
        if let Some(ssd_settings) = settings.ssd.clone() {
            let opened = tokio::task::spawn_blocking(move || SsdTier::open(ssd_settings)).await?;
            match opened {
                Ok(tier) => {
                    let tier = Arc::new(tier);
                    tiers.push(tier.clone());
                    ssd = Some(tier);
                }
                Err(error @ SsdError::InUse { .. }) if in_use == IfSsdInUse::GoWithout => {
                    tracing::warn!(%error, "running without the ssd tier");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut l2 = None;
        if let Some(settings) = &settings.l2 {
            let (fleet, following) = settings.open().await?;
            let tier = Arc::new(L2Tier::new(fleet));
            tiers.push(tier.clone());
            l2 = Some((tier, following));
        }
        let origin = Arc::clone(catalog.origin());
        let read_path = ReadPath::new(settings.read_path.clone(), origin, tiers);
        let mut options = FuseMountOptions::default();
        options.request_deadline = settings.fuse_deadline;
        let fuse = FuseMount::mount(&run_dir.sub("devices")?, &options).await?;
        let fuse = Arc::new(fuse);
        let images = Images::new(read_path.clone(), Arc::clone(&fuse), run_dir.sub("images")?);
        Ok(Self {
            catalog,
            read_path,
            ssd,
            l2,
            starts: Starts::new(settings.max_starts),
            fuse,
            images,
            run_dir,
            sequence: AtomicU64::new(0),
            instances: Mutex::default(),
        })
    }

    /// The images of the store.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The images that are mounted.
    #[must_use]
    pub const fn images(&self) -> &Images {
        &self.images
    }

    fn instances(&self) -> MutexGuard<'_, BTreeMap<String, Instance>> {
        // entries are inserted and removed whole
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an instance of an image. Not cancel-safe.
    ///
    /// # Errors
    /// [`crate::starts::TooManyStarts`] at once if too many are under way; or if there is no such image, or
    /// it cannot be mounted there.
    pub async fn open(&self, request: &OpenRequest) -> Result<InstanceInfo> {
        let place = self.starts.begin()?;
        let manifest = Arc::new(self.catalog.resolve(&request.image).await?);
        let id = format!("i{}", self.sequence.fetch_add(1, Ordering::Relaxed));
        let kind = if request.writable {
            self.open_writable(&id, manifest, request).await?
        } else {
            self.open_shared(manifest, request.target.as_deref()).await?
        };
        let starting = request.starting.then_some(place);
        let instance = Instance { image: request.image.clone(), kind, starting };
        let info = instance.info(&id);
        self.instances().insert(id, instance);
        Ok(info)
    }

    /// Ends the start of an instance that was opened as starting.
    pub fn started(&self, id: &str) {
        if let Some(instance) = self.instances().get_mut(id) {
            instance.starting = None;
        }
    }

    async fn open_shared(&self, manifest: Arc<Manifest>, target: Option<&Path>) -> Result<Kind> {
        let id = manifest.head().image_id();
        let mounted = self.images.acquire(manifest).await?;
        let Some(target) = target else { return Ok(Kind::Shared { mounted, bound: None }) };
        match bind(mounted.directory(), target).await {
            Ok(()) => Ok(Kind::Shared { mounted, bound: Some(target.to_path_buf()) }),
            Err(error) => {
                drop(mounted);
                self.images.release(id).await;
                Err(error)
            }
        }
    }

    async fn open_writable(&self, id: &str, manifest: Arc<Manifest>, request: &OpenRequest) -> Result<Kind> {
        let (directory, own) = match &request.target {
            Some(target) => (target.clone(), None),
            None => {
                let own = self.run_dir.sub("instances")?.join(id);
                tokio::fs::create_dir(&own)
                    .await
                    .with_context(|| format!("cannot make {}", own.display()))?;
                (own.clone(), Some(own))
            }
        };
        let reader = self.read_path.open_image(manifest);
        let overlay_dir = self.run_dir.path();
        let budget = request.writable_bytes.unwrap_or(DEFAULT_WRITABLE_BYTES);
        let overlay = Overlay::create(overlay_dir, reader.manifest().head().device_len, budget)
            .with_context(|| format!("cannot make an overlay in {}", overlay_dir.display()))?;
        let device = ComposedDevice::new(Arc::new(ImageDevice::new(reader.clone())), overlay);
        let mut options = DeviceMountOptions::default();
        options.read_only = false;
        let name = format!("writable-{id}");
        let mounted =
            DeviceMount::mount(Arc::clone(&self.fuse), &name, Arc::new(device), &directory, &options).await;
        match mounted {
            Ok(mount) => Ok(Kind::Writable { reader, mount, own }),
            Err(error) => {
                if let Some(own) = own {
                    let _ = tokio::fs::remove_dir(own).await;
                }
                Err(error).with_context(|| format!("the image cannot be mounted at {}", directory.display()))
            }
        }
    }

    /// Closes an instance and undoes its mounts.
    ///
    /// # Errors
    /// If there is no such instance.
    pub async fn close(&self, id: &str) -> Result<InstanceInfo> {
        let Some(instance) = self.instances().remove(id) else {
            bail!("no instance {id:?}; `blockd ps` lists them");
        };
        let info = instance.info(id);
        self.undo(instance).await;
        Ok(info)
    }

    async fn undo(&self, instance: Instance) {
        match instance.kind {
            Kind::Shared { mounted, bound } => {
                if let Some(bound) = bound {
                    let detached = tokio::task::spawn_blocking(move || unmount(&bound, UnmountFlags::DETACH));
                    if let Ok(Err(error)) = detached.await {
                        tracing::warn!(%error, "a mount was undone by somebody else");
                    }
                }
                let id = image_id(&mounted);
                drop(mounted);
                self.images.release(id).await;
            }
            Kind::Writable { mount, own, .. } => {
                if let Err(error) = mount.unmount(UNMOUNT_DEADLINE, IfBusy::Detach).await {
                    tracing::warn!(%error, "a writable instance was still in use");
                }
                if let Some(own) = own {
                    let _ = tokio::fs::remove_dir(own).await;
                }
            }
        }
    }

    /// The instance's present state.
    #[must_use]
    pub fn info(&self, id: &str) -> Option<InstanceInfo> {
        self.instances().get(id).map(|instance| instance.info(id))
    }

    /// All instances.
    #[must_use]
    pub fn list(&self) -> Vec<InstanceInfo> {
        self.instances().iter().map(|(id, instance)| instance.info(id)).collect()
    }

    /// The id of the instance that is mounted at `target`, or has that id.
    #[must_use]
    pub fn find(&self, target: &str) -> Option<String> {
        let instances = self.instances();
        let by_place = instances.iter().find(|(_, instance)| instance.directory() == Path::new(target));
        by_place.map(|(id, _)| id.clone()).or_else(|| instances.contains_key(target).then(|| target.into()))
    }

    /// What the worker is doing.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        let mut tiers: BTreeMap<&'static str, TierUsage> = self
            .read_path
            .tier_usage()
            .filter(|(name, _)| *name != "l2")
            .map(|(name, usage)| (name, usage.into()))
            .collect();
        tiers.insert("memory", self.read_path.memory_usage().into());
        WorkerStatus {
            store: self.catalog.origin().describe(),
            run_dir: self.run_dir.path().to_path_buf(),
            metrics: self.read_path.metrics(),
            tiers,
            l2: self.l2.as_ref().map(|(tier, _)| tier.stats()),
            starting: self.starts.under_way(),
            starts_refused: self.starts.refused(),
            instances: self.instances().len(),
        }
    }

    /// Closes everything. The worker answers nothing afterwards.
    pub async fn shutdown(&self) {
        let instances = std::mem::take(&mut *self.instances());
        for instance in instances.into_values() {
            self.undo(instance).await;
        }
        if let Err(error) = self.fuse.unmount(UNMOUNT_DEADLINE).await {
            tracing::warn!(%error, "the FUSE mount could not be undone");
        }
        self.read_path.settle().await;
        if let Some((l2, _)) = &self.l2
            && tokio::time::timeout(UNMOUNT_DEADLINE, l2.settle()).await.is_err()
        {
            tracing::debug!("repairs of the remote cache were left to others");
        }
        if let Some(ssd) = &self.ssd {
            ssd.settle().await;
        }
    }
}

fn image_id(mounted: &MountedImage) -> ImageId {
    mounted.reader().manifest().head().image_id()
}

/// Binds the image's mount to a directory of the user's, read-only.
async fn bind(from: &Path, to: &Path) -> Result<()> {
    let (source, target) = (from.to_path_buf(), to.to_path_buf());
    let bound = tokio::task::spawn_blocking(move || {
        mount_bind(&source, &target)?;
        mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV, c"")
    });
    bound.await?.with_context(|| format!("the image cannot be mounted at {}", to.display()))
}
