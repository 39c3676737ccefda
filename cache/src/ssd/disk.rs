//! The files of the SSD tier: names, reading, writing, recovery. Blocking calls only.

use bytes::Bytes;
use image_format::ids::ChunkId;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the files of a directory are. Two kinds never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Sealed chunks of a worker.
    Chunks,
    /// Shard records of a cache node.
    Shards,
}

impl Contents {
    /// Written in the directory so that another layout is recognised, and locked.
    const fn marker(self) -> &'static str {
        match self {
            Self::Chunks => "lantern-ssd-v1",
            Self::Shards => "lantern-node-v1",
        }
    }
}

/// Where files are written before they get their name.
const ASIDE: &str = "new";
/// Largest file that is read: no sealed chunk and no shard record is longer.
const MAX_FILE_BYTES: u64 = fleet::wire::MAX_RECORD_LEN as u64;

/// A locked directory of chunk files.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    _lock: File,
}

impl Disk {
    /// Takes the directory, or `None` if another process has it.
    pub(super) fn lock(directory: &Path, contents: Contents) -> io::Result<Option<Self>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join(ASIDE))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join(contents.marker()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { directory: directory.to_path_buf(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn path(&self, id: &ChunkId) -> PathBuf {
        let name = id.to_string();
        self.directory.join(&name[..2]).join(name)
    }

    /// Finds all chunk files with their lengths, the least recently written first; removes
    /// what was never finished. Files of other names are left alone.
    pub(super) fn recover(&self) -> io::Result<Vec<(ChunkId, u64)>> {
        for entry in fs::read_dir(self.directory.join(ASIDE))? {
            fs::remove_file(entry?.path())?;
        }
        let mut found = Vec::new();
        for fan in fs::read_dir(&self.directory)? {
            let fan = fan?;
            if fan.file_name().len() != 2 || !fan.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(fan.path())? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| name.parse::<ChunkId>().ok());
                let metadata = entry.metadata()?;
                match id {
                    Some(id) if metadata.is_file() && (1..=MAX_FILE_BYTES).contains(&metadata.len()) => {
                        found.push((metadata.mtime(), metadata.mtime_nsec(), id, metadata.len()));
                    }
                    Some(_) if metadata.is_file() => fs::remove_file(entry.path())?,
                    _ => {}
                }
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, _, id, length)| (id, length)).collect())
    }

    /// The file's bytes; `None` if it is gone or of an impossible length.
    pub(super) fn read(&self, id: &ChunkId) -> io::Result<Option<Bytes>> {
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if length > MAX_FILE_BYTES {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes.into()))
    }

    /// The file's bytes if reading them does not wait for the disk: `None` says that it
    /// would, or that the file is not there.
    pub(super) fn read_cached(&self, id: &ChunkId) -> Option<Bytes> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path(id)).ok()?;
        let length = usize::try_from(file.metadata().ok()?.len().min(MAX_FILE_BYTES)).ok()?;
        let mut bytes = vec![0; length];
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        let read = rustix::io::preadv2(&file, &mut parts, 0, rustix::io::ReadWriteFlags::NOWAIT).ok()?;
        (read == length).then(|| bytes.into())
    }

    /// The ids of all files whose first byte is `fan`, in order.
    pub(super) fn list(&self, fan: u8) -> io::Result<Vec<ChunkId>> {
        let entries = match fs::read_dir(self.directory.join(format!("{fan:02x}"))) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<ChunkId>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Writes a chunk file whole. Not synced: a file that a crash of the machine cuts short
    /// does not verify and is fetched again.
    pub(super) fn write(&self, id: &ChunkId, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id);
        let aside = self.directory.join(ASIDE).join(id.to_string());
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| match fs::rename(&aside, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let fan = path.parent().unwrap_or(&self.directory);
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(fan)?;
                    fs::rename(&aside, &path)
                }
                renamed => renamed,
            });
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written
    }

    /// Removes a chunk file; removing what is not there succeeds.
    pub(super) fn delete(&self, id: &ChunkId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bytes that may still be written to the file system by us.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
