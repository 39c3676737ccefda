//! Starting the OCI runtime without a copy of this process.
//!
//! `fork` copies the page tables of the worker, whose cache may hold gigabytes, for a child that
//! becomes another program at once; here the child borrows the worker's memory until then (as
//! in posix_spawn(3), which cannot join control groups). And crun, which protects itself from
//! its containers by copying itself at each start (CVE-2019-5736), is started from a sealed copy
//! in memory, made once, which it accepts.
//!
//! Invariants: a [`Spawned`] that is dropped is killed and reaped; the sealed copy is of the
//! file that is at the runtime's path now.

use super::{SandboxError, Settings, sys};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

/// A copy of a program in memory that nobody can change, and the file it is of.
struct Sealed {
    of: (u64, u64, i64, i64, u64),
    copy: Arc<OwnedFd>,
}

static SEALED: Mutex<Option<Sealed>> = Mutex::new(None);

/// A runtime that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    process: AsyncFd<OwnedFd>,
    reaped: bool,
    /// What it and its children print.
    pub(super) output: Option<(pipe::Receiver, pipe::Receiver)>,
}

/// Where a program is, as a shell finds it.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn copy_sealed(from: &mut File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // kernels before 6.3 do not know the flag, and need none
    let copy = match memfd_create(c"runtime", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(c"runtime", flags)?,
        made => made?,
    };
    let mut file = File::from(copy);
    io::copy(from, &mut file)?;
    // exactly those that crun looks for
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// The sealed copy of the program at `path`. None where copies cannot be made or executed.
fn sealed(path: &Path) -> Option<Arc<OwnedFd>> {
    let mut file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    let of = (about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), about.size());
    // replaced whole or not at all
    let mut kept = SEALED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sealed) = kept.as_ref().filter(|sealed| sealed.of == of) {
        return Some(Arc::clone(&sealed.copy));
    }
    let copy = Arc::new(copy_sealed(&mut file).ok()?);
    *kept = Some(Sealed { of, copy: Arc::clone(&copy) });
    Some(copy)
}

fn terminated(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::other("an argument contains a NUL byte"))
}

fn start(settings: &Settings, path: &Path, args: &[&OsStr], doors: Vec<File>) -> io::Result<Spawned> {
    sys::merge_nothing();
    let mut argv = vec![terminated(settings.runtime.as_ref())?];
    for arg in args {
        argv.push(terminated(arg)?);
    }
    let env = std::env::vars_os().map(|(name, value)| {
        terminated(OsStr::from_bytes(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
    });
    let ((out, out_end), (err, err_end)) = (io::pipe()?, io::pipe()?);
    let mut birth = sys::Birth {
        program: terminated(path.as_os_str())?,
        argv,
        env: env.collect::<io::Result<_>>()?,
        stdio: [File::open("/dev/null")?.into(), out_end.into(), err_end.into()],
        doors,
    };
    let copy = settings.is_crun().then(|| sealed(path)).flatten();
    let process = match &copy {
        Some(copy) => {
            let direct = std::mem::replace(
                &mut birth.program,
                terminated(format!("/proc/self/fd/{}", copy.as_raw_fd()).as_ref())?,
            );
            // a host may forbid to execute memory (vm.memfd_noexec)
            sys::spawn(&birth).or_else(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    birth.program = direct;
                    sys::spawn(&birth)
                }
                _ => Err(error),
            })
        }
        None => sys::spawn(&birth),
    }?;
    let receiver = |end: io::PipeReader| pipe::Receiver::from_owned_fd(end.into());
    // before anything can fail: the process belongs to somebody
    let mut spawned = Spawned { process: sys::watch(process)?, reaped: false, output: None };
    spawned.output = Some((receiver(out)?, receiver(err)?));
    Ok(spawned)
}

