//! Loop devices: a file becomes a kernel block device.
//!
//! Every loop device made here clears itself at its last close, so that a daemon that dies leaves
//! none behind once its mounts are gone. All functions block, some on an answer of the FUSE mount
//! that holds the file: they are called through `off_thread.rs` only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::SECTOR_SIZE;
use crate::error::MountError;
use crate::sys;

/// How often a free loop device is looked for: another process may take the one found, each time.
const MAX_ATTEMPTS: u32 = 64;

/// How long between two looks at whether the kernel has let go.
const POLL: Duration = Duration::from_millis(2);

/// How to attach a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoopOptions {
    /// Whether the block device refuses writes.
    pub read_only: bool,
    /// Whether the loop device bypasses the page cache of its file (see
    /// `docs/decisions/0003-fuse-and-loop.md`).
    pub direct_io: bool,
    /// Read-ahead of the block device in KiB; the kernel's default is 128.
    pub read_ahead_kib: u32,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { read_only: true, direct_io: true, read_ahead_kib: 128 }
    }
}

/// An attached loop device; dropping it lets the kernel detach it as soon as nobody uses it.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `file`. Blocks; must not run on a thread that serves the file.
    ///
    /// # Errors
    /// [`MountError::Io`] naming the step that failed.
    pub fn attach(file: &Path, options: &LoopOptions) -> Result<Self, MountError> {
        let backing = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(libc::O_CLOEXEC)
            .open(file)
            .map_err(|error| MountError::io("open for a loop device", file, error))?;
        let attached = Self::attach_any(&backing, options)
            .map_err(|error| MountError::io("attach a loop device to", file, error))?;
        attached.set_read_ahead(options.read_ahead_kib)?;
        Ok(attached)
    }

    fn attach_any(backing: &File, options: &LoopOptions) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut flags = sys::LO_FLAGS_AUTOCLEAR;
        if options.read_only {
            flags |= sys::LO_FLAGS_READ_ONLY;
        }
        if options.direct_io {
            flags |= sys::LO_FLAGS_DIRECT_IO;
        }
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for attempt in 0..MAX_ATTEMPTS {
            let number = sys::loop_get_free(control.as_fd())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let opened = OpenOptions::new().read(true).write(!options.read_only).open(&path);
            let outcome = opened.and_then(|device| {
                sys::loop_configure(device.as_fd(), backing.as_fd(), SECTOR_SIZE, flags)?;
                Ok(device)
            });
            match outcome {
                Ok(device) => return Ok(Self { device, path }),
                // Someone else was faster, or the node of a new device is not there yet.
                Err(error) if is_race(&error) => last = error,
                Err(error) => return Err(error),
            }
            thread::sleep(POLL * attempt.min(10));
        }
        Err(last)
    }

    /// The block device, such as `/dev/loop3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn set_read_ahead(&self, kib: u32) -> Result<(), MountError> {
        let setting = sysfs(&self.path).join("queue/read_ahead_kb");
        std::fs::write(&setting, kib.to_string())
            .map_err(|error| MountError::io("set the read-ahead in", setting, error))
    }

    /// Detaches and waits until the kernel has let go of the file, up to `deadline`. Blocks.
    ///
    /// # Errors
    /// [`MountError::Busy`] if someone still uses the block device; the kernel detaches it when
    /// they stop.
    pub fn detach(self, deadline: Duration) -> Result<(), MountError> {
        let backing = backing_file(&self.path);
        let path = self.path.clone();
        match sys::loop_clear(self.device.as_fd()) {
            Err(error) if error.raw_os_error() != Some(libc::ENXIO) => {
                return Err(MountError::io("detach", path, error));
            }
            _ => drop(self),
        }
        wait_detached(&path, backing.as_deref(), deadline)
    }
}

/// Detaches the loop device at `path`, whoever made it, and waits up to `deadline`. Blocks.
pub(crate) fn detach_path(path: &Path, deadline: Duration) -> Result<(), MountError> {
    let device = File::open(path).map_err(|error| MountError::io("open", path, error))?;
    LoopDevice { device, path: path.to_owned() }.detach(deadline)
}

/// The loop devices that are attached to something: device and file.
pub(crate) fn attached() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(b"loop") {
            let path = Path::new("/dev").join(&name);
            if let Some(file) = backing_file(&path) {
                found.push((path, file));
            }
        }
    }
    Ok(found)
}

/// The file behind a loop device, `None` if there is none.
fn backing_file(path: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(sysfs(path).join("loop/backing_file")).ok()?;
    Some(PathBuf::from(text.strip_suffix('\n').unwrap_or(&text)))
}

fn wait_detached(path: &Path, backing: Option<&Path>, deadline: Duration) -> Result<(), MountError> {
    let start = Instant::now();
    // If the number now has another file, ours is gone and someone else uses the number.
    while backing.is_some() && backing_file(path).as_deref() == backing {
        if start.elapsed() >= deadline {
            return Err(MountError::Busy { path: path.to_owned(), waited: deadline });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn sysfs(path: &Path) -> PathBuf {
    Path::new("/sys/block").join(path.file_name().unwrap_or_default())
}

fn is_race(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENXIO | libc::ENOENT | libc::EAGAIN))
}
