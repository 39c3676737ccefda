//! A sandbox's control groups, on cgroup v1, v2, or both at once (hybrid).
//!
//! Made here and not by the OCI runtime: runtimes differ in what they support (crun refuses
//! some hybrid hosts), and groups can be made ahead of the sandbox they are for. The runtime
//! process is started inside the groups, so everything it starts is in them from its first
//! instruction.
//!
//! A sandbox's groups are below those of its worker (worker.rs), which bound all of its sandboxes
//! together: what they come to use beyond what was foreseen is the kernel's to stop, among them.
//!
//! Invariants: a limit that was asked for is in force or [`Cgroups::limit`] fails; after
//! [`Cgroups::clear`] no process and no group of the sandbox is left.

use super::worker::{self, CONTROLLERS, Home, make_group, write};
use super::{Request, SandboxError};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes and threads of a sandbox where the request does not say.
const DEFAULT_PIDS: i64 = 4096;
/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
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
    /// Memory in bytes without file cache: what would be free if the sandbox ended. With what the
    /// kernel keeps to merge its pages, which it counts for nobody.
    pub memory_bytes: u64,
    /// CPU time since the start.
    pub cpu: Duration,
    /// Processes that the kernel killed because the sandbox was at its own memory limit.
    pub oom_kills: u64,
    /// Processes that it killed because memory ran out above: at the limit of all sandboxes of
    /// the worker together, or on the host. The kernel chooses among all; this sandbox may have
    /// used little.
    pub oom_kills_above: u64,
}

/// The groups of one sandbox.
#[derive(Debug)]
pub(super) struct Cgroups {
    groups: Vec<Group>,
    /// Controllers without a group, and why.
    missing: Vec<(&'static str, String)>,
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
        let mut groups = Self { groups: Vec::new(), missing: Vec::new() };
        for controller in CONTROLLERS {
            if let Err(error) = groups.add(controller, id) {
                let why = worker::explain(&error);
                tracing::warn!(controller, why, "this control group cannot be had");
                groups.missing.push((controller, why));
            }
        }
        groups
    }

    fn add(&mut self, controller: &'static str, id: &str) -> Result<(), SandboxError> {
        let Some(home) = Home::of(controller) else {
            // version 2 counts CPU time in the cpu controller
            if controller == "cpuacct" {
                return Ok(());
            }
            let reason =
                format!("this host has no {controller} control group; mount it, or have it delegated");
            return Err(SandboxError::Request(reason));
        };
        worker::group(controller, home)?;
        let directory = home.sandbox(id);
        make_group(&directory)?;
        self.groups.push(Group { controller, directory, v2: home.v2 });
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
                let why = self.missing.iter().find(|(name, _)| *name == controller);
                let why = why.map_or("it was not made", |(_, why)| why);
                let reason = format!("the {controller} limit needs a control group: {why}");
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
            let Some(home) = Home::of(controller) else { continue };
            let directory = home.sandbox(id);
            if directory.exists() {
                groups.push(Group { controller, directory, v2: home.v2 });
            }
        }
        Self { groups, missing: Vec::new() }
    }

    /// What the sandbox uses now; no CPU time where this host does not count it. `None` if it is
    /// gone, or if this process cannot read it now (it may have no descriptor left).
    pub(super) fn usage(&self) -> Option<Usage> {
        let read = |group: &Group, file: &str| fs::read_to_string(group.directory.join(file)).ok();
        let number = |group: &Group, file: &str| read(group, file)?.trim().parse::<u64>().ok();
        let group = self.group("memory")?;
        let stats = read(group, "memory.stat")?;
        let (file, prefix, events) = if group.v2 {
            ("memory.current", "", "memory.events")
        } else {
            ("memory.usage_in_bytes", "total_", "memory.oom_control")
        };
        let cached = |kind: &str| stat(&stats, &format!("{prefix}{kind}_file"));
        let memory_bytes = number(group, file)?.saturating_sub(cached("active") + cached("inactive"));
        let events = read(group, events)?;
        let kills = stat(&events, "oom_kill");
        // both versions count kills of processes in this group, whatever was full
        let was_full = match kills {
            0 => false,
            // counted by what was full only
            _ if group.v2 => stat(&events, "oom") > 0,
            _ => {
                // Version 1 has the peak, file cache that made room later included: a sandbox may be
                // taken for full that was so before. (Its count of what did not fit, failcnt, stays 0
                // on Linux 6.18 where swap has a limit, too.) Memory is taken in batches of pages.
                let limit = number(group, "memory.limit_in_bytes")?;
                number(group, "memory.max_usage_in_bytes")? >= limit - limit / 64
            }
        };
        let (oom_kills, oom_kills_above) = if was_full { (kills, 0) } else { (0, kills) };
        let cpu = if let Some(group) = self.group("cpuacct") {
            Duration::from_nanos(number(group, "cpuacct.usage")?)
        } else if let Some(group) = self.group("cpu") {
            Duration::from_micros(stat(&read(group, "cpu.stat")?, "usage_usec"))
        } else {
            Duration::ZERO
        };
        Some(Usage { memory_bytes, cpu, oom_kills, oom_kills_above })
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
            while let Err(error) = remove(directory) {
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

/// The groups below one; runtimes other than crun put the sandbox's processes there.
fn below(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Removes a group and those below it, all of them empty.
fn remove(directory: &Path) -> io::Result<()> {
    below(directory).try_for_each(|child| remove(&child))?;
    fs::remove_dir(directory)
}

/// The processes in a group and those below it.
pub(super) fn listed(directory: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let own = listed.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw);
    own.chain(below(directory).flat_map(|child| self::listed(&child))).collect()
}

fn kill_all(directory: &Path) {
    for pid in listed(directory) {
        // one that is gone already is as good
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What a sandbox with this limit comes to when it wants 200 MiB.
    fn hoard(id: &str, limit: u64) -> Usage {
        let groups = Cgroups::make(id);
        groups.limit(&Request { memory_bytes: Some(limit), ..Request::default() }).unwrap();
        let door = groups.group("memory").unwrap().directory.join("cgroup.procs");
        let script =
            format!("echo $$ >{}; exec dd if=/dev/zero of=/dev/null bs=200M count=1", door.display());
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(!status.success(), "{status}");
        let usage = groups.usage().unwrap();
        groups.clear();
        assert_eq!(groups.usage(), None, "what cannot be read is not nothing");
        usage
    }

    #[test]
    fn privileged_a_kill_is_blamed_on_who_was_full() {
        if !rustix::process::geteuid().is_root() || Home::of("memory").is_none() {
            eprintln!("SKIPPED: needs root and a memory control group");
            return;
        }
        worker::bound(96 << 20);
        let own = hoard(&format!("{}-90", worker::name()), 32 << 20);
        assert_eq!((own.oom_kills, own.oom_kills_above), (1, 0), "its own limit: {own:?}");
        let above = hoard(&format!("{}-91", worker::name()), 512 << 20);
        assert_eq!((above.oom_kills, above.oom_kills_above), (0, 1), "all sandboxes' limit: {above:?}");
        worker::remove_own();
    }

    #[test]
    fn a_limit_without_its_group_says_why() {
        let groups = Cgroups { groups: Vec::new(), missing: vec![("memory", "it is read-only".into())] };
        let wanted = Request { memory_bytes: Some(1 << 20), ..Request::default() };
        let text = groups.limit(&wanted).unwrap_err().to_string();
        assert_eq!(text, "the memory limit needs a control group: it is read-only");
    }
}
