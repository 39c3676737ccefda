//! One FUSE mount: its session threads, its devices, its end.
//!
//! We mount and unmount ourselves and give the session an open `/dev/fuse`: source and type are
//! then ours (`stale.rs` finds them) and forcing an unmount is possible. The blocking calls run
//! through `off_thread.rs`, because they may wait for answers of our own session.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::{BackgroundSession, Config, INodeNo, Notifier, Session, SessionACL};
use rustix::mount::{MountFlags, mount};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::bridge::Bridge;
use crate::device::BlockDevice;
use crate::error::MountError;
use crate::fs::{DeviceFs, MAX_REQUEST_BYTES};
use crate::table::{ROOT_INODE, Slot, Table};
use crate::{ext4, mountinfo, off_thread};

/// File system type of our mounts in the mount table; what `stale.rs` looks for.
pub(crate) const FS_TYPE: &str = "fuse.lantern";

/// How long between two attempts at something the kernel calls busy.
pub(crate) const RETRY: Duration = Duration::from_millis(10);

/// Settings of a [`FuseMount`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FuseMountOptions {
    /// Session threads. Each answers one request from memory at a time; misses do not hold one.
    pub threads: usize,
    /// Device calls in progress per device. More use more memory (up to 1 MiB each), fewer leave
    /// the origin idle while a deep queue waits.
    pub max_in_flight: usize,
    /// A device call that takes longer is answered with EIO. Longer rides out a slow origin,
    /// shorter frees stuck processes sooner.
    pub request_deadline: Duration,
    /// Read-ahead of the FUSE files in KiB, for readers that do not come through a loop device
    /// with direct I/O.
    pub read_ahead_kib: u32,
    /// Whether the kernel keeps no pages of the FUSE files.
    pub direct_io: bool,
}

impl Default for FuseMountOptions {
    fn default() -> Self {
        Self {
            threads: 2,
            max_in_flight: 64,
            request_deadline: Duration::from_secs(60),
            read_ahead_kib: 1024,
            direct_io: false,
        }
    }
}

/// A mounted FUSE file system that shows devices as files. Only root can look into it.
///
/// Dropping it unmounts as far as possible without waiting; [`unmount`](Self::unmount) does it
/// in order and says how it went.
pub struct FuseMount {
    directory: PathBuf,
    table: Arc<Table>,
    max_in_flight: usize,
    notifier: Notifier,
    session: Mutex<Option<BackgroundSession>>,
}

