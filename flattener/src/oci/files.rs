//! The files of an image on disk: a directory, or the members of a tar file, by name.
//!
//! Invariants: names come from checked digests or are normalised, so nothing outside the
//! directory is opened; links inside an archive are followed inside the archive, a bounded
//! number of times. Blocking.

use super::error::SourceFault;
use crate::layer::entry::LayerPath;
use crate::layer::{Digest, Hasher, Member, inflate_if_compressed, members};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Links that lead from one archive member to the next before it counts as a loop.
const LINKS_MAX: usize = 8;

/// Where an image's files are. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Files {
    path: PathBuf,
    /// Of an archive; `None` for a directory.
    archive: Option<Arc<Archive>>,
}

#[derive(Debug)]
struct Archive {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
}

/// A file's bytes: a range of an open file.
#[derive(Debug, Clone)]
pub(super) struct Range {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Range {
    /// Bytes left.
    pub(super) fn length(&self) -> u64 {
        self.end - self.at
    }

    /// The digest of all of it.
    pub(super) fn digest(mut self) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                filled => hasher.update(&buffer[..filled]),
            }
        }
    }
}

impl Read for Range {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.length()).unwrap_or(usize::MAX).min(buf.len());
        let filled = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += u64::try_from(filled).map_err(io::Error::other)?;
        Ok(filled)
    }
}

fn open_file(path: &Path) -> Result<File, SourceFault> {
    let fault = |source| SourceFault::File { path: path.display().to_string(), source };
    let file = File::open(path).map_err(fault)?;
    // A named pipe would block for ever, a device could be anything.
    if file.metadata().map_err(fault)?.is_file() {
        Ok(file)
    } else {
        Err(fault(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")))
    }
}

impl Files {
    /// The files of a directory.
    pub(super) fn directory(path: &Path) -> Self {
        Self { path: path.into(), archive: None }
    }

    /// The members of a tar file. A compressed one is first decompressed into an unlinked
    /// file in `work_dir` of at most `limit` bytes.
    pub(super) fn archive(path: &Path, work_dir: &Path, limit: u64) -> Result<Self, SourceFault> {
        let fault = |source| SourceFault::Archive { path: path.display().to_string(), source };
        let mut file = open_file(path)?;
        if let Some(inflated) = inflate_if_compressed(&file, work_dir, limit).map_err(fault)? {
            file = inflated;
        }
        let mut by_name = HashMap::new();
        for member in members(&file).map_err(fault)? {
            // As in a layer, the last member of a name counts.
            if let Ok(name) = LayerPath::parse(&member.name) {
                by_name.insert(name.as_bytes().to_vec(), member);
            }
        }
        let archive = Archive { file: Arc::new(file), members: by_name };
        Ok(Self { path: path.into(), archive: Some(Arc::new(archive)) })
    }

    /// The directory or archive, for people.
    pub(super) fn container(&self) -> String {
        self.path.display().to_string()
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// Opens a file.
    pub(super) fn open(&self, name: &str) -> Result<Range, SourceFault> {
        let missing = || SourceFault::Missing { container: self.container(), name: name.into() };
        let Some(archive) = &self.archive else {
            let path = self.path.join(name);
            let file = match open_file(&path) {
                Err(SourceFault::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Err(missing());
                }
                other => other?,
            };
            let fault = |source| SourceFault::File { path: path.display().to_string(), source };
            let end = file.metadata().map_err(fault)?.len();
            return Ok(Range { file: Arc::new(file), at: 0, end });
        };
        let mut path = LayerPath::parse(name.as_bytes()).map_err(|_| missing())?;
        for _ in 0..LINKS_MAX {
            let member = archive.members.get(path.as_bytes()).ok_or_else(missing)?;
            let Some(target) = &member.link else {
                let (at, end) = (member.offset, member.offset + member.size);
                return Ok(Range { file: Arc::clone(&archive.file), at, end });
            };
            // Symbolic links of docker-archive (`../ID/layer.tar`) are relative to their
            // directory; hard links are not relative.
            let parent = path.split_last().map(|(parent, _)| parent).unwrap_or_default();
            let relative = [parent.as_bytes(), b"/", target.as_slice()].concat();
            let direct = LayerPath::parse(target).ok().filter(|t| archive.members.contains_key(t.as_bytes()));
            path = match LayerPath::parse(&relative) {
                Ok(relative) if archive.members.contains_key(relative.as_bytes()) => relative,
                _ => direct.ok_or_else(missing)?,
            };
        }
        Err(missing())
    }

    /// Reads a document of at most `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, SourceFault> {
        let range = self.open(name)?;
        if range.length() > limit {
            return Err(SourceFault::TooLong { what: name.into(), limit });
        }
        let mut bytes = Vec::new();
        let path = format!("{}/{name}", self.container());
        range.take(limit).read_to_end(&mut bytes).map_err(|source| SourceFault::File { path, source })?;
        Ok(bytes)
    }
}
