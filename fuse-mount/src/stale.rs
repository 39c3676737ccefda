//! Clearing what a daemon left that died without unmounting.
//!
//! Called at start, before anything is mounted, by the one daemon that owns the run directory.
//! A FUSE mount of ours under it counts as dead only if its connection is: one that answers, or
//! is silent, belongs to a living process and is left alone and reported.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::mount::FS_TYPE;
use crate::mountinfo::{self, MountEntry};
use crate::{ext4, loop_attach};

/// How long a FUSE mount may take to answer before it counts as alive but stuck: the answer of a
/// dead one comes from the kernel, at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the kernel gets to let go of a loop device whose file is dead.
const DETACH_TIMEOUT: Duration = Duration::from_secs(5);

/// What [`clear_stale`] found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Mounts of stale loop devices that were detached.
    pub mounts: Vec<PathBuf>,
    /// Loop devices over dead FUSE mounts that were detached.
    pub loop_devices: Vec<PathBuf>,
    /// Dead FUSE mounts that were unmounted.
    pub fuse_mounts: Vec<PathBuf>,
    /// FUSE mounts of ours that still have a daemon; left alone.
    pub alive: Vec<PathBuf>,
    /// What could not be cleared, and why.
    pub failures: Vec<String>,
}

impl Report {
    /// Whether there was nothing to clear and nothing went wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Clears dead FUSE mounts under `run_dir`, the loop devices over them and their mounts anywhere
/// in this mount namespace. Blocks, for seconds at worst: call it before serving, or on a thread
/// that may block.
///
/// # Errors
/// Only if the mount table, the loop devices or `run_dir` cannot be read; single failures are in
/// the report.
pub fn clear_stale(run_dir: &Path) -> io::Result<Report> {
    let run_dir = match run_dir.canonicalize() {
        Ok(run_dir) => run_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Report::default()),
        Err(error) => return Err(error),
    };
    let mut report = Report::default();
    let mounts = mountinfo::read()?;
    let mut dead = Vec::new();
    for entry in mounts.iter().filter(|entry| is_ours(entry, &run_dir)) {
        if is_dead(&entry.target) {
            dead.push(entry.target.clone());
        } else {
            report.alive.push(entry.target.clone());
        }
    }
    // Before the FUSE mounts go: afterwards the loop devices no longer show where their file was.
    let loops: Vec<PathBuf> = loop_attach::attached()?
        .into_iter()
        .filter(|(_, file)| dead.iter().any(|target| file.starts_with(target)))
        .map(|(path, _)| path)
        .collect();
    // Latest first: what is mounted on top goes before what is below.
    for entry in mounts.iter().rev().filter(|entry| loops.contains(&entry.source)) {
        match ext4::detach(&entry.target) {
            Ok(()) => report.mounts.push(entry.target.clone()),
            Err(error) => report.failures.push(format!("cannot detach {}: {error}", entry.target.display())),
        }
    }
    for path in loops {
        match loop_attach::detach_path(&path, DETACH_TIMEOUT) {
            Ok(()) => report.loop_devices.push(path),
            Err(error) => report.failures.push(error.to_string()),
        }
    }
    for target in dead.into_iter().rev() {
        match ext4::detach(&target) {
            Ok(()) => report.fuse_mounts.push(target),
            Err(error) => report.failures.push(format!("cannot unmount {}: {error}", target.display())),
        }
    }
    Ok(report)
}

fn is_ours(entry: &MountEntry, run_dir: &Path) -> bool {
    entry.fs_type == FS_TYPE && entry.target.starts_with(run_dir)
}

/// Whether the connection of the FUSE mount at `target` is gone. Asks for the file system's
/// figures, which the kernel never answers from a cache, on a thread that may get stuck.
fn is_dead(target: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let target = target.to_owned();
    let started = thread::Builder::new().name("lantern-probe".into()).spawn(move || {
        let answer = rustix::fs::statfs(&target);
        // The receiver may have given up.
        let _ =
            sender.send(matches!(answer, Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)));
    });
    started.is_ok() && receiver.recv_timeout(PROBE_TIMEOUT).unwrap_or(false)
}
