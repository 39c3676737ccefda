//! The seam to whoever provides root file systems.

use std::path::{Path, PathBuf};

/// A mounted root file system of an image.
///
/// Contract: [`RootFs::directory`] stays mounted and unchanged by others while the value
/// lives; its owner unmounts only after the sandbox has ended.
pub trait RootFs: Send + Sync {
    /// The root directory on this host.
    fn directory(&self) -> &Path;

    /// Whether processes of the sandbox may write to it.
    fn is_writable(&self) -> bool;

    /// The image's OCI configuration, verbatim JSON.
    fn config(&self) -> &[u8];
}

/// A directory that is there anyway: for tests and unpacked images.
#[derive(Debug, Clone)]
pub struct DirectoryRootFs {
    directory: PathBuf,
    writable: bool,
    config: Vec<u8>,
}

impl DirectoryRootFs {
    /// A root file system in `directory` with an OCI configuration.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, writable: bool, config: impl Into<Vec<u8>>) -> Self {
        Self { directory: directory.into(), writable, config: config.into() }
    }
}

impl RootFs for DirectoryRootFs {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn config(&self) -> &[u8] {
        &self.config
    }
}

/// Where functions' root file systems come from.
///
/// Contract: every `Ok` of [`RootFsSource::acquire`] is given back by one
/// [`RootFsSource::release`], after the last process that used it ended.
#[async_trait::async_trait]
pub trait RootFsSource: Send + Sync {
    /// The mounted image of a function, shared with all its other sandboxes. Not cancel-safe.
    ///
    /// # Errors
    /// Why it cannot be had, with advice, for the function's owner.
    async fn acquire(
        &self,
        function: &crate::function::Function,
    ) -> Result<std::sync::Arc<dyn RootFs>, String>;

    /// Gives one back.
    async fn release(&self, rootfs: std::sync::Arc<dyn RootFs>);
}

#[async_trait::async_trait]
impl RootFsSource for DirectoryRootFs {
    async fn acquire(&self, _: &crate::function::Function) -> Result<std::sync::Arc<dyn RootFs>, String> {
        Ok(std::sync::Arc::new(self.clone()))
    }

    async fn release(&self, _: std::sync::Arc<dyn RootFs>) {}
}
