//! Why a layer could not be read: which layer, which entry, what is wrong, what to do.
//!
//! [`Fault`] is what happened; [`LayerError`] adds where. Nothing here repeats the text of
//! its source.

use super::digest::Digest;
use super::entry::{LayerIndex, PathError};
use origin::store::ErrorKind;
use std::{fmt, io};

/// A layer that could not be read.
#[derive(Debug)]
pub struct LayerError {
    /// Which layer, counted from 0 at the bottom.
    pub layer: LayerIndex,
    /// Its compressed digest as the manifest names it.
    pub digest: Digest,
    /// The archive entry as spelled there (escaped, cut after 200 characters), where one
    /// is concerned.
    pub entry: Option<String>,
    /// What is wrong.
    pub fault: Box<Fault>,
}

impl LayerError {
    /// What the failure means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.fault.kind()
    }
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {} ({})", self.layer.0, self.digest)?;
        if let Some(entry) = &self.entry {
            write!(f, ", entry \"{entry}\"")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for LayerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.fault)
    }
}

/// A result whose fault comes with the name of the archive entry it is about.
pub(super) type Located<T> = Result<T, (Option<Vec<u8>>, Fault)>;

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The source of the blob failed.
    #[error("reading the blob failed after {offset} bytes")]
    Read {
        /// Compressed bytes read before.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The blob is not as long as its descriptor says.
    #[error("the blob has {got} bytes where the manifest promises {want}; fetch the image again")]
    BlobSize {
        /// Promised bytes.
        want: u64,
        /// Bytes there (the count stops one past the promise).
        got: u64,
    },
    /// The blob does not have the digest it is named by.
    #[error("the blob's digest is {got}; it is damaged, fetch the image again")]
    BlobDigest {
        /// What it is.
        got: Digest,
    },
    /// The uncompressed layer does not have the diff id of the image config.
    #[error("the uncompressed layer's digest is {got}, but the image config says {want}")]
    DiffId {
        /// What the config says.
        want: Digest,
        /// What it is.
        got: Digest,
    },
    /// The compressed stream cannot be decoded.
    #[error("the {format} stream is damaged or cut after {offset} uncompressed bytes")]
    Decompress {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// Bytes that came out before.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// A compression nobody may use in an image.
    #[error("the layer is compressed with {0}; only gzip, zstd and no compression are accepted")]
    Compression(&'static str),
    /// The archive ends too early.
    #[error("the archive ends inside {what} at offset {offset}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Uncompressed offset of the end.
        offset: u64,
    },
    /// A header block that is not one.
    #[error("the tar header at offset {offset} is invalid: {reason}")]
    Header {
        /// Uncompressed offset of the block.
        offset: u64,
        /// Which field and why.
        reason: &'static str,
    },
    /// An extended header that cannot be understood.
    #[error("invalid extended header: {0}")]
    Extension(&'static str),
    /// A sparse map that does not fit its file.
    #[error("invalid sparse map: {0}")]
    Sparse(&'static str),
    /// The entry is of a type that images do not have.
    #[error("entry type {0:?} does not occur in images")]
    EntryType(char),
    /// The entry's path is not one inside an image.
    #[error("the path is refused")]
    Path(#[source] PathError),
    /// The hard link's target is not a path inside an image.
    #[error("the hard link's target is refused")]
    LinkTarget(#[source] PathError),
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("a whiteout must name a file beside it, not \"\", \".\" or \"..\"")]
    Whiteout,
    /// Something else than a directory in place of the image root.
    #[error("the image root can only be a directory")]
    Root,
    /// A symbolic link that Linux cannot make.
    #[error("a symbolic link's target must have 1 to 4095 bytes")]
    Symlink,
    /// A hard link to an AUFS pseudo link that the layer does not have before it.
    #[error("the hard link's target is an AUFS pseudo link that does not come before it")]
    PseudoLink,
    /// A number of the entry is outside what Linux has.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// An extended attribute that is too long, or too many of them.
    #[error("extended attributes: {0}")]
    Xattr(&'static str),
    /// A limit is reached.
    #[error("more than {limit} {what}; if the image is trusted, raise the limit {setting}")]
    Limit {
        /// Unit and thing that is limited.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
        /// The setting's name.
        setting: &'static str,
    },
    /// The spool could not be written or made.
    #[error("the spool in the work directory failed; it needs room for the uncompressed layers")]
    Spool(#[source] io::Error),
    /// A thread of the reader died.
    #[error("the reader's decompression thread died")]
    Thread,
}

impl Fault {
    /// What the failure means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::InvalidData => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
            Self::BlobSize { .. }
            | Self::BlobDigest { .. }
            | Self::DiffId { .. }
            | Self::Decompress { .. }
            | Self::Truncated { .. }
            | Self::Header { .. }
            | Self::Extension(_)
            | Self::Sparse(_) => ErrorKind::Corrupt,
            Self::Compression(_)
            | Self::EntryType(_)
            | Self::Path(_)
            | Self::LinkTarget(_)
            | Self::Whiteout
            | Self::Root
            | Self::Symlink
            | Self::PseudoLink
            | Self::Range(_)
            | Self::Xattr(_) => ErrorKind::Invalid,
            Self::Limit { .. } => ErrorKind::Exhausted,
            Self::Spool(source) => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Internal,
            },
            Self::Thread => ErrorKind::Internal,
        }
    }
}
