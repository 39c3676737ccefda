//! This worker among those of its host: its name, by which its sandboxes are called, and the
//! control groups above those of its sandboxes, which bound all of them together.
//!
//! A process id alone is no name: daemons in containers of their own may all be process 1 and
//! share one tree of control groups, where the ids of one mean nothing to the other. So the name
//! has a random word in it, and a worker lives for as long as its groups are locked: who sees the
//! group sees the lock.
//!
//! Invariants: no two workers have the same name; a worker holds a lock on each of its groups
//! from before anything is in it, which the kernel takes back however the worker ends, and only
//! who gets the lock of another's removes it; a bound that was set is set again in a group that
//! had to be made anew.

use super::{SandboxError, cgroup};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where control groups are mounted on every distribution.
const MOUNT: &str = "/sys/fs/cgroup";
/// Parent of all workers' groups.
const PARENT: &str = "lantern";
/// Names of workers begin with this; their process id and a random word follow.
const PREFIX: &str = "lantern-";
/// How often a group is made that somebody takes for a dead worker's before it is locked.
const TRIES: usize = 16;
/// What is used of control groups; `cpuacct` exists on version 1 only.
pub(super) const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// Six hexadecimal digits that no other worker of this host has.
pub(super) fn word() -> &'static str {
    static WORD: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().simple().to_string()[..6].into());
    &WORD
}

/// This worker's name; with a dash and a number, that of a sandbox.
pub(super) fn name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| format!("{PREFIX}{}-{}", std::process::id(), word()));
    &NAME
}

/// Where a controller lives on this host.
#[derive(Debug, Clone)]
pub(super) struct Home {
    base: PathBuf,
    /// Whether it is version 2.
    pub(super) v2: bool,
}

fn unified() -> Option<PathBuf> {
    [MOUNT.to_string(), format!("{MOUNT}/unified")]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cgroup.controllers").exists())
}

/// What was found of [`CONTROLLERS`]: looked for once, so that it is known when there are no
/// descriptors left to look.
static HOMES: [OnceLock<Home>; CONTROLLERS.len()] = [const { OnceLock::new() }; CONTROLLERS.len()];

impl Home {
    /// None if this host does not offer the controller.
    pub(super) fn of(controller: &str) -> Option<&'static Self> {
        let kept = &HOMES[CONTROLLERS.iter().position(|name| *name == controller)?];
        if kept.get().is_none() {
            // another thread finds the same
            let _ = kept.set(Self::find(controller)?);
        }
        kept.get()
    }

    fn find(controller: &str) -> Option<Self> {
        let v1 = Path::new(MOUNT).join(controller);
        if v1.join("cgroup.procs").exists() {
            return Some(Self { base: v1, v2: false });
        }
        let v2 = unified()?;
        let offered = fs::read_to_string(v2.join("cgroup.controllers")).ok()?;
        let is_offered = offered.split_whitespace().any(|name| name == controller);
        is_offered.then_some(Self { base: v2, v2: true })
    }

    fn worker(&self, worker: &str) -> PathBuf {
        self.base.join(PARENT).join(worker)
    }

    /// The group of a sandbox by its id, whoever's it is.
    pub(super) fn sandbox(&self, id: &str) -> PathBuf {
        let worker = id.rsplit_once('-').map_or(id, |(worker, _)| worker);
        self.worker(worker).join(id)
    }
}

/// A group of this worker's.
#[derive(Debug)]
struct Held {
    lock: File,
    /// Whether it was given the bound, or refused it.
    bounded: bool,
}

/// The groups of this worker.
#[derive(Debug)]
struct Own {
    held: BTreeMap<PathBuf, Held>,
    memory_bytes: Option<u64>,
}

static OWN: Mutex<Own> = Mutex::new(Own { held: BTreeMap::new(), memory_bytes: None });

fn own() -> MutexGuard<'static, Own> {
    // groups go in and out one by one
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bounds the memory of all sandboxes of this process together, in bytes. A worker that cannot
/// still has its own count of what they use.
pub(crate) fn bound(memory_bytes: u64) {
    let mut own = own();
    own.memory_bytes = Some(memory_bytes);
    own.held.values_mut().for_each(|held| held.bounded = false);
    drop(own);
    if let Some(home) = Home::of("memory")
        && let Err(error) = group("memory", home)
    {
        let why = explain(&error);
        tracing::warn!(why, "the memory of all sandboxes together is not limited by the kernel");
    }
}

