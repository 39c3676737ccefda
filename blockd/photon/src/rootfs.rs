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
