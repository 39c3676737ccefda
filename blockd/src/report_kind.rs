//! What a failure means to the shell and to clients: kinds to exit codes, once.
//!
//! 2 bad arguments; 3 not found; 4 invalid or corrupt; 5 unavailable; 6 denied; 7 out of
//! space or over a limit; 70 a fault of ours; 125 a sandbox that did not start.

use crate::config::ConfigError;
use crate::starts::TooManyStarts;
use cache::ssd::SsdError;
use fleet::settings::L2Error;
use fuse_mount::{ErrorKind as MountKind, MountError};
use image_format::names::NameError;
use origin::catalog::CatalogError;
use origin::settings::SettingsError;
use origin::store::{ErrorKind, OriginError};
use photon::sandbox::SandboxError;

/// A failure that the daemon reported.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// What it said.
    pub message: String,
    /// The exit code it means.
    pub exit_code: u8,
}

/// The exit code that an error means.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(remote) = cause.downcast_ref::<RemoteError>() {
            return remote.exit_code;
        }
        if cause.is::<ConfigError>()
            || cause.is::<L2Error>()
            || cause.is::<SettingsError>()
            || cause.is::<NameError>()
        {
            return 2;
        }
        if let Some(error) = cause.downcast_ref::<SandboxError>() {
            return if matches!(error, SandboxError::Request(_) | SandboxError::NoCommand) { 2 } else { 125 };
        }
    }
    let kind = error.chain().find_map(|cause| {
        None.or_else(|| cause.downcast_ref::<CatalogError>().map(CatalogError::kind))
            .or_else(|| cause.downcast_ref::<OriginError>().map(OriginError::kind))
            .or_else(|| cause.downcast_ref::<MountError>().map(|error| of_mount(error.kind())))
            .or_else(|| cause.downcast_ref::<TooManyStarts>().map(|_| ErrorKind::Exhausted))
            .or_else(|| cause.downcast_ref::<SsdError>().map(|_| ErrorKind::Unavailable))
    });
    match kind.unwrap_or(ErrorKind::Internal) {
        ErrorKind::NotFound => 3,
        ErrorKind::Invalid | ErrorKind::Corrupt => 4,
        ErrorKind::Unavailable => 5,
        ErrorKind::Denied | ErrorKind::Unsupported => 6,
        ErrorKind::Exhausted => 7,
        ErrorKind::Internal => 70,
    }
}

fn of_mount(kind: MountKind) -> ErrorKind {
    match kind {
        MountKind::NotFound => ErrorKind::NotFound,
        MountKind::Invalid => ErrorKind::Invalid,
        MountKind::Corrupt => ErrorKind::Corrupt,
        MountKind::Unavailable | MountKind::TimedOut | MountKind::Busy => ErrorKind::Unavailable,
        MountKind::Exhausted => ErrorKind::Exhausted,
        MountKind::Denied => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    }
}
