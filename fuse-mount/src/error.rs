//! Why a mount, a loop device or an unmount failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::device::ErrorKind;

/// A failure of the control plane; each says which step on which path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel refused a step.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The step that failed.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The name or the device cannot be used.
    #[error("cannot show device {name:?}: {reason}")]
    Invalid {
        /// The name given to the device.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A device of this name is already there.
    #[error("device {name:?} is already shown; remove it first or choose another name")]
    Exists {
        /// The name given to the device.
        name: String,
    },
    /// There is no device of this name.
    #[error("no device {name:?} is shown here")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// Someone still uses it; nothing was forced.
    #[error("{} is still in use after {waited:?}; end the processes that use it and try again", path.display())]
    Busy {
        /// What is in use.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The kernel did not finish a step in time, even with the device failed.
    #[error("cannot {action} {} within {waited:?}", path.display())]
    TimedOut {
        /// The step that did not end.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

impl MountError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            Self::Invalid { .. } | Self::Exists { .. } => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
        }
    }

    /// Wraps what the kernel said about `action` on `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }
}
