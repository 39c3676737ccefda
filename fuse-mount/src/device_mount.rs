//! The whole way: device, FUSE file, loop device, ext4 at a path; and one call that undoes it.
//!
//! State: what exists now is in `Layers`; each layer is taken out as it is undone, so an unmount
//! that failed or was cancelled midway can be called again and goes on where it stopped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use crate::device::BlockDevice;
use crate::error::MountError;
use crate::ext4::{self, Ext4Mount};
use crate::loop_attach::{LoopDevice, LoopOptions};
use crate::mount::{FuseMount, RETRY};
use crate::off_thread;

/// How long the kernel gets to finish after a device was failed: all that is left is local work.
const GRACE: Duration = Duration::from_secs(5);

/// How to mount a device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceMountOptions {
    /// Mount ext4 read-only, without its journal. Forced for a device that is not writable.
    pub read_only: bool,
    /// Further ext4 mount options, separated by commas.
    pub ext4_options: String,
    /// Bypass the page cache of the FUSE file.
    pub direct_io: bool,
    /// Read-ahead of the loop device in KiB.
    pub read_ahead_kib: u32,
    /// Time to mount; past it the device is failed and the mount given up.
    pub deadline: Duration,
}

impl Default for DeviceMountOptions {
    fn default() -> Self {
        let LoopOptions { direct_io, read_ahead_kib, .. } = LoopOptions::default();
        let deadline = Duration::from_secs(120);
        Self { read_only: true, ext4_options: String::new(), direct_io, read_ahead_kib, deadline }
    }
}

/// What to do when files of the mount are still open at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfBusy {
    /// Leave it mounted and say so.
    Refuse,
    /// Fail the device and detach the mount: users get EIO, the kernel frees the loop device when
    /// the last of them is gone.
    Detach,
}

#[derive(Debug, Default)]
struct Layers {
    ext4: Option<Ext4Mount>,
    attached: Option<LoopDevice>,
    shown: bool,
}

/// A device mounted at a path. Dropped without [`unmount`](Self::unmount), the mount is detached
/// and the loop device released in the background, and the FUSE file stays until its mount ends.
#[derive(Debug)]
pub struct DeviceMount {
    fuse: Arc<FuseMount>,
    name: String,
    target: PathBuf,
    loop_path: PathBuf,
    layers: Mutex<Layers>,
}

impl DeviceMount {
    /// Shows `device` as `name` in `fuse`, attaches it and mounts its ext4 at `target`, which must
    /// exist. On failure everything done so far is undone. Not cancel-safe: dropped midway, mount
    /// and loop device are released in the background and the FUSE file stays.
    ///
    /// # Errors
    /// [`MountError`] naming the step; [`MountError::TimedOut`] if the device did not answer.
    pub async fn mount(
        fuse: Arc<FuseMount>,
        name: &str,
        device: Arc<dyn BlockDevice>,
        target: &Path,
        options: &DeviceMountOptions,
    ) -> Result<Self, MountError> {
        let read_only = options.read_only || !device.is_writable();
        let file = fuse.add(name, device)?;
        let mut mounted = Self {
            fuse,
            name: name.to_owned(),
            target: target.to_owned(),
            loop_path: PathBuf::new(),
            layers: Mutex::new(Layers { shown: true, ..Layers::default() }),
        };
        let outcome = mounted.build(file, read_only, options).await;
        match outcome {
            Ok(()) => Ok(mounted),
            Err(error) => {
                if let Err(left) = mounted.unmount(GRACE, IfBusy::Detach).await {
                    tracing::warn!(device = name, error = %left, "cannot undo a failed mount");
                }
                Err(error)
            }
        }
    }

    async fn build(
        &mut self,
        file: PathBuf,
        read_only: bool,
        options: &DeviceMountOptions,
    ) -> Result<(), MountError> {
        let until = Instant::now() + options.deadline;
        let waited = options.deadline;
        let loop_options =
            LoopOptions { read_only, direct_io: options.direct_io, read_ahead_kib: options.read_ahead_kib };
        let step = ("attach a loop device to", file.clone(), waited);
        let call = off_thread::start(move || LoopDevice::attach(&file, &loop_options));
        let attached = self.finish(call, until, step).await??;
        self.loop_path = attached.path().to_owned();
        self.layers.get_mut().attached = Some(attached);

        let (source, target) = (self.loop_path.clone(), self.target.clone());
        let extra = options.ext4_options.clone();
        let step = ("mount ext4 at", target.clone(), waited);
        let call = off_thread::start(move || Ext4Mount::new(&source, &target, read_only, &extra));
        let ext4 = self.finish(call, until, step).await?;
        let ext4 = ext4.map_err(|error| MountError::io("mount ext4 at", &self.target, error))?;
        self.layers.get_mut().ext4 = Some(ext4);
        Ok(())
    }

