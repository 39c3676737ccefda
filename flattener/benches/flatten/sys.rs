//! Waiting for a child together with what it used: the one call that the standard library
//! and rustix do not have.

use std::io;
use std::process::{Child, ExitStatus};

/// How a child ended, and the most memory it had resident, in bytes. Children that it did
/// not wait for itself are not counted.
pub(crate) fn wait(child: &Child) -> io::Result<(ExitStatus, u64)> {
    use std::os::unix::process::ExitStatusExt;
    let id = i32::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: rusage is a plain C structure for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the right types, and `id` is our own
        // child, which nothing else waits for: the caller holds it and gave it up to us.
        let waited = unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) };
        if waited == id {
            let kibibytes = u64::try_from(usage.ru_maxrss).map_err(io::Error::other)?;
            return Ok((ExitStatus::from_raw(status), kibibytes * 1024));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
