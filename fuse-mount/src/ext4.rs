//! Mounting and unmounting ext4 on a block device; a guard that does not leave a mount behind.
//!
//! All functions block: called through `off_thread.rs` only.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::off_thread;

/// A mounted ext4; dropped while still mounted, it is detached lazily on another thread.
#[derive(Debug)]
pub(crate) struct Ext4Mount {
    target: Option<PathBuf>,
}

impl Ext4Mount {
    /// Mounts `source` at `target`; read-only mounts never replay the journal.
    pub(crate) fn new(source: &Path, target: &Path, read_only: bool, options: &str) -> io::Result<Self> {
        let mut flags = MountFlags::NODEV | MountFlags::NOATIME;
        let mut data = if read_only {
            flags |= MountFlags::RDONLY;
            "noload".to_owned()
        } else {
            "errors=remount-ro".to_owned()
        };
        if !options.is_empty() {
            data.push(',');
            data.push_str(options);
        }
        let data = CString::new(data)?;
        mount(source, target, "ext4", flags, data.as_c_str())?;
        Ok(Self { target: Some(target.to_owned()) })
    }

    /// Gives up responsibility: the mount was undone by other means.
    pub(crate) fn forget(&mut self) {
        self.target = None;
    }
}

impl Drop for Ext4Mount {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            let started = off_thread::start(move || {
                if let Err(error) = detach(&target) {
                    tracing::warn!(target = %target.display(), %error, "cannot detach a dropped mount");
                }
            });
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to detach a dropped mount");
            }
        }
    }
}

/// Unmounts if nobody uses the mount.
pub(crate) fn unmount_idle(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount out of the tree at once; it ends when its last user does.
pub(crate) fn detach(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

/// Aborts a FUSE mount's connection: every waiting request fails, the mount stays if it is used.
pub(crate) fn force(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::FORCE)?)
}
