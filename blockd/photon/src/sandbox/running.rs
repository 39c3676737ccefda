//! A sandbox that runs for as long as its owner wants: a function's.
//!
//! ```text
//! shell ─launch─▶ running ─the process ends, or stop─▶ ended ─clear─▶ nothing left
//! ```
//!
//! The OCI runtime starts the sandbox and leaves; this process adopts the sandbox's first
//! process (it is a child subreaper) and watches it through a pidfd. A runtime that stayed
//! would cost memory for each sandbox, and would keep whatever was mounted when it started.
//!
//! Invariants: a [`Running`] that is dropped kills its processes; [`Running::stop`] leaves no
//! process, mount, control group or file.

use super::bundle::{self, Network, Request};
use super::cgroup::Usage;
use super::network::NetworkNamespace;
use super::pool::Shell;
use super::run::{runtime_args, runtime_command};
use super::spawn::{Spawned, ended};
use super::{Identity, SandboxError, Settings, sys};
use crate::image_config::ImageConfig;
use crate::rootfs::RootFs;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// A user for images that name none or root: as on AWS, functions are nobody in particular.
pub const FUNCTION_USER: &str = "993:990";

/// What a sandbox's processes print outside of invocations.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: pipe::Receiver,
    /// Standard error.
    pub stderr: pipe::Receiver,
}

/// A sandbox whose process runs. See the module's invariants.
#[derive(Debug)]
pub struct Running {
    shell: Option<Shell>,
    first: AsyncFd<OwnedFd>,
    settings: Settings,
    merging: Option<Arc<KeptForMerging>>,
}

/// Where the runtime says which process it started, and what went wrong; in the bundle.
const PID_FILE: &str = "pid";
const LOG_FILE: &str = "log";

