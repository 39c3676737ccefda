//! What one sandbox has on disk: its directory, and an overlay over a read-only image.
//!
//! The overlay exists so that the runtime can make mount points in images that lack them; the
//! sandbox itself sees a read-only root.
//!
//! Invariant: [`Place::clear`] undoes everything that [`Place::make`] and
//! [`Place::mount_root`] did, in any state, and never crosses into a mounted file system.

use super::{SandboxError, worker};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the name `/tmp` leads in a sandbox whose processes have one each: to whatever
/// directory the process that uses the name has open under this number.
const PRIVATE_TMP: &str = "/proc/self/fd/900";

static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// A sandbox's directory and mounts.
#[derive(Debug)]
pub(super) struct Place {
    /// The sandbox's id, unique on this host.
    pub(super) id: String,
    /// Its directory: the bundle.
    pub(super) directory: PathBuf,
    /// Its root file system.
    pub(super) root: PathBuf,
}

fn make_directory(path: &Path) -> Result<(), SandboxError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(SandboxError::io("make directory", path))
}

impl Place {
    /// A directory with a new id. Nothing is mounted yet.
    ///
    /// # Errors
    /// [`SandboxError::Io`] if the run directory cannot be written to.
    pub(super) fn make(run_dir: &Path) -> Result<Self, SandboxError> {
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{sequence}", worker::name());
        let directory = run_dir.join("sandboxes").join(&id);
        make_directory(&directory)?;
        make_directory(&run_dir.join("runtime"))?;
        let root = directory.join("root");
        Ok(Self { id, directory, root })
    }

    /// What a dead worker left of a sandbox.
    pub(super) fn of_orphan(id: String, directory: PathBuf) -> Self {
        let root = directory.join("root");
        Self { id, directory, root }
    }

    /// Memory for the overlay's upper layer: the part of [`Self::mount_root`] that needs no
    /// image, to be done ahead.
    ///
    /// # Errors
    /// [`SandboxError::Io`] if it cannot be mounted.
    pub(super) fn make_scratch(&self) -> Result<(), SandboxError> {
        for name in ["root", "scratch"] {
            make_directory(&self.directory.join(name))?;
        }
        let scratch = self.directory.join("scratch");
        // An overlay's upper directory must not lie on an overlay, and is best in memory. The
        // directory of most workers is (/run): a mount less for each sandbox, and all mounts are
        // copied and listed several times in each start. The sandbox cannot write there.
        if !is_memory(&scratch)? {
            let flags = MountFlags::NODEV | MountFlags::NOSUID;
            mount("tmpfs", &scratch, "tmpfs", flags, Some(c"mode=700,size=1m"))
                .map_err(io::Error::from)
                .map_err(SandboxError::io("mount a tmpfs at", &scratch))?;
        }
        for name in ["upper", "work"] {
            make_directory(&scratch.join(name))?;
        }
        Ok(())
    }

    /// Lays an overlay over `lower`. With `private_tmp` every process has its own `/tmp`.
    ///
    /// # Errors
    /// [`SandboxError::Io`] if it cannot be mounted.
    pub(super) fn mount_root(&self, lower: &Path, private_tmp: bool) -> Result<(), SandboxError> {
        let scratch = self.directory.join("scratch");
        let upper = scratch.join("upper");
        let root_mode = fs::metadata(lower).map_err(SandboxError::io("stat", lower))?.permissions();
        fs::set_permissions(&upper, root_mode).map_err(SandboxError::io("set the mode of", &upper))?;
        if private_tmp {
            let tmp = upper.join("tmp");
            symlink(PRIVATE_TMP, &tmp).map_err(SandboxError::io("make the link", &tmp))?;
        }
        let escaped = lower.display().to_string().replace('\\', "\\\\").replace([':', ','], "\\:");
        let options = format!(
            "lowerdir={escaped},upperdir={},workdir={}",
            upper.display(),
            scratch.join("work").display()
        );
        let options = CString::new(options)
            .map_err(|_| SandboxError::Request("the run directory's path contains a NUL byte".into()))?;
        mount("overlay", &self.root, "overlay", MountFlags::NODEV, Some(options.as_c_str()))
            .map_err(io::Error::from)
            .map_err(SandboxError::io("mount an overlay at", &self.root))
    }

    /// Unmounts and removes; what cannot be undone is logged and found by the next start.
    pub(super) fn clear(&self) {
        for name in ["root", "scratch"] {
            // not mounted, or not even there, is as good
            let _ = unmount(self.directory.join(name), UnmountFlags::DETACH);
        }
        if let Err(error) = remove_unmounted(&self.directory) {
            tracing::warn!(sandbox = %self.id, %error, "sandbox directory could not be removed");
        }
    }
}

/// Whether a directory is on a file system in memory.
fn is_memory(path: &Path) -> Result<bool, SandboxError> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let about = rustix::fs::statfs(path).map_err(io::Error::from);
    Ok(about.map_err(SandboxError::io("look at the file system of", path))?.f_type == TMPFS_MAGIC)
}

/// Removes a sandbox directory without crossing into an image still mounted in it.
fn remove_unmounted(directory: &Path) -> io::Result<()> {
    let missing_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    missing_is_fine(fs::remove_dir(directory.join("root")))?;
    // only the runtime's mount points were ever made here
    missing_is_fine(fs::remove_dir_all(directory.join("scratch")))?;
    for name in ["config.json", "pid", "log"] {
        let _ = fs::remove_file(directory.join(name));
    }
    fs::remove_dir(directory)
}
