//! The unsafe calls of this crate: code that runs between fork and exec.

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
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
