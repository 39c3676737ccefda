//! The images mounted on this worker: one device and one read-only mount per image, shared
//! by all its users.
//!
//! ```text
//! absent ─first user─▶ mounting ─▶ ready ─last user leaves─▶ draining ─▶ absent
//! ```
//!
//! Invariants: an image is mounted once however many users it has; a slow or failing mount
//! of one image never delays another; a mount is undone only when nobody uses it.

use crate::device::ImageDevice;
use anyhow::{Context, Result};
use cache::read_path::{ImageReader, ReadPath};
use fuse_mount::{DeviceMount, DeviceMountOptions, FuseMount, IfBusy};
use image_format::ids::ImageId;
use image_format::manifest::Manifest;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long an unmount waits for open files before the mount is detached.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(5);

/// An image that is mounted read-only.
#[derive(Debug)]
pub struct MountedImage {
    reader: ImageReader,
    mount: DeviceMount,
    directory: PathBuf,
}

impl MountedImage {
    /// The image's reader: manifest, statistics, prefetch.
    #[must_use]
    pub const fn reader(&self) -> &ImageReader {
        &self.reader
    }

    /// The root directory of the image.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[derive(Debug, Default)]
struct Slot {
    users: usize,
    mounted: Arc<OnceCell<Arc<MountedImage>>>,
}

/// The images of one worker.
#[derive(Debug)]
pub struct Images {
    read_path: ReadPath,
    fuse: Arc<FuseMount>,
    directory: PathBuf,
    sequence: AtomicU64,
    slots: Mutex<HashMap<ImageId, Slot>>,
}

impl Images {
    /// No images yet. They are mounted below `directory`.
    #[must_use]
    pub fn new(read_path: ReadPath, fuse: Arc<FuseMount>, directory: PathBuf) -> Self {
        Self { read_path, fuse, directory, sequence: AtomicU64::new(0), slots: Mutex::default() }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<ImageId, Slot>> {
        // counts and entries change together without a panic in between
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts the image unless it is mounted, and counts the caller as its user. Every `Ok`
    /// is given back by one [`Self::release`]. Not cancel-safe.
    ///
    /// # Errors
    /// If the image cannot be mounted; the caller is not counted then.
    pub async fn acquire(&self, manifest: Arc<Manifest>) -> Result<Arc<MountedImage>> {
        let id = manifest.head().image_id();
        let cell = {
            let mut slots = self.slots();
            let slot = slots.entry(id).or_default();
            slot.users += 1;
            Arc::clone(&slot.mounted)
        };
        let mounted = cell.get_or_try_init(|| self.mount(manifest)).await.cloned();
        if mounted.is_err() {
            self.leave(id);
        }
        mounted
    }

    /// One user less. Returns the mount if that was the last.
    fn leave(&self, id: ImageId) -> Option<Arc<MountedImage>> {
        let mut slots = self.slots();
        let slot = slots.get_mut(&id)?;
        slot.users = slot.users.saturating_sub(1);
        if slot.users > 0 {
            return None;
        }
        slots.remove(&id).and_then(|slot| slot.mounted.get().cloned())
    }

    async fn mount(&self, manifest: Arc<Manifest>) -> Result<Arc<MountedImage>> {
        // a number of its own: an earlier mount of the image may still be draining
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{sequence}", &manifest.head().image_id().to_string()[..16]);
        let directory = self.directory.join(&name);
        tokio::fs::create_dir(&directory)
            .await
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let reader = self.read_path.open_image(manifest);
        let device = Arc::new(ImageDevice::new(reader.clone()));
        let options = DeviceMountOptions::default();
        let mounted = DeviceMount::mount(Arc::clone(&self.fuse), &name, device, &directory, &options).await;
        match mounted {
            Ok(mount) => Ok(Arc::new(MountedImage { reader, mount, directory })),
            Err(error) => {
                let _ = tokio::fs::remove_dir(&directory).await;
                Err(error).context("the image cannot be mounted")
            }
        }
    }

    /// [`Self::release`] for whoever knows the mount by its directory.
    pub async fn release_at(&self, directory: &Path) {
        let here = |slot: &Slot| slot.mounted.get().is_some_and(|mounted| mounted.directory == directory);
        let id = self.slots().iter().find(|(_, slot)| here(slot)).map(|(id, _)| *id);
        if let Some(id) = id {
            self.release(id).await;
        }
    }

    /// Counts a user out and unmounts after the last.
    pub async fn release(&self, id: ImageId) {
        let Some(mounted) = self.leave(id) else { return };
        if let Err(error) = mounted.mount.unmount(UNMOUNT_DEADLINE, IfBusy::Detach).await {
            tracing::warn!(image = %id, %error, "image still in use while it is unmounted");
        }
        if let Err(error) = tokio::fs::remove_dir(&mounted.directory).await {
            tracing::warn!(image = %id, %error, "mount point could not be removed");
        }
    }
}