/// Starts the runtime with `command`. Blocks: the image's files are read, which may come from far
/// away.
fn start(
    command: &[&str],
    shell: &Shell,
    rootfs: &dyn RootFs,
    mut request: Request,
    settings: &Settings,
) -> Result<Spawned, SandboxError> {
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
    let directory = &shell.place.directory;
    let (log, pid) = (directory.join(LOG_FILE), directory.join(PID_FILE));
    let mut args = runtime_args(settings);
    args.extend(["--log".into(), log.into()]);
    args.extend(command.iter().map(OsString::from));
    args.extend(["--pid-file".into(), pid.into(), "--bundle".into(), directory.into()]);
    args.push(shell.id().into());
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    Spawned::start(settings, &args, shell.groups.doors()?)
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
        Self::begin(&["run", "--detach"], shell, rootfs, request, settings).await
    }

    async fn begin(
        command: &'static [&'static str],
        shell: Shell,
        rootfs: Arc<dyn RootFs>,
        request: Request,
        settings: &Settings,
    ) -> Result<(Self, Output), SandboxError> {
        let owned = settings.clone();
        let merging = request.may_merge.then(Arc::default);
        let started = tokio::task::spawn_blocking(move || {
            let runtime = start(command, &shell, rootfs.as_ref(), request, &owned)?;
            Ok((shell, runtime))
        });
        let started = started.await.map_err(io::Error::other);
        let (shell, mut runtime) = started.map_err(SandboxError::io("prepare", &settings.run_dir))??;
        let status = runtime.wait().await.map_err(SandboxError::io("wait for", &settings.runtime))?;
        let Some((stdout, stderr)) = runtime.output.take() else {
            return Err(SandboxError::Request("the runtime was started without pipes".into()));
        };
        let directory = &shell.place.directory;
        let first = if status == Some(0) {
            adopt(&directory.join(PID_FILE))
        } else {
            let said = fs::read_to_string(directory.join(LOG_FILE)).unwrap_or_default();
            let said = said.trim().replace('\n', "; ");
            Err(SandboxError::Refused { runtime: settings.runtime.clone(), said })
        };
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                // unmounting and removing groups blocks
                let _ = tokio::task::spawn_blocking(move || drop(shell)).await;
                return Err(error);
            }
        };
        let settings = settings.clone();
        Ok((Self { shell: Some(shell), first, settings, merging }, Output { stdout, stderr }))
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
        Observer { id: self.id().to_string(), merging: self.merging.clone() }
    }

    /// Waits for the end of the sandbox's first process and says how it ended. Cancel-safe.
    pub async fn wait(&self) -> String {
        match ended(&self.first, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).await {
            Ok(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit status: {code}"),
                (_, signal) => format!("signal: {}", signal.unwrap_or(0)),
            },
            // it ended before the runtime left it to us
            Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => "at once".into(),
            Err(error) => format!("how is not known: {error}"),
        }
    }

    fn signal(&self, signal: Signal) {
        // one that has ended already needs none
        let _ = pidfd_send_signal(self.first.get_ref(), signal);
    }

    /// By which ports of the sandbox's loopback are reached, for as long as it is kept.
    #[must_use]
    pub fn connector(&self) -> Connector {
        let namespace = Arc::clone(&self.shell().namespace);
        Connector { namespace, opening: Arc::new(Semaphore::new(MOST_OPENING)) }
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
        if !grace.is_zero() {
            self.signal(Signal::TERM);
            let _ = tokio::time::timeout(grace, self.wait()).await;
        }
        // the end of the first process is the end of all
        self.signal(Signal::KILL);
        if tokio::time::timeout(KILL_PATIENCE, self.wait()).await.is_err() {
            self.shell().groups.kill_all();
        }
        // it was adopted, so nobody else asks how it ended
        let _ = waitid(
            WaitId::PidFd(self.first.get_ref().as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        let Some(mut shell) = self.shell.take() else { return };
        let settings = self.settings.clone();
        forget(&settings, shell.id()).await;
        // unmounting and removing groups blocks
        let _ = tokio::task::spawn_blocking(move || shell.clear()).await;
    }
}

/// A sandbox with everything but its first instruction: its process waits to become the
/// image's command. Dropped, it is killed, and leaves what [`super::clear_orphans`] removes.
#[derive(Debug)]
pub struct Prepared {
    running: Running,
    output: Output,
}

impl Prepared {
    /// As [`Running::launch`], up to the first instruction. Not cancel-safe, like it.
    ///
    /// # Errors
    /// As [`Running::launch`].
    pub async fn prepare(
        shell: Shell,
        rootfs: Arc<dyn RootFs>,
        request: Request,
        settings: &Settings,
    ) -> Result<Self, SandboxError> {
        let (running, output) = Running::begin(&["create"], shell, rootfs, request, settings).await?;
        Ok(Self { running, output })
    }

    /// See [`Shell::take_listeners`].
    pub fn take_listeners(&mut self) -> Option<(TcpListener, TcpListener)> {
        self.running.shell.as_mut()?.take_listeners()
    }

    /// Lets the process go on.
    ///
    /// # Errors
    /// [`SandboxError`] if it has ended meanwhile; the sandbox is removed then.
    pub async fn start(self) -> Result<(Running, Output), SandboxError> {
        let (settings, id) = (&self.running.settings, self.running.id());
        let started = if settings.is_crun() {
            release(&settings.run_dir.join("runtime").join(id).join("exec.fifo"))
        } else {
            match runtime_command(settings).args(["start", id]).status().await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(io::Error::other(format!("start: {status}"))),
                Err(error) => Err(error),
            }
        };
        match started {
            Ok(()) => Ok((self.running, self.output)),
            Err(error) => {
                let runtime = settings.runtime.clone();
                self.clear().await;
                Err(SandboxError::io("start the sandbox prepared by", runtime)(error))
            }
        }
    }

    /// Removes it unused.
    pub async fn clear(self) {
        self.running.stop(Duration::ZERO).await;
    }
}

/// All that crun's `start` does, without a process for it: the one that waits reads a byte.
fn release(fifo: &Path) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // fails where nobody waits any more
    let door = rustix::fs::open(fifo, flags, Mode::empty())?;
    rustix::io::write(&door, b"\0")?;
    fs::remove_file(fifo)
}

/// Removes what the runtime remembers of a sandbox that has ended.
async fn forget(settings: &Settings, id: &str) {
    let state = settings.run_dir.join("runtime").join(id);
    if settings.is_crun() {
        // all that crun's own `delete` would do here, without a process for it
        if let Err(error) = fs::remove_dir_all(&state) {
            tracing::debug!(sandbox = id, %error, "the runtime's state could not be removed");
        }
        return;
    }
    let deleted = runtime_command(settings).args(["delete", "--force", id]).status().await;
    if let Err(error) = deleted {
        tracing::warn!(sandbox = id, %error, "the runtime could not delete the sandbox");
    }
}

