//! The unsafe calls of this crate: code that runs between fork and exec, and the network
//! namespace of a thread.

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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

/// Hides the v2 hierarchy of a hybrid host from the command. crun refuses such hosts when
/// any controller is on v2, even where it is told to leave control groups alone.
pub(super) fn hide_hybrid(command: &mut Command) {
    if !Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        return;
    }
    let hide = || -> io::Result<()> {
        // SAFETY: the child is single-threaded, so no other thread shares what is unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
        // only this namespace's copy goes
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        unmount(HYBRID, UnmountFlags::DETACH)?;
        Ok(())
    };
    // SAFETY: as in `join`: three system calls on constant strings.
    unsafe {
        command.pre_exec(hide);
    }
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

/// Makes the command run in a network namespace.
pub(super) fn enter(command: &mut std::process::Command, namespace: OwnedFd) {
    let enter = move || Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?);
    // SAFETY: as in `join`: one system call on a descriptor that was opened before.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, enter);
    }
}

/// Registers a descriptor with the async runtime.
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and names the same file until it is dropped, which is
    // after it was taken out of the runtime again.
    unsafe { AsyncFd::register(descriptor) }.map_err(Into::into)
}
