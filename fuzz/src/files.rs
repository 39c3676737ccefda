//! Files of the running target: in memory where a path is all that is asked for.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

/// A file without a name that is written anew for every input.
#[derive(Debug)]
pub struct MemoryFile(File);

impl MemoryFile {
    /// An empty one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        Ok(Self(rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC)?.into()))
    }

    /// Replaces its contents.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.write_all_at(bytes, 0)
    }

    /// Lets nobody else read it, as the keyring demands.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_private(&self) -> io::Result<()> {
        self.0.set_permissions(Permissions::from_mode(0o600))
    }

    /// A path at which this process can open it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
