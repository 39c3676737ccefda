//! A sandbox that runs for as long as its owner wants: a function's.
//!
//! ```text
//! shell ─launch─▶ running ─the process ends, or stop─▶ ended ─clear─▶ nothing left
//! ```
//!
//! The OCI runtime stays in the foreground as the sandbox's supervisor, so that the end of
//! the sandbox is the end of a child of this process.
//!
//! Invariants: a [`Running`] that is dropped kills its processes; [`Running::stop`] leaves no
//! process, mount, control group or file. Processes are named by the ids that they have
//! inside, and only those of this sandbox can be named.

use super::bundle::{self, Network, Request};
use super::cgroup::Usage;
use super::network::NetworkNamespace;
use super::pool::Shell;
use super::run::runtime_command;
use super::{Identity, SandboxError, Settings, sys};
use crate::image_config::ImageConfig;
use crate::rootfs::RootFs;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, ChildStderr, ChildStdout};

/// A user for images that name none or root: as on AWS, functions are nobody in particular.
pub const FUNCTION_USER: &str = "993:990";

/// What a sandbox's processes print outside of invocations.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: ChildStdout,
    /// Standard error.
    pub stderr: ChildStderr,
}

/// A sandbox whose process runs. See the module's invariants.
#[derive(Debug)]
pub struct Running {
    shell: Option<Shell>,
    child: Child,
    runtime: Option<Pid>,
    settings: Settings,
}

/// Everything that blocks: the image's files are read, which may come from far away.
fn prepare(
    shell: &Shell,
    rootfs: &dyn RootFs,
    mut request: Request,
    settings: &Settings,
) -> Result<tokio::process::Command, SandboxError> {
    let config = ImageConfig::parse(rootfs.config()).map_err(SandboxError::Config)?;
    let user = request.user.clone().unwrap_or_else(|| config.user.clone());
    let mut identity = Identity::find(rootfs.directory(), &user)?;
    if identity.uid == 0 {
        identity = Identity::find(rootfs.directory(), FUNCTION_USER)?;
    }
    shell.place.mount_root(rootfs.directory(), request.private_tmp)?;
    shell.groups.limit(&request)?;
    request.network = Network::Joined(shell.namespace.path());
    let spec = bundle::spec(&shell.place.id, &shell.place.root, true, &config, &request, &identity)?;
    let path = shell.place.directory.join("config.json");
    fs::write(&path, spec.to_string()).map_err(SandboxError::io("write", &path))?;
    let mut command = runtime_command(settings);
    command.arg("run").arg("--bundle").arg(&shell.place.directory).arg(&shell.place.id);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // signals of the worker's terminal are for the worker
    command.process_group(0).kill_on_drop(true);
    sys::join(&mut command, shell.groups.doors()?);
    Ok(command)
}

