//! A sandbox's control groups, on cgroup v1, v2, or both at once (hybrid).
//!
//! Made here and not by the OCI runtime: runtimes differ in what they support (crun refuses
//! some hybrid hosts), and groups can be made ahead of the sandbox they are for. The runtime
//! process is started inside the groups, so everything it starts is in them from its first
//! instruction.
//!
//! A sandbox's groups are below those of its worker, which bound all of its sandboxes together:
//! what they come to use beyond what was foreseen is the kernel's to stop, among them.
//!
//! Invariants: a limit that was asked for is in force or [`Cgroups::limit`] fails; after
//! [`Cgroups::clear`] no process and no group of the sandbox is left.

use super::{Request, SandboxError};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where control groups are mounted on every distribution.
const MOUNT: &str = "/sys/fs/cgroup";
/// Parent of all workers' groups.
const PARENT: &str = "lantern";
/// Names of workers' groups begin with this, as the ids of their sandboxes do; the process id follows.
const WORKER: &str = "lantern-";
/// Processes and threads of a sandbox where the request does not say.
const DEFAULT_PIDS: i64 = 4096;
/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// What is used of them; `cpuacct` exists on version 1 only.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// One controller's group of a sandbox.
#[derive(Debug, Clone)]
struct Group {
    controller: &'static str,
    directory: PathBuf,
    v2: bool,
}

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory in bytes without file cache: what would be free if the sandbox ended.
    pub memory_bytes: u64,
    /// CPU time since the start.
    pub cpu: Duration,
    /// Processes that the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
}

/// The groups of one sandbox.
#[derive(Debug)]
pub(super) struct Cgroups {
    groups: Vec<Group>,
}

/// Where a controller lives on this host.
enum Home {
    V1(PathBuf),
    V2(PathBuf),
}

fn unified() -> Option<PathBuf> {
    [MOUNT.to_string(), format!("{MOUNT}/unified")]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cgroup.controllers").exists())
}

fn home(controller: &str) -> Option<Home> {
    let v1 = Path::new(MOUNT).join(controller);
    if v1.join("cgroup.procs").exists() {
        return Some(Home::V1(v1));
    }
    let v2 = unified()?;
    let offered = fs::read_to_string(v2.join("cgroup.controllers")).ok()?;
    offered.split_whitespace().any(|name| name == controller).then_some(Home::V2(v2))
}

/// Where a worker's groups are below a controller's directory, by the id of one of its sandboxes.
fn worker_directory(base: &Path, sandbox: &str) -> PathBuf {
    let worker = sandbox.rsplit_once('-').map_or(sandbox, |(worker, _)| worker);
    base.join(PARENT).join(worker)
}

/// The same of this process.
fn own_directory(base: &Path) -> PathBuf {
    base.join(PARENT).join(format!("{WORKER}{}", std::process::id()))
}

/// Bounds the memory of all sandboxes of this process together, in bytes. A worker that cannot
/// still has its own count of what they use.
pub(crate) fn bound_worker(memory_bytes: u64) {
    let bounded = match home("memory") {
        Some(Home::V1(base)) => {
            let own = own_directory(&base);
            make_group(&own)
                .and_then(|()| write(&own.join("memory.limit_in_bytes"), &memory_bytes.to_string()))
        }
        Some(Home::V2(base)) => {
            let own = own_directory(&base);
            make_parents(&own, &base, "memory")
                .and_then(|()| write(&own.join("memory.max"), &memory_bytes.to_string()))
        }
        None => return,
    };
    if let Err(error) = bounded {
        tracing::warn!(%error, "the memory of all sandboxes together is not limited by the kernel");
    }
}

