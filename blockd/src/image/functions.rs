//! Images for functions' sandboxes: one read-only mount per image, counted by its users.
//!
//! Invariant: a manifest is kept by digest only, under its tenant: a name may move, a digest
//! never does, and what one tenant may open another may not.

use crate::image::MountedImage;
use crate::worker::Worker;
use async_trait::async_trait;
use image_format::ids::TenantId;
use image_format::manifest::Manifest;
use photon::function::Function;
use photon::rootfs::{RootFs, RootFsSource};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Manifests kept, each some hundred KiB at most times: starts on a worker that has the image
/// ask the store nothing.
const MOST_MANIFESTS: usize = 64;

/// Mounts functions' images through a worker.
#[derive(Debug)]
pub struct FunctionImages {
    worker: Arc<Worker>,
    manifests: Mutex<HashMap<(String, String), Arc<Manifest>>>,
}

/// A function's root file system.
#[derive(Debug)]
struct FunctionRootFs {
    mounted: Arc<MountedImage>,
}

impl RootFs for FunctionRootFs {
    fn directory(&self) -> &Path {
        self.mounted.directory()
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn config(&self) -> &[u8] {
        self.mounted.reader().manifest().config()
    }
}

impl FunctionImages {
    /// Images of `worker`.
    #[must_use]
    pub fn new(worker: Arc<Worker>) -> Self {
        Self { worker, manifests: Mutex::default() }
    }

    fn known(&self, key: &(String, String)) -> Option<Arc<Manifest>> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    async fn manifest(&self, function: &Function) -> anyhow::Result<Arc<Manifest>> {
        let key = (function.key.tenant.clone(), function.image.clone());
        if let Some(manifest) = self.known(&key) {
            return Ok(manifest);
        }
        let tenant: TenantId = function.key.tenant.parse()?;
        let manifest = Arc::new(self.worker.catalog().for_tenant(tenant).resolve(&function.image).await?);
        if function.image.starts_with("sha256:") {
            let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
            if manifests.len() >= MOST_MANIFESTS {
                // rare, and costs some requests: no order is kept for it
                manifests.clear();
            }
            manifests.insert(key, Arc::clone(&manifest));
        }
        Ok(manifest)
    }
}

#[async_trait]
impl RootFsSource for FunctionImages {
    async fn acquire(&self, function: &Function) -> Result<Arc<dyn RootFs>, String> {
        let manifest = self.manifest(function).await.map_err(|error| format!("{error:#}"))?;
        let mounted = self.worker.images().acquire(manifest).await.map_err(|error| format!("{error:#}"))?;
        Ok(Arc::new(FunctionRootFs { mounted }))
    }

    async fn release(&self, rootfs: Arc<dyn RootFs>) {
        let directory = rootfs.directory().to_path_buf();
        drop(rootfs);
        self.worker.images().release_at(&directory).await;
    }
}