/// Takes the process that the runtime started for our own.
fn adopt(pid_file: &Path) -> Result<AsyncFd<OwnedFd>, SandboxError> {
    let text = fs::read_to_string(pid_file).map_err(SandboxError::io("read", pid_file))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or_else(|| SandboxError::Request(format!("the runtime wrote {text:?} as process id")))?;
    let watched = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
    watched.and_then(sys::watch).map_err(SandboxError::io("watch the process of", pid_file))
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Connections that are being opened to one sandbox at the same time.
const MOST_OPENING: usize = 8;

/// Connects to what listens inside a sandbox. Clones share its bound.
#[derive(Debug, Clone)]
pub struct Connector {
    namespace: Arc<NetworkNamespace>,
    opening: Arc<Semaphore>,
}

impl Connector {
    /// Connects to a port of the sandbox's loopback, within `patience` once it is its turn. What
    /// does not accept holds up nobody but those who connect to this sandbox.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn connect(&self, port: u16, patience: Duration) -> io::Result<TcpStream> {
        let _turn = self.opening.acquire().await.map_err(io::Error::other)?;
        let namespace = Arc::clone(&self.namespace);
        // a thread enters the namespace, which takes microseconds whatever is inside
        let socket = tokio::task::spawn_blocking(move || namespace.socket());
        let socket = socket.await.map_err(io::Error::other)??;
        let connected = socket.connect((std::net::Ipv4Addr::LOCALHOST, port).into());
        tokio::time::timeout(patience, connected).await?
    }
}

/// Looks at a running sandbox from outside. Stays valid after its end, and finds nothing then.
#[derive(Debug, Clone)]
pub struct Observer {
    id: String,
    merging: Option<Arc<KeptForMerging>>,
}

/// What the kernel keeps for each page that it looks at to merge it: `struct ksm_rmap_item`.
const MERGING_BYTES: u64 = 64;
/// How often that is counted: it takes a small file of each process.
const COUNT_AGAIN: Duration = Duration::from_secs(2);

/// What the kernel keeps to merge pages of a sandbox, as last counted.
#[derive(Debug, Default)]
struct KeptForMerging(Mutex<Option<(Instant, u64)>>);

impl KeptForMerging {
    fn bytes(&self, processes: impl FnOnce() -> Vec<Pid>) -> u64 {
        // one value, set whole
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = *counted
            && at.elapsed() < COUNT_AGAIN
        {
            return bytes;
        }
        let items = |pid: Pid| {
            let text = fs::read_to_string(format!("/proc/{}/ksm_stat", pid.as_raw_nonzero())).ok()?;
            text.lines().find_map(|line| line.strip_prefix("ksm_rmap_items ")?.trim().parse::<u64>().ok())
        };
        let bytes = processes().into_iter().filter_map(items).sum::<u64>() * MERGING_BYTES;
        *counted = Some((Instant::now(), bytes));
        bytes
    }
}

/// The last number of a `NSpid:` line: the id in the innermost namespace.
pub(super) fn inner_pid(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

impl Observer {
    /// The sandbox's processes as this host numbers them.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        super::cgroup::Cgroups::find(&self.id).processes()
    }

    /// What the sandbox uses by its control groups. `None` if it is gone, or if they cannot be read
    /// now.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let groups = super::cgroup::Cgroups::find(&self.id);
        let mut usage = groups.usage()?;
        if let Some(merging) = &self.merging {
            usage.memory_bytes += merging.bytes(|| groups.processes());
        }
        Some(usage)
    }

    /// Whether its processes may be merged.
    #[must_use]
    pub fn may_merge(&self) -> bool {
        self.merging.is_some()
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
    use super::*;

    #[test]
    fn the_innermost_id_is_found() {
        assert_eq!(inner_pid("Name:\tx\nNSpid:\t4711\t1\nVm:\t3\n"), Some(1));
        assert_eq!(inner_pid("NSpid:\t7"), Some(7));
        assert_eq!(inner_pid(""), None);
    }

    #[test]
    fn privileged_a_server_that_never_accepts_holds_up_nobody_else() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let namespace = Arc::new(NetworkNamespace::make().unwrap());
            let listener = namespace.listen("127.0.0.1:8080".parse().unwrap()).unwrap();
            // room for one that nobody accepts; the kernel lets no answer out for the others
            rustix::net::listen(&listener, 0).unwrap();
            let opening = Arc::new(Semaphore::new(MOST_OPENING));
            let connector = Connector { namespace, opening };
            let patience = Duration::from_secs(3);
            let connect = |connector: Connector| async move { connector.connect(8080, patience).await };
            let all: Vec<_> = (0..MOST_OPENING).map(|_| tokio::spawn(connect(connector.clone()))).collect();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let begun = std::time::Instant::now();
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(1), "others' starts wait for it");
            let mut failed = 0;
            for one in all {
                failed += usize::from(one.await.unwrap().is_err());
            }
            assert!(failed > 0, "patience is bounded");
        });
    }
}
