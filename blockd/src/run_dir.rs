//! A worker's own directory below the run directory, and the clearing up after workers that
//! died.
//!
//! Invariant: a living worker holds the lock of its directory; whoever gets the lock of
//! another's may remove everything below it: sandboxes first, then mounts and loop devices,
//! then files. A directory gets its name only once it is locked, so nobody takes a worker that
//! is starting for one that died.

use anyhow::{Context, Result};
use photon::sandbox;
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK: &str = "lock";
const PREFIX: &str = "worker-";
/// Before it is locked a directory is called so; what is left of it by a death in between is
/// removed when it is [`FORGOTTEN`] old.
const NEW_PREFIX: &str = "starting-";
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A directory that lives as long as this worker.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

/// Takes the lock of a directory that a dead worker left. `None` if it lives, or if somebody
/// else removed it meanwhile.
fn lock_of_dead(directory: &Path) -> Option<File> {
    let path = directory.join(LOCK);
    let lock = OpenOptions::new().write(true).open(&path).ok()?;
    lock.try_lock().ok()?;
    let (ours, there) = (lock.metadata().ok()?, fs::metadata(&path).ok()?);
    ((ours.dev(), ours.ino()) == (there.dev(), there.ino())).then_some(lock)
}

impl RunDir {
    /// Makes this process's directory below `run`.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub fn make(run: &Path) -> Result<Self> {
        let new = run.join(format!("{NEW_PREFIX}{}", std::process::id()));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&new);
        made.with_context(|| {
            format!("cannot make {}; run as root, or choose another --run-dir", new.display())
        })?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(new.join(LOCK));
        let lock = lock.with_context(|| format!("cannot lock {}", new.display()))?;
        lock.try_lock().with_context(|| format!("{} belongs to another process", new.display()))?;
        let path = run.join(format!("{PREFIX}{}", std::process::id()));
        fs::rename(&new, &path).with_context(|| format!("{} is in the way", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory inside it, made if absent.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Removes the directory; what is still mounted or in use stays and is logged.
    pub fn remove(self) {
        remove_tree(&self.path);
    }
}

/// What clearing up after dead workers did.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cleared {
    /// Directories of dead workers.
    pub workers: Vec<PathBuf>,
    /// Sandboxes that were killed and removed.
    pub sandboxes: Vec<String>,
    /// Mounts that were undone.
    pub mounts: Vec<PathBuf>,
    /// Loop devices that were detached.
    pub loop_devices: Vec<PathBuf>,
}

/// Finds what dead workers left below `run` and removes it.
///
/// # Errors
/// If the directory cannot be read; single failures are logged.
pub async fn clear_dead(run: &Path, runtime: &str) -> Result<Cleared> {
    let mut cleared = Cleared::default();
    let entries = match fs::read_dir(run) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(cleared),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", run.display())),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(NEW_PREFIX) {
            let made = entry.metadata().and_then(|metadata| metadata.modified());
            if made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > FORGOTTEN)) {
                remove_tree(&path);
            }
            continue;
        }
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Some(_lock) = lock_of_dead(&path) else { continue };
        clear_one(&path, runtime, &mut cleared).await;
        cleared.workers.push(path);
    }
    Ok(cleared)
}

async fn clear_one(path: &Path, runtime: &str, cleared: &mut Cleared) {
    let settings = sandbox::Settings {
        runtime: runtime.into(),
        run_dir: path.to_path_buf(),
        grace: Duration::ZERO,
        started: None,
    };
    match sandbox::clear_orphans(&settings).await {
        Ok(sandboxes) => cleared.sandboxes.extend(sandboxes),
        Err(error) => tracing::warn!(%error, "sandboxes of a dead worker could not be cleared"),
    }
    let owned = path.to_path_buf();
    match tokio::task::spawn_blocking(move || fuse_mount::clear_stale(&owned)).await {
        Ok(Ok(report)) => {
            cleared.mounts.extend(report.mounts.into_iter().chain(report.fuse_mounts));
            cleared.loop_devices.extend(report.loop_devices);
            for failure in report.failures {
                tracing::warn!(failure, "a mount of a dead worker could not be cleared");
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "mounts of a dead worker could not be cleared"),
        Err(error) => tracing::warn!(%error, "clearing up failed"),
    }
    remove_tree(path);
}

/// Removes the plain directories and the lock, never crossing into a mount: directories go
/// only when empty, bottom up, after anything mounted on them was detached.
fn remove_tree(path: &Path) {
    for group in ["images", "instances", "sandboxes", "runtime", "devices"] {
        let group = path.join(group);
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            let _ = unmount(entry.path(), UnmountFlags::DETACH);
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&group);
    }
    // plain files that nothing is ever mounted on
    let _ = fs::remove_dir_all(path.join("runtimes"));
    let others =
        fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != LOCK));
    if !others {
        // only then: who finds the lock tries again
        let _ = fs::remove_file(path.join(LOCK));
    }
    if let Err(error) = fs::remove_dir(path) {
        tracing::warn!(path = %path.display(), %error, "worker directory could not be removed");
    }
}
