//! Processes of a running sandbox that are watched and ended alone: named inside by a number that
//! anybody in there may make up, held here by a pidfd.
//!
//! Invariants: a [`Process`] is of the sandbox that it was looked up in, and stays the same one
//! however often its number is used again; looking up takes a bounded share of a processor,
//! whatever is asked for.

use super::running::{Observer, inner_pid};
use super::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, OnceCell};

/// After a look at all processes of a sandbox comes a pause of so many times what it took.
const REST: u32 = 4;

/// One process of a sandbox.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    descriptor: AsyncFd<OwnedFd>,
}

impl Process {
    /// Opens the process that has this number on the host now. Needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(pid: Pid) -> io::Result<Arc<Self>> {
        let descriptor = sys::watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        Ok(Arc::new(Self { pid, descriptor }))
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(self.descriptor.get_ref(), PollFlags::IN)];
        poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
    }

    /// Waits for its end. Cancel-safe.
    pub async fn ended(&self) {
        while self.is_alive() {
            // readable once it has ended, and perhaps before
            let Ok(mut ready) = self.descriptor.readable().await else { return };
            if self.is_alive() {
                ready.clear_ready();
            }
        }
    }

    /// Kills it. False if it has ended already.
    pub fn kill(&self) -> bool {
        pidfd_send_signal(self.descriptor.get_ref().as_fd(), Signal::KILL).is_ok()
    }

    /// Memory that only this process has, in bytes: what its end would free.
    #[must_use]
    pub fn private_bytes(&self) -> Option<u64> {
        let bytes = Observer::private_bytes(self.pid);
        // its number is its own for as long as it lives
        bytes.filter(|_| self.is_alive())
    }
}

/// A process as the sandbox names it. It is looked up when that is first needed: most never are, and
/// a look costs more than an invocation that forks. Found once, it stays the same one.
#[derive(Debug)]
pub struct Named {
    inside: i32,
    processes: Arc<OnceLock<Processes>>,
    found: OnceCell<Option<Arc<Process>>>,
}

impl Named {
    /// The one with this number, among processes that may not be known yet.
    #[must_use]
    pub fn new(inside: i32, processes: Arc<OnceLock<Processes>>) -> Arc<Self> {
        Arc::new(Self { inside, processes, found: OnceCell::new() })
    }

    /// The process; none if the sandbox did not have it when it was looked up.
    pub async fn process(&self) -> Option<Arc<Process>> {
        let find = || async { self.processes.get()?.find(self.inside).await };
        self.found.get_or_init(find).await.clone()
    }
}

/// The number that a process has inside, if it is in a namespace of its own at all.
fn number_inside(pid: Pid) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    // one number only: a process that has not yet entered the namespace
    let nested = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    if nested.split_whitespace().count() > 1 { inner_pid(&status) } else { None }
}

/// Looks up processes of one sandbox.
#[derive(Debug)]
pub struct Processes {
    observer: Observer,
    looked: Mutex<Looked>,
}

/// What the last look at all processes showed.
#[derive(Debug, Default)]
struct Looked {
    known: HashMap<i32, Pid>,
    /// Before this there is no other.
    rests_until: Option<Instant>,
}

impl Processes {
    /// Those of the sandbox that `observer` looks at.
    #[must_use]
    pub fn new(observer: Observer) -> Self {
        Self { observer, looked: Mutex::default() }
    }

    /// The process with this number inside the sandbox. Many that are asked for at the same time
    /// are found by one look.
    pub async fn find(&self, inside: i32) -> Option<Arc<Process>> {
        let mut looked = self.looked.lock().await;
        if let Some(&pid) = looked.known.get(&inside)
            && let Some(process) = self.open(inside, pid).await
        {
            return Some(process);
        }
        if let Some(until) = looked.rests_until {
            tokio::time::sleep_until(until.into()).await;
        }
        let observer = self.observer.clone();
        let look = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let all = observer.processes().into_iter();
            let known = all.filter_map(|pid| Some((number_inside(pid)?, pid))).collect();
            Looked { known, rests_until: Some(Instant::now() + begun.elapsed() * REST) }
        });
        *looked = look.await.ok()?;
        let pid = *looked.known.get(&inside)?;
        self.open(inside, pid).await
    }

    async fn open(&self, inside: i32, pid: Pid) -> Option<Arc<Process>> {
        let observer = self.observer.clone();
        let open = tokio::task::spawn_blocking(move || {
            let process = Process::open(pid).ok()?;
            // the number may have become another's before it was opened
            let same = number_inside(pid) == Some(inside) && observer.processes().contains(&pid);
            (same && process.is_alive()).then_some(process)
        });
        open.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[tokio::test]
    async fn a_process_is_watched_and_ended_by_what_it_is() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::open(Pid::from_child(&child)).unwrap();
        assert!(process.is_alive() && process.private_bytes().is_some_and(|bytes| bytes > 0));
        let waiting = tokio::time::timeout(Duration::from_millis(50), process.ended());
        assert!(waiting.await.is_err(), "it lives");
        assert!(process.kill());
        tokio::time::timeout(Duration::from_secs(5), process.ended()).await.unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive() && !process.kill(), "whoever has its number now");
    }
}