    /// Waits for a kernel call; if it is late, fails the device, which makes the call end.
    async fn finish<T>(
        &self,
        call: io::Result<oneshot::Receiver<T>>,
        until: Instant,
        (action, path, waited): (&'static str, PathBuf, Duration),
    ) -> Result<T, MountError> {
        let mut call = call.map_err(|error| MountError::io("start a thread for", &path, error))?;
        let panicked = || io::Error::other("the thread of a kernel call panicked");
        if let Ok(done) = tokio::time::timeout_at(until, &mut call).await {
            return done.map_err(|_| MountError::io(action, path, panicked()));
        }
        tracing::warn!(
            device = self.name,
            action,
            ?waited,
            "kernel call waits for a device; failing the device"
        );
        self.fail_device();
        match tokio::time::timeout(GRACE, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(MountError::io(action, path, panicked())),
            Err(_) => Err(MountError::TimedOut { action, path, waited: waited + GRACE }),
        }
    }

    fn fail_device(&self) {
        if let Err(error) = self.fuse.fail(&self.name) {
            tracing::debug!(device = self.name, %error, "device to be failed is gone already");
        }
    }

    /// Where the ext4 is mounted.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The loop device, such as `/dev/loop3`.
    #[must_use]
    pub fn loop_path(&self) -> &Path {
        &self.loop_path
    }

    /// Undoes everything: mount, loop device, FUSE file. Waits up to `deadline` for users to
    /// leave; a device that gives no answer for 5 s beyond it is failed, which ends the waiting
    /// (what ext4 had not written by then is lost). Idempotent; after an error it can be called
    /// again. Cancelled, it goes on where it stopped.
    ///
    /// # Errors
    /// [`MountError::Busy`] under [`IfBusy::Refuse`] when files are still open, and under
    /// [`IfBusy::Detach`] when the loop device lives on until its last user ends.
    pub async fn unmount(&self, deadline: Duration, if_busy: IfBusy) -> Result<(), MountError> {
        let until = Instant::now() + deadline;
        let mut layers = self.layers.lock().await;
        if layers.ext4.is_some() {
            self.unmount_ext4(until, deadline, if_busy).await?;
            if let Some(mut ext4) = layers.ext4.take() {
                ext4.forget();
            }
        }
        let left = until.saturating_duration_since(Instant::now()).max(RETRY * 20);
        let mut outcome = Ok(());
        if let Some(attached) = layers.attached.take() {
            let step = ("detach", self.loop_path.clone(), deadline);
            let call = off_thread::start(move || attached.detach(left));
            outcome = self.finish(call, until + GRACE, step).await?;
        }
        if layers.shown {
            match self.fuse.remove(&self.name, left).await {
                Err(MountError::Busy { .. }) if if_busy == IfBusy::Detach => {
                    self.fuse.remove_now(&self.name)?;
                }
                Err(error @ MountError::Busy { .. }) => return Err(error),
                // Gone already: a device is only ever removed on purpose.
                _ => {}
            }
            layers.shown = false;
        }
        outcome
    }

    async fn unmount_ext4(
        &self,
        until: Instant,
        deadline: Duration,
        if_busy: IfBusy,
    ) -> Result<(), MountError> {
        loop {
            let target = self.target.clone();
            let step = ("unmount", target.clone(), deadline);
            let call = off_thread::start(move || ext4::unmount_idle(&target));
            // A call that begins at the deadline still gets its time: only a call that is stuck,
            // not one that says busy, may fail the device.
            match self.finish(call, until + GRACE, step).await? {
                Ok(()) => return Ok(()),
                // Not a mount point any more: someone did it for us.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                    return Ok(());
                }
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                    return Err(MountError::io("unmount", &self.target, error));
                }
                Err(_) if Instant::now() < until => tokio::time::sleep(RETRY).await,
                Err(_) if if_busy == IfBusy::Refuse => {
                    return Err(MountError::Busy { path: self.target.clone(), waited: deadline });
                }
                Err(_) => {
                    self.fail_device();
                    let target = self.target.clone();
                    let detached = off_thread::run(move || ext4::detach(&target)).await;
                    return detached.map_err(|error| MountError::io("detach", &self.target, error));
                }
            }
        }
    }
}