impl Spawned {
    /// Starts the runtime in the groups behind `doors`, in a process group of its own: signals of
    /// the worker's terminal are for the worker. Blocks until the runtime runs.
    ///
    /// # Errors
    /// [`SandboxError`] if it cannot be started.
    pub(super) fn start(
        settings: &Settings,
        args: &[&OsStr],
        doors: Vec<File>,
    ) -> Result<Self, SandboxError> {
        let none = || SandboxError::NoRuntime { runtime: settings.runtime.clone() };
        let path = find(&settings.runtime).ok_or_else(none)?;
        start(settings, &path, args, doors).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => none(),
            _ => SandboxError::Io { action: "run", path, source },
        })
    }

    /// Waits for its end: its exit status, none if a signal ended it. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn wait(&mut self) -> io::Result<Option<i32>> {
        let status = ended(&self.process, WaitIdOptions::EXITED).await?;
        self.reaped = true;
        Ok(status.exit_status())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if !self.reaped {
            // one that has ended already needs no signal
            let _ = pidfd_send_signal(self.process.get_ref(), Signal::KILL);
            let _ = waitid(WaitId::PidFd(self.process.get_ref().as_fd()), WaitIdOptions::EXITED);
        }
    }
}

/// Waits for the end of a child behind a pidfd. Cancel-safe.
///
/// # Errors
/// The kernel's; `ECHILD` if it is no child of this process, or was waited for before.
pub(super) async fn ended(process: &AsyncFd<OwnedFd>, options: WaitIdOptions) -> io::Result<WaitIdStatus> {
    loop {
        // readable once the process has ended, and now and then before
        let mut ready = process.readable().await?;
        match waitid(WaitId::PidFd(process.get_ref().as_fd()), options | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) | Err(Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    fn settings(runtime: &str) -> Settings {
        let run_dir = std::env::temp_dir();
        Settings { runtime: runtime.into(), run_dir, grace: Duration::ZERO, started: None }
    }

    async fn run(runtime: &str, script: &str) -> (Option<i32>, String, String) {
        let args = ["-c".as_ref(), script.as_ref()];
        let mut spawned = Spawned::start(&settings(runtime), &args, Vec::new()).unwrap();
        let (mut out, mut err) = spawned.output.take().unwrap();
        let (mut said, mut complained) = (String::new(), String::new());
        out.read_to_string(&mut said).await.unwrap();
        err.read_to_string(&mut complained).await.unwrap();
        (spawned.wait().await.unwrap(), said, complained)
    }

    #[tokio::test]
    async fn a_program_runs_with_its_streams_and_default_signals() {
        let script = "echo out; echo err >&2; cat; grep SigIgn /proc/self/status; exit 7";
        let (status, out, err) = run("sh", script).await;
        assert_eq!((status, err.as_str()), (Some(7), "err\n"));
        assert_eq!(out, "out\nSigIgn:\t0000000000000000\n");
        let (status, ..) = run("/bin/sh", "kill -9 $$").await;
        assert_eq!(status, None);
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_said() {
        for runtime in ["no-such-runtime", "/no/such/runtime"] {
            let error = Spawned::start(&settings(runtime), &[], Vec::new()).unwrap_err();
            assert!(matches!(error, SandboxError::NoRuntime { .. }), "{error}");
        }
        let error = Spawned::start(&settings("/etc/passwd"), &[], Vec::new()).unwrap_err();
        assert!(
            matches!(&error, SandboxError::Io { path, .. } if path == Path::new("/etc/passwd")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_dropped_one_is_gone() {
        let args = ["-c".as_ref(), "exec sleep 1000".as_ref()];
        let spawned = Spawned::start(&settings("sh"), &args, Vec::new()).unwrap();
        let (mut out, _) = { spawned }.output.take().unwrap();
        // nobody has the other end any more
        assert_eq!(out.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[test]
    fn the_sealed_copy_follows_the_file_and_cannot_be_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let first = sealed(&path).unwrap();
        assert_eq!(first.as_raw_fd(), sealed(&path).unwrap().as_raw_fd());
        let mut copy = File::from(first.try_clone().unwrap());
        assert!(copy.write_all(b"x").is_err());
        std::fs::write(&path, "three").unwrap();
        let second = sealed(&path).unwrap();
        assert_eq!(std::fs::read(format!("/proc/self/fd/{}", second.as_raw_fd())).unwrap(), b"three");
    }
}
