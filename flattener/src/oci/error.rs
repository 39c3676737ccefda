//! Why an image could not be found, read or trusted: which image, what, why, what to do.

use crate::layer::{Digest, DigestError, Fault};
use origin::store::ErrorKind;
use std::{fmt, io};

/// An image that could not be opened, resolved or read.
#[derive(Debug)]
pub struct SourceError {
    /// The name that was asked for; it never holds credentials.
    pub reference: String,
    /// What is wrong.
    pub fault: Box<SourceFault>,
}

impl SourceError {
    pub(super) fn new(reference: &dyn fmt::Display, fault: SourceFault) -> Self {
        Self { reference: reference.to_string(), fault: Box::new(fault) }
    }

    /// What the failure means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.fault.kind()
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image {}: {}", self.reference, self.fault)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.fault)
    }
}

/// What is wrong with an image or its source.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// A file of the layout or archive could not be read.
    #[error("cannot read {path}")]
    File {
        /// Which file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The layout or archive has no such file.
    #[error("{container} has no file {name}")]
    Missing {
        /// Directory or archive.
        container: String,
        /// The file inside.
        name: String,
    },
    /// The archive is not a readable tar file.
    #[error("{path} cannot be read as an archive")]
    Archive {
        /// Which file.
        path: String,
        /// Why not.
        source: Fault,
    },
    /// A JSON document that is not what it must be.
    #[error("{what} is not valid")]
    Json {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A name in a document that is not a digest.
    #[error("{what} names a digest that cannot be checked")]
    Digest {
        /// Which document.
        what: String,
        /// Why not.
        source: DigestError,
    },
    /// A document does not have the digest or size it is named by.
    #[error("{what} has digest {got} and {got_size} bytes instead of {want}; it is damaged")]
    Mismatch {
        /// Which document.
        what: String,
        /// The digest and size in its name.
        want: String,
        /// Its digest.
        got: Digest,
        /// Its size.
        got_size: u64,
    },
    /// A document longer than anyone accepts.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// Which document.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// No image of that name in the layout or archive.
    #[error("there is no image {wanted:?} in it; it holds {held}")]
    NoSuchName {
        /// The tag, reference or index asked for.
        wanted: String,
        /// What is there.
        held: String,
    },
    /// Several images and no name said which.
    #[error("it holds several images, name one: {0}")]
    Ambiguous(String),
    /// The image does not exist for the platform.
    #[error("it does not exist for platform {wanted}; choose with --platform among {held}")]
    NoPlatform {
        /// The platform asked for.
        wanted: String,
        /// The platforms there are.
        held: String,
    },
    /// Indexes inside indexes without end.
    #[error("its indexes are nested more than {0} deep")]
    TooDeep(u32),
    /// A manifest of a kind that is not an image of ours.
    #[error("{0}")]
    Unsupported(String),
    /// Manifest and config do not belong together.
    #[error("the manifest has {layers} layers but the config {diff_ids} diff ids")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Diff ids in the config.
        diff_ids: usize,
    },
    /// The registry answered with an error.
    #[error("{host} answered {status} to {what}{detail}")]
    Status {
        /// The registry or token server.
        host: String,
        /// HTTP status.
        status: u16,
        /// The request.
        what: String,
        /// What it said, and what to do.
        detail: String,
    },
    /// The registry could not be reached, or the answer broke off.
    #[error("{host} cannot be reached or broke off during {what}")]
    Network {
        /// The registry or token server.
        host: String,
        /// The request.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry's answer makes no sense.
    #[error("{host} does not speak the registry protocol: {reason}")]
    Protocol {
        /// The registry or token server.
        host: String,
        /// In which way.
        reason: &'static str,
    },
    /// Credentials could not be read.
    #[error("credentials from {place} cannot be used: {reason}")]
    Credentials {
        /// The file or helper program.
        place: String,
        /// Why.
        reason: String,
    },
    /// A certificate or client setting is unusable.
    #[error("the settings for registries cannot be used: {0}")]
    Settings(String),
    /// A background task of ours died.
    #[error("a task of the image source died")]
    Internal,
}

impl SourceFault {
    /// What the failure means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
                _ => ErrorKind::Unavailable,
            },
            Self::Missing { .. } | Self::NoSuchName { .. } | Self::NoPlatform { .. } => ErrorKind::NotFound,
            Self::Archive { source, .. } => source.kind(),
            Self::Json { .. }
            | Self::Digest { .. }
            | Self::Mismatch { .. }
            | Self::LayerCount { .. }
            | Self::Protocol { .. } => ErrorKind::Corrupt,
            Self::TooLong { .. } | Self::TooDeep(_) => ErrorKind::Exhausted,
            Self::Ambiguous(_) | Self::Unsupported(_) | Self::Credentials { .. } | Self::Settings(_) => {
                ErrorKind::Invalid
            }
            Self::Status { status, .. } => match status {
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                408 | 429 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Invalid,
            },
            Self::Network { .. } => ErrorKind::Unavailable,
            Self::Internal => ErrorKind::Internal,
        }
    }
}
