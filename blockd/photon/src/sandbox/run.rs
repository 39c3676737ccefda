//! Running a sandbox in the foreground and clearing up after it, or after a dead worker.

use super::bundle::{self, Request};
use super::cgroup::Cgroups;
use super::place::Place;
use super::{Identity, SandboxError, sys, worker};
use crate::image_config::ImageConfig;
use crate::rootfs::RootFs;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};

/// How sandboxes are run on this host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// OCI runtime on PATH, or its path.
    pub runtime: String,
    /// Where bundles and the runtime's state live; per worker, on a local file system.
    pub run_dir: PathBuf,
    /// How long a process may take to end after SIGTERM before it is killed.
    pub grace: Duration,
    /// Told at the first byte of output, where somebody waits for it.
    pub started: Option<Arc<Notify>>,
}

impl Settings {
    /// Whether the runtime is crun, of which more is known than of others.
    pub(super) fn is_crun(&self) -> bool {
        Path::new(&self.runtime).file_name().is_some_and(|name| name == "crun")
    }
}

/// Signals to pass on to the sandbox's process, by number.
pub type Signals = mpsc::Receiver<i32>;

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The process's exit code; 128 and the signal's number if a signal ended it.
    pub exit_code: u8,
    /// From the call to the first byte on standard output or error. Unknown with a terminal,
    /// which the runtime serves itself, and if nothing was printed.
    pub first_output: Option<Duration>,
    /// From the call to the end of the process.
    pub total: Duration,
}

/// What the runtime is told before any of its commands.
pub(super) fn runtime_args(settings: &Settings) -> Vec<OsString> {
    let mut args = vec!["--root".into(), settings.run_dir.join("runtime").into()];
    if settings.is_crun() {
        // its groups are made here (see cgroup.rs)
        args.push("--cgroup-manager=disabled".into());
    }
    args
}

pub(super) fn runtime_command(settings: &Settings) -> Command {
    let mut command = Command::new(&settings.runtime);
    command.args(runtime_args(settings));
    sys::hide_hybrid(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs `request` on `rootfs` with this process's standard streams, until it ends.
/// `signals` are passed on; after a SIGTERM or SIGINT the process has
/// [`Settings::grace`] to end, then it is killed.
///
/// Not cancel-safe: dropped, it kills the runtime and leaves what [`clear_orphans`] removes.
///
/// # Errors
/// [`SandboxError`] if it could not be started; how it ended otherwise is an [`Outcome`].
pub async fn run(
    request: &Request,
    rootfs: &dyn RootFs,
    settings: &Settings,
    mut signals: Signals,
) -> Result<Outcome, SandboxError> {
    let asked = Instant::now();
    let config = ImageConfig::parse(rootfs.config()).map_err(SandboxError::Config)?;
    let user = request.user.as_deref().unwrap_or(&config.user);
    let identity = Identity::find(rootfs.directory(), user)?;
    let place = Place::make(&settings.run_dir)?;
    let groups = Cgroups::make(&place.id);
    let root = match groups.limit(request).and_then(|()| mounted(&place, rootfs)) {
        Ok(root) => root,
        Err(error) => {
            groups.clear();
            place.clear();
            return Err(error);
        }
    };
    let started = start(request, &config, &identity, (&place, &root), &groups, rootfs, settings);
    let outcome = match started {
        Ok(child) => supervise(child, &place, settings, &mut signals, asked).await,
        Err(error) => Err(error),
    };
    let deleted = runtime_command(settings).args(["delete", "--force", &place.id]).status().await;
    if let Err(error) = deleted {
        tracing::warn!(sandbox = %place.id, %error, "the runtime could not delete the sandbox");
    }
    groups.clear();
    worker::remove_own();
    place.clear();
    outcome
}

/// The root to run on: the image's own if it is writable, else an overlay over it.
fn mounted(place: &Place, rootfs: &dyn RootFs) -> Result<PathBuf, SandboxError> {
    if rootfs.is_writable() {
        return Ok(rootfs.directory().to_path_buf());
    }
    place.make_scratch()?;
    place.mount_root(rootfs.directory(), false)?;
    Ok(place.root.clone())
}

fn start(
    request: &Request,
    config: &ImageConfig,
    identity: &Identity,
    (place, root): (&Place, &Path),
    groups: &Cgroups,
    rootfs: &dyn RootFs,
    settings: &Settings,
) -> Result<Child, SandboxError> {
    let read_only = !rootfs.is_writable();
    let spec = bundle::spec(&place.id, root, read_only, config, request, identity)?;
    let path = place.directory.join("config.json");
    fs::write(&path, spec.to_string()).map_err(SandboxError::io("write", &path))?;
    sys::merge_nothing();
    let mut command = runtime_command(settings);
    command.arg("run").arg("--bundle").arg(&place.directory).arg(&place.id);
    command.stdin(Stdio::inherit()).kill_on_drop(true);
    if request.terminal {
        command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    } else {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // signals of a terminal come through us; a background group may not read one
        if !rustix::termios::isatty(std::io::stdin()) {
            command.process_group(0);
        }
    }
    sys::join(&mut command, groups.doors()?);
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SandboxError::NoRuntime { runtime: settings.runtime.clone() },
        _ => SandboxError::Io { action: "run", path: settings.runtime.clone().into(), source },
    })
}