/// Makes a worker's groups of version 2, which hand a controller down to its sandboxes.
fn make_parents(worker: &Path, base: &Path, controller: &str) -> Result<(), SandboxError> {
    make_group(worker)?;
    for level in [base, &base.join(PARENT), worker] {
        write(&level.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(())
}

/// Directories of the controllers in use.
fn bases() -> impl Iterator<Item = PathBuf> {
    CONTROLLERS.into_iter().filter_map(home).map(|(Home::V1(base) | Home::V2(base))| base)
}

/// Removes the groups of this process, unless a sandbox is left in them.
pub(super) fn remove_own() {
    for base in bases() {
        // one with something in it stays: the kernel refuses
        let _ = fs::remove_dir(own_directory(&base));
    }
}

/// Removes the groups of workers that are gone, where no sandbox is left in them.
pub(super) fn remove_of_dead() {
    for entry in bases().flat_map(|base| fs::read_dir(base.join(PARENT))).flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(WORKER)).and_then(|pid| pid.parse().ok());
        if pid.and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn write(path: &Path, value: &str) -> Result<(), SandboxError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(SandboxError::io("set the limit in", path))
}

/// Files of a group and what is written to them.
type Values = Vec<(&'static str, String)>;

/// The settings of a controller, and whether they were asked for.
fn settings(group: &Group, request: &Request) -> (Values, bool) {
    match (group.controller, request.memory_bytes, request.cpu_millis) {
        ("memory", Some(bytes), _) if group.v2 => {
            (vec![("memory.max", bytes.to_string()), ("memory.swap.max", "0".into())], true)
        }
        ("memory", Some(bytes), _) => {
            let bytes = bytes.to_string();
            (vec![("memory.limit_in_bytes", bytes.clone()), ("memory.memsw.limit_in_bytes", bytes)], true)
        }
        ("cpu", _, Some(millis)) if group.v2 => (vec![("cpu.max", format!("{} 100000", millis * 100))], true),
        ("cpu", _, Some(millis)) => (
            vec![("cpu.cfs_period_us", "100000".into()), ("cpu.cfs_quota_us", (millis * 100).to_string())],
            true,
        ),
        ("pids", ..) => {
            let most = request.pids.unwrap_or(DEFAULT_PIDS).to_string();
            (vec![("pids.max", most)], request.pids.is_some())
        }
        _ => (Vec::new(), false),
    }
}

/// Files that some kernels leave out: without swap accounting there is no swap to limit.
const OPTIONAL: [&str; 2] = ["memory.memsw.limit_in_bytes", "memory.swap.max"];

/// The number after `name` in a file of `name value` lines.
fn stat(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

impl Cgroups {
    /// Makes the groups of sandbox `id`, without limits: what can be done before anything is
    /// known of the sandbox. Controllers that this host lacks are left out.
    pub(super) fn make(id: &str) -> Self {
        let mut groups = Self { groups: Vec::new() };
        for controller in CONTROLLERS {
            if let Err(error) = groups.add(controller, id) {
                tracing::warn!(controller, %error, "running without this control group");
            }
        }
        groups
    }

    fn add(&mut self, controller: &'static str, id: &str) -> Result<(), SandboxError> {
        let (directory, v2) = match home(controller) {
            Some(Home::V1(base)) => (worker_directory(&base, id).join(id), false),
            Some(Home::V2(base)) => {
                let worker = worker_directory(&base, id);
                make_parents(&worker, &base, controller)?;
                (worker.join(id), true)
            }
            // version 2 counts CPU time in the cpu controller
            None if controller == "cpuacct" => return Ok(()),
            None => {
                return Err(SandboxError::Request(format!("this host has no {controller} control group")));
            }
        };
        make_group(&directory)?;
        self.groups.push(Group { controller, directory, v2 });
        Ok(())
    }

    /// Puts the limits of `request` in force.
    ///
    /// # Errors
    /// [`SandboxError`] if a limit that was asked for cannot be set on this host.
    pub(super) fn limit(&self, request: &Request) -> Result<(), SandboxError> {
        let wanted = [
            ("memory", request.memory_bytes.is_some()),
            ("cpu", request.cpu_millis.is_some()),
            ("pids", request.pids.is_some()),
        ];
        for (controller, asked) in wanted {
            if asked && self.group(controller).is_none() {
                let reason = format!("this host has no {controller} control group; limits need one");
                return Err(SandboxError::Request(reason));
            }
        }
        for group in &self.groups {
            let (values, asked) = settings(group, request);
            for (file, value) in values {
                let path = group.directory.join(file);
                if OPTIONAL.contains(&file) && !path.exists() {
                    continue;
                }
                match write(&path, &value) {
                    Err(error) if asked => return Err(error),
                    Err(error) => tracing::warn!(%error, "running without this limit"),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    fn group(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.controller == controller)
    }

    /// The directories, each once.
    fn directories(&self) -> Vec<&Path> {
        let mut directories: Vec<&Path> = self.groups.iter().map(|group| group.directory.as_path()).collect();
        directories.sort_unstable();
        directories.dedup();
        directories
    }

    /// The files by which a process joins the groups, opened for [`super::sys::join`].
    pub(super) fn doors(&self) -> Result<Vec<File>, SandboxError> {
        let open = |directory: &Path| {
            let path = directory.join("cgroup.procs");
            OpenOptions::new().write(true).open(&path).map_err(SandboxError::io("open", path))
        };
        self.directories().into_iter().map(open).collect()
    }

    /// The groups of a sandbox that another process made.
    pub(super) fn find(id: &str) -> Self {
        let mut groups = Vec::new();
        for controller in CONTROLLERS {
            let (base, v2) = match home(controller) {
                Some(Home::V1(base)) => (base, false),
                Some(Home::V2(base)) => (base, true),
                None => continue,
            };
            let directory = worker_directory(&base, id).join(id);
            if directory.exists() {
                groups.push(Group { controller, directory, v2 });
            }
        }
        Self { groups }
    }

    /// What the sandbox uses now; zeros for what this host does not count.
    pub(super) fn usage(&self) -> Usage {
        let read =
            |group: &Group, file: &str| fs::read_to_string(group.directory.join(file)).unwrap_or_default();
        let number = |group: &Group, file: &str| read(group, file).trim().parse().unwrap_or(0_u64);
        let mut usage = Usage::default();
        if let Some(group) = self.group("memory") {
            let stats = read(group, "memory.stat");
            let (file, cached, events) = if group.v2 {
                let cached = stat(&stats, "active_file") + stat(&stats, "inactive_file");
                ("memory.current", cached, read(group, "memory.events"))
            } else {
                let cached = stat(&stats, "total_active_file") + stat(&stats, "total_inactive_file");
                ("memory.usage_in_bytes", cached, read(group, "memory.oom_control"))
            };
            usage.memory_bytes = number(group, file).saturating_sub(cached);
            usage.oom_kills = stat(&events, "oom_kill");
        }
        if let Some(group) = self.group("cpuacct") {
            usage.cpu = Duration::from_nanos(number(group, "cpuacct.usage"));
        } else if let Some(group) = self.group("cpu") {
            usage.cpu = Duration::from_micros(stat(&read(group, "cpu.stat"), "usage_usec"));
        }
        usage
    }

    /// The processes in the groups, as this host numbers them.
    pub(super) fn processes(&self) -> Vec<Pid> {
        self.groups.first().map(|group| listed(&group.directory)).unwrap_or_default()
    }

    /// Kills every process in the groups, once.
    pub(super) fn kill_all(&self) {
        for directory in self.directories() {
            kill_all(directory);
        }
    }

    /// Kills what is left and removes the groups. Blocks until the processes are gone.
    pub(super) fn clear(&self) {
        let deadline = Instant::now() + KILL_DEADLINE;
        for directory in self.directories() {
            while let Err(error) = fs::remove_dir(directory) {
                if error.kind() == io::ErrorKind::NotFound {
                    break;
                }
                if Instant::now() >= deadline {
                    tracing::warn!(group = %directory.display(), %error, "control group could not be removed");
                    break;
                }
                kill_all(directory);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn make_group(directory: &Path) -> Result<(), SandboxError> {
    fs::create_dir_all(directory).map_err(SandboxError::io("make control group", directory))
}

fn listed(directory: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect()
}

fn kill_all(directory: &Path) {
    for pid in listed(directory) {
        // one that is gone already is as good
        let _ = kill_process(pid, Signal::KILL);
    }
}
