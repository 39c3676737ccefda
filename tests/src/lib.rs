//! The harness of the end-to-end suites: images made in code, the product's binaries, and
//! comparison of file trees. Everything runs in temporary directories.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a harness fails by panicking"
)]

pub mod compare;
pub mod fleet;
pub mod image;
pub mod product;
pub mod s3;

/// Whether tests that mount can run here; says so loudly if not.
#[must_use]
pub fn privileged() -> bool {
    let ready = rustix::process::geteuid().is_root() && std::path::Path::new("/dev/fuse").exists();
    if !ready {
        eprintln!("SKIPPED: needs root and /dev/fuse");
    }
    ready
}

/// Whether sandboxes can run here; says so loudly if not.
#[must_use]
pub fn sandboxes() -> bool {
    let found = std::process::Command::new("crun").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: needs crun");
    }
    privileged() && found
}