/// Copies until the end; `first` hears of the first bytes. Errors of our own output (a
/// closed pipe) end the copy, and the process gets SIGPIPE as it would without us.
async fn copy(
    from: Option<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
    first: mpsc::Sender<Instant>,
    started: Option<Arc<Notify>>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 * 1024];
    let mut begun = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !begun {
            begun = true;
            let _ = first.try_send(Instant::now());
            if let Some(started) = &started {
                started.notify_one();
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

async fn supervise(
    mut child: Child,
    place: &Place,
    settings: &Settings,
    signals: &mut Signals,
    asked: Instant,
) -> Result<Outcome, SandboxError> {
    let (first, mut heard) = mpsc::channel(2);
    let out =
        tokio::spawn(copy(child.stdout.take(), tokio::io::stdout(), first.clone(), settings.started.clone()));
    let err = tokio::spawn(copy(child.stderr.take(), tokio::io::stderr(), first, settings.started.clone()));
    let mut deadline: Option<tokio::time::Instant> = None;
    let status = loop {
        let late = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => {
                kill(settings, &place.id, signal).await;
                if signal == rustix::process::Signal::TERM.as_raw() || signal == rustix::process::Signal::INT.as_raw() {
                    deadline.get_or_insert(tokio::time::Instant::now() + settings.grace);
                }
            }
            () = late => {
                kill(settings, &place.id, rustix::process::Signal::KILL.as_raw()).await;
                deadline = None;
            }
        }
    };
    let total = asked.elapsed();
    let status = status.map_err(SandboxError::io("wait for", &settings.runtime))?;
    // what the process left in the pipes still comes; a child it left behind may hold them
    let drained = async { drop((out.await, err.await)) };
    let _ = tokio::time::timeout(Duration::from_secs(1), drained).await;
    let first_output = heard.try_recv().ok().map(|at| at.duration_since(asked));
    Ok(Outcome { exit_code: exit_code(status), first_output, total })
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code & 0xff).unwrap_or(255)
}

async fn kill(settings: &Settings, id: &str, signal: i32) {
    let sent = runtime_command(settings).args(["kill", id, &signal.to_string()]).status().await;
    if let Err(error) = sent {
        tracing::warn!(sandbox = id, signal, %error, "signal could not be passed on");
    }
}

/// Removes all sandboxes of a run directory, whose worker is gone: the caller holds its lock.
/// Returns their ids. Blocks.
///
/// # Errors
/// [`SandboxError`] if the run directory cannot be read.
pub async fn clear_orphans(settings: &Settings) -> Result<Vec<String>, SandboxError> {
    let sandboxes = settings.run_dir.join("sandboxes");
    let entries = match fs::read_dir(&sandboxes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SandboxError::io("read", sandboxes)(error)),
    };
    let mut cleared = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry.file_name().to_str().map(String::from) else { continue };
        // first of all: what dies by itself needs no runtime to kill it
        Cgroups::find(&id).kill_all();
        let deleted = runtime_command(settings).args(["delete", "--force", &id]).status().await;
        if let Err(error) = deleted {
            tracing::warn!(sandbox = %id, %error, "the runtime could not delete an orphan");
        }
        Cgroups::find(&id).clear();
        Place::of_orphan(id.clone(), entry.path()).clear();
        cleared.push(id);
    }
    worker::remove_of_dead();
    Ok(cleared)
}
