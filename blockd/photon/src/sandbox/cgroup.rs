//! A sandbox's control groups, on cgroup v1, v2, or both at once (hybrid).
//!
//! Made here and not by the OCI runtime: runtimes differ in what they support (crun refuses
//! some hybrid hosts), and pools of groups can be made ahead. The runtime process is started
//! inside the groups, so everything it starts is in them from its first instruction.
//!
//! Invariants: a limit that was asked for is in force or [`Cgroups::make`] fails; after
//! [`Cgroups::clear`] no process and no group is left.

use super::{Request, SandboxError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where control groups are mounted on every distribution.
const MOUNT: &str = "/sys/fs/cgroup";
/// Parent of all sandboxes' groups.
const PARENT: &str = "lantern";
/// Processes and threads of a sandbox where the request does not say.
const DEFAULT_PIDS: i64 = 4096;
/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// The groups of one sandbox.
#[derive(Debug)]
pub(super) struct Cgroups {
    directories: Vec<PathBuf>,
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

fn write(path: &Path, value: &str) -> Result<(), SandboxError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(SandboxError::io("set the limit in", path))
}

/// Files of a group and what is written to them.
type Values = Vec<(&'static str, String)>;

/// The settings of a controller: version 1, version 2.
fn settings(controller: &str, request: &Request) -> (Values, Values) {
    match (controller, request.memory_bytes, request.cpu_millis) {
        ("memory", Some(bytes), _) => (
            vec![
                ("memory.limit_in_bytes", bytes.to_string()),
                ("memory.memsw.limit_in_bytes", bytes.to_string()),
            ],
            vec![("memory.max", bytes.to_string()), ("memory.swap.max", "0".into())],
        ),
        ("cpu", _, Some(millis)) => (
            vec![("cpu.cfs_period_us", "100000".into()), ("cpu.cfs_quota_us", (millis * 100).to_string())],
            vec![("cpu.max", format!("{} 100000", millis * 100))],
        ),
        ("pids", ..) => {
            let most = request.pids.unwrap_or(DEFAULT_PIDS).to_string();
            (vec![("pids.max", most.clone())], vec![("pids.max", most)])
        }
        _ => (Vec::new(), Vec::new()),
    }
}

/// Files that some kernels leave out: without swap accounting there is no swap to limit.
const OPTIONAL: [&str; 2] = ["memory.memsw.limit_in_bytes", "memory.swap.max"];

impl Cgroups {
    /// Makes the groups of sandbox `id` with the limits of `request`.
    ///
    /// # Errors
    /// [`SandboxError`] if a limit that was asked for cannot be set on this host.
    pub(super) fn make(id: &str, request: &Request) -> Result<Self, SandboxError> {
        let mut groups = Self { directories: Vec::new() };
        for controller in ["memory", "cpu", "pids"] {
            let asked = match controller {
                "memory" => request.memory_bytes.is_some(),
                "cpu" => request.cpu_millis.is_some(),
                _ => request.pids.is_some(),
            };
            let made = groups.add(controller, id, request);
            match made {
                Err(error) if asked => {
                    groups.clear();
                    return Err(error);
                }
                Err(error) => tracing::warn!(controller, %error, "running without this control group"),
                Ok(()) => {}
            }
        }
        Ok(groups)
    }

    fn add(&mut self, controller: &str, id: &str, request: &Request) -> Result<(), SandboxError> {
        let (v1, v2) = settings(controller, request);
        let (directory, values) = match home(controller) {
            Some(Home::V1(base)) => (base.join(PARENT).join(id), v1),
            Some(Home::V2(base)) => {
                let parent = base.join(PARENT);
                make_group(&parent)?;
                for level in [&base, &parent] {
                    write(&level.join("cgroup.subtree_control"), &format!("+{controller}"))?;
                }
                (parent.join(id), v2)
            }
            None => {
                let reason = format!("this host has no {controller} control group; limits need one");
                return Err(SandboxError::Request(reason));
            }
        };
        if !self.directories.contains(&directory) {
            make_group(&directory)?;
            self.directories.push(directory.clone());
        }
        for (file, value) in values {
            let path = directory.join(file);
            if path.exists() || !OPTIONAL.contains(&file) {
                write(&path, &value)?;
            }
        }
        Ok(())
    }

    /// The files by which a process joins the groups, opened for [`super::sys::join`].
    pub(super) fn doors(&self) -> Result<Vec<File>, SandboxError> {
        let open = |directory: &PathBuf| {
            let path = directory.join("cgroup.procs");
            OpenOptions::new().write(true).open(&path).map_err(SandboxError::io("open", path))
        };
        self.directories.iter().map(open).collect()
    }

    /// The groups of a sandbox that another process made.
    pub(super) fn find(id: &str) -> Self {
        let bases = ["memory", "cpu", "pids"].map(|name| Path::new(MOUNT).join(name));
        let directories = bases.into_iter().chain(unified()).map(|base| base.join(PARENT).join(id));
        Self { directories: directories.filter(|directory| directory.exists()).collect() }
    }

    /// Kills what is left and removes the groups. Blocks until the processes are gone.
    pub(super) fn clear(&self) {
        let deadline = Instant::now() + KILL_DEADLINE;
        for directory in &self.directories {
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

fn kill_all(directory: &Path) {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in listed.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