/// Makes the groups above a sandbox of this worker, unless they are there.
pub(super) fn group(controller: &str, home: &Home) -> Result<(), SandboxError> {
    let directory = home.worker(name());
    let mut own = own();
    let memory_bytes = own.memory_bytes;
    let held = own.hold(&directory)?;
    if home.v2 {
        for level in [&home.base, &home.base.join(PARENT), &directory] {
            write(&level.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
    }
    if let Some(bytes) = memory_bytes.filter(|_| controller == "memory" && !held.bounded) {
        // once: what is refused now is refused later
        held.bounded = true;
        let file = if home.v2 { "memory.max" } else { "memory.limit_in_bytes" };
        if let Err(error) = write(&directory.join(file), &bytes.to_string()) {
            let why = explain(&error);
            tracing::warn!(why, "the memory of all sandboxes together is not limited by the kernel");
        }
    }
    Ok(())
}

impl Own {
    fn hold(&mut self, directory: &Path) -> Result<&mut Held, SandboxError> {
        if self.held.get(directory).is_some_and(|held| !is_at(&held.lock, directory)) {
            // somebody removed it, which only an administrator may
            self.held.remove(directory);
        }
        match self.held.entry(directory.to_path_buf()) {
            std::collections::btree_map::Entry::Occupied(held) => Ok(held.into_mut()),
            std::collections::btree_map::Entry::Vacant(empty) => {
                Ok(empty.insert(Held { lock: make_locked(directory)?, bounded: false }))
            }
        }
    }
}

/// Whether the file that is open is the one at `path` still.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

fn make_locked(directory: &Path) -> Result<File, SandboxError> {
    for _ in 0..TRIES {
        make_group(directory)?;
        let locked = File::open(directory).and_then(|lock| lock.lock().map(|()| lock));
        match locked {
            // whoever took it for a dead worker's before it was locked has removed it
            Ok(lock) if is_at(&lock, directory) => return Ok(lock),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SandboxError::io("lock control group", directory)(error)),
        }
    }
    let removed = io::Error::other("somebody removes it each time that it is made");
    Err(SandboxError::io("lock control group", directory)(removed))
}

/// Directories of the controllers in use.
fn homes() -> impl Iterator<Item = &'static Home> {
    CONTROLLERS.into_iter().filter_map(Home::of)
}

/// Removes the groups of this process, unless a sandbox is left in them.
pub(super) fn remove_own() {
    // one with something in it stays, and stays locked: the kernel refuses
    own().held.retain(|directory, _| fs::remove_dir(directory).is_err() && directory.exists());
}

