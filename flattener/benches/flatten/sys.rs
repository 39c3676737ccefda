//! Waiting for a child together with what it used: the one call that the standard library
//! and rustix do not have.

use std::io;
use std::process::{Child, ExitStatus};

/// What a child used, with those of its own children that it waited for.
pub(crate) struct Usage {
    /// Most memory that one process had resident, in bytes.
    pub(crate) peak_bytes: u64,
    /// Processor time of all threads, user and system, in seconds.
    pub(crate) cpu_seconds: f64,
}

/// How a child ended, and what it used.
pub(crate) fn wait(child: &Child) -> io::Result<(ExitStatus, Usage)> {
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
            let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            let cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
            let used = Usage { peak_bytes: kibibytes * 1024, cpu_seconds };
            return Ok((ExitStatus::from_raw(status), used));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