impl std::fmt::Debug for FuseMount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FuseMount").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl FuseMount {
    /// Mounts at `directory`, which must exist. Device calls run on the current runtime.
    /// Not cancel-safe: dropped midway, the mount is undone in the background.
    ///
    /// # Errors
    /// [`MountError::Io`] if `/dev/fuse` or the mount is refused.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn mount(directory: &Path, options: &FuseMountOptions) -> Result<Self, MountError> {
        let (directory, options, runtime) = (directory.to_owned(), options.clone(), Handle::current());
        let context = directory.clone();
        let started = off_thread::start(move || Self::mount_blocking(&directory, &options, runtime))
            .map_err(|error| MountError::io("start a thread to mount", &context, error))?;
        started.await.unwrap_or_else(|_| {
            Err(MountError::io("mount FUSE at", context, io::Error::other("the mounting thread panicked")))
        })
    }

    fn mount_blocking(
        directory: &Path,
        options: &FuseMountOptions,
        runtime: Handle,
    ) -> Result<Self, MountError> {
        let context = |action| move |error: io::Error| MountError::io(action, directory, error);
        let directory = directory.canonicalize().map_err(context("resolve"))?;
        let fuse = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|error| MountError::io("open", "/dev/fuse", error))?;
        mount_fuse(&fuse, &directory).map_err(context("mount FUSE at"))?;
        let table = Arc::new(Table::default());
        let bridge = Bridge::new(runtime, options.request_deadline);
        let fs = DeviceFs::new(Arc::clone(&table), bridge, options.direct_io);
        let mut config = Config::default();
        config.n_threads = Some(options.threads.max(1));
        config.clone_fd = true;
        let session = Session::from_fd(fs, fuse.into(), SessionACL::Owner, config).and_then(Session::spawn);
        let session = session.map_err(|error| {
            if let Err(error) = ext4::detach(&directory) {
                tracing::warn!(%error, "cannot undo a FUSE mount that did not start");
            }
            MountError::io("start the FUSE session at", &directory, error)
        })?;
        let mounted = Self {
            directory,
            table,
            max_in_flight: options.max_in_flight.max(1),
            notifier: session.notifier(),
            session: Mutex::new(Some(session)),
        };
        mounted.set_read_ahead(options.read_ahead_kib);
        Ok(mounted)
    }

    /// Read-ahead is only speed: a kernel or container that hides the setting is no reason to fail.
    fn set_read_ahead(&self, kib: u32) {
        let device = mountinfo::read().ok().and_then(|mounts| {
            mounts.into_iter().rev().find(|entry| entry.target == self.directory).map(|entry| entry.device)
        });
        if let Some(device) = device {
            let setting = Path::new("/sys/class/bdi").join(device).join("read_ahead_kb");
            if let Err(error) = std::fs::write(&setting, kib.to_string()) {
                tracing::debug!(setting = %setting.display(), %error, "cannot set the read-ahead");
            }
        }
    }

    /// Where the devices are shown.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Shows `device` as a file and returns its path.
    ///
    /// # Errors
    /// [`MountError::Exists`] or [`MountError::Invalid`].
    pub fn add(&self, name: &str, device: Arc<dyn BlockDevice>) -> Result<PathBuf, MountError> {
        self.table.add(name, device, self.max_in_flight)?;
        Ok(self.directory.join(name))
    }

    /// Removes a device as soon as nobody has its file open, waiting up to `deadline`. Until it
    /// is gone it keeps serving. Cancel-safe.
    ///
    /// # Errors
    /// [`MountError::NotFound`]; [`MountError::Busy`] if it is still open at the deadline.
    pub async fn remove(&self, name: &str, deadline: Duration) -> Result<(), MountError> {
        let slot = self.slot(name)?;
        let until = Instant::now() + deadline;
        while !self.table.remove(&slot, false) {
            if tokio::time::timeout_at(until, slot.idle()).await.is_err() {
                return Err(MountError::Busy { path: self.directory.join(name), waited: deadline });
            }
        }
        self.forget_name(name);
        Ok(())
    }

    /// Removes a device at once; handles that are still open get EIO for ever.
    ///
    /// # Errors
    /// [`MountError::NotFound`].
    pub fn remove_now(&self, name: &str) -> Result<(), MountError> {
        let slot = self.slot(name)?;
        slot.fail();
        self.table.remove(&slot, true);
        self.forget_name(name);
        Ok(())
    }

    /// Answers every request to a device with EIO from now on, also those that wait: the way out
    /// when a device hangs. The others are not affected.
    ///
    /// # Errors
    /// [`MountError::NotFound`].
    pub fn fail(&self, name: &str) -> Result<(), MountError> {
        self.slot(name)?.fail();
        Ok(())
    }

    fn slot(&self, name: &str) -> Result<Arc<Slot>, MountError> {
        self.table.by_name(name).ok_or_else(|| MountError::NotFound { name: name.to_owned() })
    }

    /// Lets the kernel forget a removed name. The kernel may wait for the directory's lock, which
    /// a lookup that waits for us can hold: hence a thread of its own. If it fails, an open of the
    /// old name is answered with ESTALE and looked up again.
    fn forget_name(&self, name: &str) {
        let (notifier, name) = (self.notifier.clone(), name.to_owned());
        let started = off_thread::start(move || {
            if let Err(error) = notifier.inval_entry(INodeNo(ROOT_INODE), OsStr::new(&name)) {
                tracing::trace!(name, %error, "the kernel did not know a removed name");
            }
        });
        if let Err(error) = started {
            tracing::debug!(%error, "no thread to tell the kernel about a removed name");
        }
    }

    /// Unmounts: in order if nobody uses it within `deadline`, else by failing all devices and
    /// aborting the connection. Idempotent; afterwards nothing is mounted here.
    ///
    /// # Errors
    /// [`MountError::Io`] if the kernel refuses even that.
    pub async fn unmount(&self, deadline: Duration) -> Result<(), MountError> {
        let Some(session) = self.session.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let until = Instant::now() + deadline;
        let in_order = tokio::time::timeout_at(until, async {
            loop {
                let target = self.directory.clone();
                match off_thread::run(move || ext4::unmount_idle(&target)).await {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        tokio::time::sleep(RETRY).await;
                    }
                    // Not mounted any more: someone did it for us.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
                    outcome => return outcome,
                }
            }
        });
        let outcome = match in_order.await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::warn!(directory = %self.directory.display(), "FUSE mount in use; forcing it away");
                let (target, table) = (self.directory.clone(), Arc::clone(&self.table));
                off_thread::run(move || abort(&target, &table)).await
            }
        };
        // The session's threads end with the connection; joining one that an open handle keeps
        // alive would wait for that handle, so they are left to end by themselves.
        drop(session);
        outcome.map_err(|error| MountError::io("unmount", &self.directory, error))
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if session.is_none() {
            return;
        }
        let (target, table) = (self.directory.clone(), Arc::clone(&self.table));
        let started = off_thread::start(move || {
            if let Err(error) = abort(&target, &table) {
                tracing::warn!(target = %target.display(), %error, "cannot unmount a dropped FUSE mount");
            }
            drop(session);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to unmount a dropped FUSE mount");
        }
    }
}

/// Fails every device, aborts the connection and takes the mount out of the tree.
fn abort(target: &Path, table: &Table) -> io::Result<()> {
    table.fail_all();
    // Forcing aborts the connection even where it then says busy, so detaching cannot block.
    match ext4::force(target) {
        Ok(()) => return Ok(()),
        Err(error) => tracing::debug!(target = %target.display(), %error, "forced unmount left the mount"),
    }
    match ext4::detach(target) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        outcome => outcome,
    }
}

fn mount_fuse(fuse: &File, directory: &Path) -> io::Result<()> {
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read={MAX_REQUEST_BYTES}",
        fuse.as_raw_fd()
    );
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NOATIME;
    let data = CString::new(data)?;
    Ok(mount("lantern", directory, FS_TYPE, flags, data.as_c_str())?)
}