/// Removes the groups of workers that are gone, where no sandbox is left in them.
pub(super) fn remove_of_dead() {
    for entry in homes().flat_map(|home| fs::read_dir(home.base.join(PARENT))).flatten().flatten() {
        let is_worker = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // removed while it is locked, so that nobody begins to live in it meanwhile
        if is_worker
            && let Ok(lock) = File::open(entry.path())
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The right to have sandboxes' memory merged, for as long as this is kept: one worker's of all that
/// share a tree of control groups. Blocks for a moment.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] while another worker has it, or sandboxes of a dead one are left
/// that may have been its; else the kernel's.
pub(crate) fn claim_merging() -> io::Result<File> {
    let home = Home::of("memory").ok_or(io::ErrorKind::NotFound)?;
    claim(&home.base.join(PARENT))
}

fn claim(parent: &Path) -> io::Result<File> {
    fs::create_dir_all(parent)?;
    let lock = File::open(parent)?;
    lock.try_lock().map_err(io::Error::from)?;
    for entry in fs::read_dir(parent)?.flatten() {
        let is_worker = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // the living hold their groups locked, this worker too
        let is_dead = is_worker && File::open(entry.path()).is_ok_and(|group| group.try_lock().is_ok());
        if is_dead && !cgroup::listed(&entry.path()).is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
    }
    Ok(lock)
}

pub(super) fn make_group(directory: &Path) -> Result<(), SandboxError> {
    fs::create_dir_all(directory).map_err(SandboxError::io("make control group", directory))
}

pub(super) fn write(path: &Path, value: &str) -> Result<(), SandboxError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(SandboxError::io("set the limit in", path))
}

/// Why a control group cannot be had, and what to do about it.
pub(super) fn explain(error: &SandboxError) -> String {
    let SandboxError::Io { source, .. } = error else { return error.to_string() };
    let advice = match Errno::from_io_error(source) {
        Some(Errno::BUSY) => {
            "; processes are in the group above, where version 2 allows none beside groups that are limited: \
             start the container with the host's control groups (docker run --cgroupns=host), or move its \
             processes into a group below first"
        }
        Some(Errno::ROFS) => {
            "; mount control groups for writing (docker run --privileged, or --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup)"
        }
        Some(Errno::ACCESS | Errno::PERM) => "; run as root, in control groups that are root's",
        _ => "",
    };
    format!("{error}: {source}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Option<&'static Home> {
        let home = Home::of("memory").filter(|_| rustix::process::geteuid().is_root());
        if home.is_none() {
            eprintln!("SKIPPED: needs root and a memory control group");
        }
        home
    }

    fn bound_of(home: &Home) -> String {
        let file = if home.v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::read_to_string(home.worker(name()).join(file)).unwrap().trim().into()
    }

    #[test]
    fn privileged_a_bound_is_set_again_in_a_group_made_anew() {
        let Some(home) = memory() else { return };
        bound(512 << 20);
        assert_eq!(bound_of(home), (512 << 20).to_string());
        fs::remove_dir(home.worker(name())).unwrap();
        group("memory", home).unwrap();
        assert_eq!(bound_of(home), (512 << 20).to_string());
        remove_own();
        assert!(!home.worker(name()).exists());
    }

    #[test]
    fn privileged_only_groups_of_the_dead_are_removed() {
        let Some(home) = memory() else { return };
        // the process ids of others say nothing: theirs may be the same, or of another namespace
        let other = |word: &str| home.worker(&format!("{PREFIX}{}-{word}", std::process::id()));
        let (living, dead) = (other("living"), other("dead"));
        let lock = make_locked(&living).unwrap();
        make_group(&dead).unwrap();
        group("memory", home).unwrap();
        remove_of_dead();
        assert!(living.exists() && home.worker(name()).exists() && !dead.exists());
        drop(lock);
        remove_own();
        remove_of_dead();
        assert!(!living.exists() && !home.worker(name()).exists());
    }

    #[test]
    fn privileged_what_a_dead_workers_sandboxes_may_have_merged_is_nobody_elses() {
        let Some(home) = memory() else { return };
        let parent = home.base.join(format!("{PARENT}-claim-{}", std::process::id()));
        let first = claim(&parent).unwrap();
        assert_eq!(claim(&parent).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let sandbox = parent.join(format!("{PREFIX}1-dead/{PREFIX}1-dead-0"));
        make_group(&sandbox).unwrap();
        drop(claim(&parent).unwrap());
        let mut left = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        write(&sandbox.join("cgroup.procs"), &left.id().to_string()).unwrap();
        assert_eq!(claim(&parent).unwrap_err().kind(), io::ErrorKind::WouldBlock, "a sandbox is left");
        let living = make_locked(sandbox.parent().unwrap()).unwrap();
        drop(claim(&parent).unwrap());
        drop(living);
        left.kill().unwrap();
        left.wait().unwrap();
        drop(claim(&parent).unwrap());
        for group in [sandbox.as_path(), sandbox.parent().unwrap(), &parent] {
            fs::remove_dir(group).unwrap();
        }
    }

    #[test]
    fn a_failure_says_what_to_do() {
        for (errno, advice) in [(Errno::BUSY, "--cgroupns=host"), (Errno::ROFS, "writing")] {
            let error = SandboxError::io("make control group", "/sys/fs/cgroup/lantern")(errno.into());
            let text = explain(&error);
            assert!(text.contains("/sys/fs/cgroup/lantern: ") && text.contains(advice), "{text}");
        }
    }
}
