//! The unsafe calls of this crate: code that runs between the birth of a process and its
//! becoming another program, and the network namespace of a thread.

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Makes the command join control groups through their opened `cgroup.procs` files before
/// it becomes another program.
pub(super) fn join(command: &mut Command, doors: Vec<File>) {
    let enter = move || -> io::Result<()> {
        for mut door in &doors {
            door.write_all(b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure
    // makes write(2) calls on files that were opened before, and neither allocates nor
    // takes a lock.
    unsafe {
        command.pre_exec(enter);
    }
}

/// The second hierarchy of hosts that run cgroup v1 and v2 at once.
const HYBRID: &std::ffi::CStr = c"/sys/fs/cgroup/unified";

/// Whether this host runs both versions at once.
fn is_hybrid() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists()
}

/// Leaves the calling process, which has one thread, without the v2 hierarchy.
fn hide() -> io::Result<()> {
    // SAFETY: the caller has one thread, so no other one shares what is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    // only this namespace's copy goes
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    unmount(HYBRID, UnmountFlags::DETACH)?;
    Ok(())
}

/// Hides the v2 hierarchy of a hybrid host from the command. crun refuses such hosts when
/// any controller is on v2, even where it is told to leave control groups alone.
pub(super) fn hide_hybrid(command: &mut Command) {
    if is_hybrid() {
        // SAFETY: as in `join`: three system calls on constant strings.
        unsafe {
            command.pre_exec(hide);
        }
    }
}

/// Takes this process, and with it all that it starts from now on, out of those whose equal pages
/// the kernel merges, whoever had put it there (systemd's `MemoryKSM=`): the setting is inherited,
/// and a sandbox has it by permit only. Once; blocks while what was merged is taken apart.
pub(super) fn merge_nothing() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: this option changes no memory's content, and takes no pointers. Refused where the
    // kernel knows of no such thing.
    ONCE.call_once(|| unsafe {
        libc::prctl(libc::PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
    });
}

/// What a process becomes, and what it does before.
pub(super) struct Birth {
    /// Path of the program.
    pub(super) program: CString,
    /// Its arguments, its name first.
    pub(super) argv: Vec<CString>,
    /// `NAME=value`.
    pub(super) env: Vec<CString>,
    /// Standard input, output and error.
    pub(super) stdio: [OwnedFd; 3],
    /// Opened `cgroup.procs` files of the groups that it joins.
    pub(super) doors: Vec<File>,
}

/// A birth as the child sees it: in its parent's memory.
struct Plan<'a> {
    birth: &'a Birth,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    hide: bool,
    error: Option<i32>,
}

/// Memory for the child until it is another program; it needs a few hundred bytes.
const STACK: usize = 64 << 10;
/// Signals are numbered from 1 to this.
const LAST_SIGNAL: libc::c_int = 64;

/// What the child does. Returns only on failure.
fn become_program(plan: &Plan<'_>) -> io::Error {
    let prepared = || -> io::Result<()> {
        for (to, from) in (0..).zip(&plan.birth.stdio) {
            // SAFETY: replaces a descriptor of the child's own table by another of it.
            if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        rustix::process::setpgid(None, None)?;
        for mut door in &plan.birth.doors {
            door.write_all(b"0")?;
        }
        if plan.hide {
            hide()?;
        }
        Ok(())
    };
    if let Err(error) = prepared() {
        return error;
    }
    // SAFETY: the child has its own table of handlers, in which nothing of the parent's may stay
    // before signals come through again; the sets and structures are the kernel's plain data, of
    // which zeros are a value (no signals; the default). The program and the two lists are
    // strings and null-terminated lists of such, which the parent keeps.
    unsafe {
        // the kernel's own structure and call: that of the C library may take a lock
        let default = [0_u64; 4];
        for signal in 1..=LAST_SIGNAL {
            // those that cannot be changed are the default
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, 0_usize, 8_usize);
        }
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(plan.birth.program.as_ptr(), plan.argv.as_ptr(), plan.env.as_ptr());
    }
    io::Error::last_os_error()
}

/// Where the child begins. `plan` is a [`Plan`].
extern "C" fn begin(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its `Plan`, which lives until the child is another program or has
    // ended; the parent does not run meanwhile.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    plan.error = Some(become_program(plan).raw_os_error().unwrap_or(libc::EIO));
    // SAFETY: ends the child without running what the parent has registered for its own end.
    unsafe { libc::_exit(127) }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Starts a program in this process's memory and returns its pidfd when it is in its own. Blocks
/// until then.
///
/// # Errors
/// The kernel's, of the step that failed.
pub(super) fn spawn(birth: &Birth) -> io::Result<OwnedFd> {
    let (argv, env) = (pointers(&birth.argv), pointers(&birth.env));
    let mut plan = Plan { birth, argv, env, hide: is_hybrid(), error: None };
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let mut process: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: with CLONE_VFORK this thread stands still until the child has left this memory, so
    // the child is the only user of `stack`, which is aligned and grows down from its end, and of
    // `plan`. It shares memory with the other threads, so it takes no lock and allocates
    // nothing: `become_program` makes system calls only. It shares no table of descriptors,
    // handlers or directories. Signals are blocked from before its birth until it has no handler
    // of ours. The fifth argument is where CLONE_PIDFD puts its result.
    let born = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        let born = match libc::clone(begin, top, flags, (&raw mut plan).cast(), &raw mut process) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        };
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        born
    };
    born?;
    // SAFETY: the kernel made this descriptor for us, and nobody else knows of it.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    let Some(error) = plan.error else { return Ok(process) };
    // it has ended; nobody else waits for it
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    Err(io::Error::from_raw_os_error(error))
}

/// Moves the calling thread into a new network namespace.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: what is unshared is the network namespace only, which no memory depends on; the
    // caller's thread ends after its work.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

/// `struct ifreq` of netdevice(7), as far as flags need it.
#[repr(C)]
struct InterfaceFlags {
    name: [libc::c_char; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Brings `lo` up in the calling thread's network namespace.
pub(super) fn bring_loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("flags of 1 and 64 fit");
    let mut request = InterfaceFlags { name: [0; libc::IFNAMSIZ], flags: up, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::try_from(*from).expect("ASCII");
    }
    // SAFETY: the descriptor is open, and the kernel reads a `struct ifreq` of 40 bytes, which
    // `request` is, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Registers a descriptor with the async runtime.
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and names the same file until it is dropped, which is
    // after it was taken out of the runtime again.
    unsafe { AsyncFd::register(descriptor) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inherited_of_merging_is_given_up() {
        // SAFETY: neither option changes memory's content or takes pointers.
        let (set, get) = unsafe {
            let set = libc::prctl(libc::PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
            merge_nothing();
            (set, libc::prctl(libc::PR_GET_MEMORY_MERGE, 0, 0, 0, 0))
        };
        if set != 0 {
            eprintln!("SKIPPED: this kernel merges no memory by process (KSM, Linux 6.4)");
            return;
        }
        assert_eq!(get, 0);
    }
}
