//! The vocabulary between the tar reader (which makes these) and the tree (which
//! applies them).
//!
//! Invariants: [`LayerPath`] holds no `.`, `..`, empty or NUL-carrying component, and no
//! component longer than 255 bytes; file segments are in ascending order, do not overlap,
//! and lie inside the file's size; xattr names are unique and sorted.

use std::fmt;

/// A path inside the image: normalised components as bytes, no leading slash. The root
/// directory is the empty path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LayerPath(Vec<u8>);

/// Why bytes from an archive are not a path inside an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `..` that would climb above the image root.
    #[error("path climbs above the image root")]
    Escapes,
    /// A component is longer than the 255 bytes that ext4 and every peer allow.
    #[error("path component of {0} bytes; at most 255 fit")]
    ComponentTooLong(usize),
    /// A NUL byte inside the path.
    #[error("path contains a NUL byte")]
    Nul,
    /// The whole path is longer than [`LayerPath::MAX_LEN`].
    #[error("path of {0} bytes; at most {max} are accepted", max = LayerPath::MAX_LEN)]
    TooLong(usize),
}

impl LayerPath {
    /// Longest accepted path in bytes. Linux refuses longer ones in one system call
    /// (`PATH_MAX` is 4096), but archives may be unpacked relative to open directories,
    /// so four times that is accepted; it bounds memory for hostile archives.
    pub const MAX_LEN: usize = 4 * 4096;

    /// The root directory of the image.
    #[must_use]
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Normalises a path as an archive spells it: leading and repeated slashes and `.`
    /// are dropped, `..` removes the component before it.
    ///
    /// # Errors
    /// [`PathError`] when the path would leave the root or cannot be a path on Linux.
    pub fn parse(raw: &[u8]) -> Result<Self, PathError> {
        if raw.len() > Self::MAX_LEN {
            return Err(PathError::TooLong(raw.len()));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in raw.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop().ok_or(PathError::Escapes)?;
                }
                part if part.contains(&0) => return Err(PathError::Nul),
                part if part.len() > 255 => return Err(PathError::ComponentTooLong(part.len())),
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join(&b'/')))
    }

    /// The path as bytes, components joined by `/`; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty())
    }

    /// Parent path and last component; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => Some((Self(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => Some((Self::root(), &self.0)),
        }
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A point in time as tar and ext4 have it: seconds since 1970 (may be negative) and
/// nanoseconds below 10⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds, always below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Which layer of the image, from 0 at the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerIndex(pub u32);

/// A run of file bytes waiting in the layer's spool. Bytes of the file that no segment
/// covers are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First byte of the run within the file.
    pub file_offset: u64,
    /// First byte of the run within the layer's spool.
    pub spool_offset: u64,
    /// Length of the run in bytes, never 0.
    pub length: u64,
}

/// A regular file's contents: its size and the runs that are not holes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileContent {
    /// Logical size in bytes.
    pub size: u64,
    /// Data runs in ascending file order.
    pub segments: Vec<Segment>,
}

/// What kind of object an entry creates, or what it removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(FileContent),
    /// A directory.
    Directory,
    /// A symbolic link; the target is kept byte for byte and never followed outside.
    Symlink(Vec<u8>),
    /// Another name for the file at this path.
    Hardlink(LayerPath),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// `.wh.NAME`: the path (already without the prefix) is removed from lower layers.
    Whiteout,
    /// `.wh..wh..opq`: everything that lower layers put into this directory is removed.
    OpaqueWhiteout,
}

/// Owner, permissions, time and attributes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits including setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u16,
    /// Numeric owner. Names in the archive are not looked up.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time, with nanoseconds where the archive has them.
    pub mtime: Timestamp,
    /// Extended attributes by full name (`security.capability`, `user.x`), sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Where in the image. For whiteouts: what is removed, or the directory made opaque.
    pub path: LayerPath,
    /// What is there.
    pub kind: EntryKind,
    /// Its metadata; meaningless for whiteouts, and for hard links the target's counts.
    pub metadata: Metadata,
}

/// A parsed layer: entries in archive order.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Entries in the order of the archive.
    pub entries: Vec<LayerEntry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_normalise_or_are_refused() {
        for (raw, want) in [
            ("/", Ok("")),
            ("./a//b/.", Ok("a/b")),
            ("a/../b", Ok("b")),
            ("../x", Err(PathError::Escapes)),
            ("a/../../x", Err(PathError::Escapes)),
            ("a\0b", Err(PathError::Nul)),
        ] {
            let got = LayerPath::parse(raw.as_bytes());
            assert_eq!(got.as_ref().map(LayerPath::as_bytes), want.as_ref().map(|w| w.as_bytes()), "{raw}");
        }
        assert_eq!(LayerPath::parse(&[b'x'; 256]), Err(PathError::ComponentTooLong(256)));
    }

    #[test]
    fn splitting() {
        let path = LayerPath::parse(b"a/b/c").unwrap();
        let (parent, name) = path.split_last().unwrap();
        assert_eq!((parent.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(LayerPath::root().split_last(), None);
        assert_eq!(path.components().count(), 3);
    }
}