impl Running {
    /// Starts `request` on `rootfs` in `shell`. The network of the request is the shell's.
    /// Not cancel-safe: dropped, it may leave what [`super::clear_orphans`] removes.
    ///
    /// # Errors
    /// [`SandboxError`] if the process could not be started.
    pub async fn launch(
        shell: Shell,
        rootfs: Arc<dyn RootFs>,
        request: Request,
        settings: &Settings,
    ) -> Result<(Self, Output), SandboxError> {
        let owned = settings.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let command = prepare(&shell, rootfs.as_ref(), request, &owned)?;
            Ok((shell, command))
        });
        let prepared = prepared.await.map_err(io::Error::other);
        let (shell, mut command) = prepared.map_err(SandboxError::io("prepare", &settings.run_dir))??;
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SandboxError::NoRuntime { runtime: settings.runtime.clone() },
            _ => SandboxError::Io { action: "run", path: settings.runtime.clone().into(), source },
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(SandboxError::Request("the runtime was started without pipes".into()));
        };
        let runtime = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let running = Self { shell: Some(shell), child, runtime, settings: settings.clone() };
        Ok((running, Output { stdout, stderr }))
    }

    fn shell(&self) -> &Shell {
        self.shell.as_ref().expect("only `stop` takes the shell, and the value with it")
    }

    /// The sandbox's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shell().id()
    }

    /// The handle by which others look at and into the sandbox while it runs.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { id: self.id().to_string(), runtime: self.runtime }
    }

    /// Waits for the end of the sandbox's first process. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// By which ports of the sandbox's loopback are reached, for as long as it is kept.
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector(Arc::clone(&self.shell().namespace))
    }

    /// The BPF program that the runtime compiled from the profile for this sandbox, base64, if
    /// it keeps one (crun does): further sandboxes are started with it.
    #[must_use]
    pub fn compiled_filter(&self) -> Option<String> {
        use base64::Engine;
        let state = self.settings.run_dir.join("runtime").join(self.id());
        let program = fs::read(state.join("seccomp.bpf")).ok()?;
        // whole instructions of 8 bytes, and a real filter rather than one in the making
        let complete = program.len() >= 64 && program.len() % 8 == 0;
        complete.then(|| base64::engine::general_purpose::STANDARD.encode(program))
    }

    /// Ends the sandbox: SIGTERM to its first process, SIGKILL after `grace`, then removes all
    /// of it. Not cancel-safe: dropped, the rest is done by [`Drop`] as far as it can.
    pub async fn stop(mut self, grace: Duration) {
        if !grace.is_zero() && matches!(self.child.try_wait(), Ok(None)) {
            if let Some(first) = self.observer().find(1) {
                let _ = kill_process(first, Signal::TERM);
            }
            let _ = tokio::time::timeout(grace, self.child.wait()).await;
        }
        // the end of the first process ends all, and lets the runtime clear up by itself
        if matches!(self.child.try_wait(), Ok(None)) {
            match self.observer().find(1) {
                Some(first) => drop(kill_process(first, Signal::KILL)),
                None => self.shell().groups.kill_all(),
            }
            if tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await.is_err() {
                self.shell().groups.kill_all();
                let _ = self.child.wait().await;
            }
        }
        let state = self.settings.run_dir.join("runtime").join(self.id());
        if state.exists() {
            let deleted =
                runtime_command(&self.settings).args(["delete", "--force", self.id()]).status().await;
            if let Err(error) = deleted {
                tracing::warn!(sandbox = %self.id(), %error, "the runtime could not delete the sandbox");
            }
        }
        if let Some(mut shell) = self.shell.take() {
            // unmounting and removing groups blocks
            let _ = tokio::task::spawn_blocking(move || shell.clear()).await;
        }
    }
}

/// Connects to what listens inside a sandbox.
#[derive(Debug, Clone)]
pub struct Connector(Arc<NetworkNamespace>);

impl Connector {
    /// Connects to a port of the sandbox's loopback. Blocks for as long as `patience`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self, port: u16, patience: Duration) -> io::Result<std::net::TcpStream> {
        self.0.connect((std::net::Ipv4Addr::LOCALHOST, port).into(), patience)
    }
}

/// Looks at a running sandbox from outside. Stays valid after its end, and finds nothing then.
#[derive(Debug, Clone)]
pub struct Observer {
    id: String,
    runtime: Option<Pid>,
}

/// The last number of a `NSpid:` line: the id in the innermost namespace.
fn inner_pid(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

impl Observer {
    /// The sandbox's processes as this host numbers them, without the OCI runtime.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let mut all = super::cgroup::Cgroups::find(&self.id).processes();
        all.retain(|pid| Some(*pid) != self.runtime);
        all
    }

    /// The process with this id inside the sandbox, as this host numbers it.
    #[must_use]
    pub fn find(&self, inside: i32) -> Option<Pid> {
        self.processes().into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
            let status = status.unwrap_or_default();
            // two numbers or more: a process that has not yet entered the namespace has one
            let nested = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            nested.is_some_and(|ids| ids.split_whitespace().count() > 1) && inner_pid(&status) == Some(inside)
        })
    }

    /// Kills one process by its id inside the sandbox. False if there is none.
    #[must_use]
    pub fn kill(&self, inside: i32) -> bool {
        self.find(inside).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// What the sandbox uses by its control groups.
    #[must_use]
    pub fn usage(&self) -> Usage {
        super::cgroup::Cgroups::find(&self.id).usage()
    }

    /// Proportional set size of a process of this host in bytes: its own memory, and its share
    /// of what it shares. Costs as much as the process has mappings.
    #[must_use]
    pub fn pss_bytes(pid: Pid) -> Option<u64> {
        rollup(pid, "Pss:")
    }

    /// Memory that only this process has, in bytes: what its end would free.
    #[must_use]
    pub fn private_bytes(pid: Pid) -> Option<u64> {
        Some(rollup(pid, "Private_Dirty:")? + rollup(pid, "Private_Clean:")?)
    }
}

fn rollup(pid: Pid, field: &str) -> Option<u64> {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
    let text = fs::read_to_string(Path::new(&path)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::inner_pid;

    #[test]
    fn the_innermost_id_is_found() {
        assert_eq!(inner_pid("Name:\tx\nNSpid:\t4711\t1\nVm:\t3\n"), Some(1));
        assert_eq!(inner_pid("NSpid:\t7"), Some(7));
        assert_eq!(inner_pid(""), None);
    }
}
