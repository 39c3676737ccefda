//! A directory as a store: `file:///dir`. The embedded default, and the store of the tests.
//!
//! Layout: an object's name is its path below the directory. Invariants: an object is
//! written to a temporary name, synced, then linked (new) or renamed (replaced) into place
//! and its directory synced, so a crash leaves whole objects and nameless garbage only;
//! a symbolic link in an object's place is refused; temporary files carry the writer's
//! lock, so those of dead writers are recognised and removed.
//!
//! Used by one host or by several through a file system with working locks and renames.

use crate::store::{
    Abilities, ErrorKind, Listed, ObjectInfo, Origin, OriginError, Page, PageToken, PutOutcome, Result,
    Version,
};
use async_trait::async_trait;
use bytes::Bytes;
use image_format::names::ObjectName;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Directory of temporary files, below the store's own.
const TEMPORARY: &str = ".tmp";
/// The lock that makes compare-and-swap true on one host.
const LOCK: &str = ".lock";

/// A temporary file younger than this may not be locked by its writer yet.
const JUST_MADE: Duration = Duration::from_secs(60);

/// A directory store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DirStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    sequence: AtomicU64,
    /// Directories that this process has made and synced.
    made: Mutex<HashSet<PathBuf>>,
}

/// How a write treats an object that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

impl DirStore {
    /// Opens the store in `directory`, made if it is absent, and removes what dead writers
    /// left. Blocks for a few system calls.
    ///
    /// # Errors
    /// [`OriginError`] if the directory cannot be made or is none.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let store = Self(Arc::new(Inner {
            directory: directory.into(),
            sequence: AtomicU64::new(0),
            made: Mutex::new(HashSet::new()),
        }));
        let prepared = store.0.prepare();
        prepared.map_err(|error| store.0.failed("open", "", error))?;
        Ok(store)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .expect("directory operations return errors and do not panic")
    }
}

impl Inner {
    fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.directory)?;
        let temporary = self.directory.join(TEMPORARY);
        match fs::DirBuilder::new().mode(0o700).create(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for entry in fs::read_dir(&temporary)? {
            let path = entry?.path();
            // a living writer holds the lock, or is just about to take it
            if let Ok(file) = File::open(&path)
                && file.metadata()?.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > JUST_MADE))
                && file.try_lock().is_ok()
            {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!("file://{}", self.directory.display())
    }

    fn failed(&self, operation: &'static str, object: impl ToString, error: io::Error) -> OriginError {
        let (kind, message) = match error.kind() {
            io::ErrorKind::NotFound => (ErrorKind::NotFound, "there is no such object"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                (ErrorKind::Denied, "the file system does not allow it; check owner and mode")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::Exhausted, "the file system is full; free space and repeat")
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                (ErrorKind::Invalid, "something else than an object of this store lies there")
            }
            io::ErrorKind::UnexpectedEof => (ErrorKind::Corrupt, "the object ends too early"),
            _ => (ErrorKind::Unavailable, "the file system failed"),
        };
        OriginError {
            kind,
            operation,
            object: object.to_string(),
            store: self.describe(),
            message: message.into(),
            source: Some(Box::new(error)),
        }
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    /// Opens an object for reading; a symbolic link in its place is refused.
    fn open(&self, name: &ObjectName) -> io::Result<File> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path(name))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::IsADirectory.into()) }
    }

    fn get(&self, name: &ObjectName, limit: usize) -> Result<Bytes> {
        let failed = |error| self.failed("get", name, error);
        let file = self.open(name).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.size();
        if size > limit as u64 {
            return Err(self.too_long(name, size, limit));
        }
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(limit).min(limit));
        file.take(limit as u64).read_to_end(&mut data).map_err(failed)?;
        Ok(data.into())
    }

    fn too_long(&self, name: &ObjectName, size: u64, limit: usize) -> OriginError {
        OriginError {
            kind: ErrorKind::Corrupt,
            operation: "get",
            object: name.to_string(),
            store: self.describe(),
            message: format!("the object has {size} bytes where at most {limit} are possible"),
            source: None,
        }
    }

    /// Makes the directory of an object, durably.
    fn make_parent(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let known = |made: &Mutex<HashSet<PathBuf>>| made.lock().is_ok_and(|set| set.contains(parent));
        if known(&self.made) || parent == self.directory {
            return Ok(());
        }
        self.make_parent(parent)?;
        match fs::DirBuilder::new().mode(0o755).create(parent) {
            Ok(()) => sync_directory(parent.parent().unwrap_or(&self.directory))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(parent)?.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            Err(error) => return Err(error),
        }
        if let Ok(mut made) = self.made.lock() {
            made.insert(parent.to_path_buf());
        }
        Ok(())
    }

    fn write(&self, name: &ObjectName, data: &[u8], existing: Existing) -> io::Result<PutOutcome> {
        let path = self.path(name);
        self.make_parent(&path)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(TEMPORARY).join(format!("{}-{sequence}", std::process::id()));
        let written = self.write_through(&temporary, &path, data, existing);
        // gone already where the rename succeeded
        let _ = fs::remove_file(&temporary);
        let outcome = written?;
        if outcome == PutOutcome::Created {
            sync_directory(path.parent().unwrap_or(&self.directory))?;
        }
        Ok(outcome)
    }

    fn write_through(
        &self,
        temporary: &Path,
        path: &Path,
        data: &[u8],
        existing: Existing,
    ) -> io::Result<PutOutcome> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(temporary)?;
        file.lock()?;
        file.write_all(data)?;
        file.sync_all()?;
        match existing {
            Existing::Replace => fs::rename(temporary, path)?,
            Existing::Keep => match fs::hard_link(temporary, path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(PutOutcome::Existed),
                Err(error) => return Err(error),
            },
        }
        Ok(PutOutcome::Created)
    }

    fn version(data: &[u8]) -> Version {
        Version(blake3::hash(data).to_string())
    }

    fn compare_and_swap(
        &self,
        name: &ObjectName,
        expected: Option<&Version>,
        data: &[u8],
    ) -> Result<Option<Version>> {
        let failed = |error| self.failed("compare_and_swap", name, error);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(self.directory.join(LOCK))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let current = match self.get(name, usize::MAX) {
            Ok(bytes) => Some(Self::version(&bytes)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if current.as_ref() != expected {
            return Ok(None);
        }
        self.write(name, data, Existing::Replace).map_err(failed)?;
        Ok(Some(Self::version(data)))
    }

    /// Walks the directories below `prefix` in order of names, from `from` on.
    fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page> {
        let mut page = Page::default();
        let after = from.map_or("", |token| token.0.as_str());
        let start = self.directory.join(prefix.trim_end_matches('/'));
        match self.walk(&start, prefix.trim_end_matches('/'), after, &mut page) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(page),
            Err(error) => Err(self.failed("list", prefix, error)),
            Ok(_) => Ok(page),
        }
    }

    /// Returns whether the page is full. `after` is the last name of the page before.
    fn walk(&self, directory: &Path, name: &str, after: &str, page: &mut Page) -> io::Result<bool> {
        let mut entries: Vec<(String, fs::DirEntry)> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if let Ok(part) = std::str::from_utf8(entry.file_name().as_bytes()) {
                let sort_key =
                    if entry.file_type()?.is_dir() { format!("{part}/") } else { part.to_string() };
                entries.push((sort_key, entry));
            }
        }
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (key, entry) in entries {
            let full = if name.is_empty() { key.clone() } else { format!("{name}/{key}") };
            if key.ends_with('/') {
                // nothing below sorts after `after` unless the directory does or contains it
                let past = full.as_str() < after && !after.starts_with(&full);
                if !past && self.walk(&entry.path(), full.trim_end_matches('/'), after, page)? {
                    return Ok(true);
                }
            } else if full.as_str() > after
                && let Ok(object) = full.parse::<ObjectName>()
            {
                if page.objects.len() == Page::MAX {
                    page.next = page.objects.last().map(|last| PageToken(last.name.to_string()));
                    return Ok(true);
                }
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => {
                        page.objects.push(Listed { name: object, info: info(&metadata) });
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(false)
    }
}

fn info(metadata: &fs::Metadata) -> ObjectInfo {
    ObjectInfo { size: metadata.size(), modified: metadata.modified().ok() }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[async_trait]
impl Origin for DirStore {
    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn get(&self, name: &ObjectName, limit: usize) -> Result<Bytes> {
        let name = name.clone();
        self.blocking(move |inner| inner.get(&name, limit)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        let name = name.clone();
        let length = crate::store::range_length(&range);
        self.blocking(move |inner| {
            let failed = |error| inner.failed("get_range", &name, error);
            let file = inner.open(&name).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.size();
            if range.end > size {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut data = vec![0; length];
            file.read_exact_at(&mut data, range.start).map_err(failed)?;
            Ok(data.into())
        })
        .await
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<ObjectInfo>> {
        let name = name.clone();
        self.blocking(move |inner| match fs::symlink_metadata(inner.path(&name)) {
            Ok(metadata) if metadata.is_file() => Ok(Some(info(&metadata))),
            Ok(_) => Err(inner.failed("head", &name, io::ErrorKind::IsADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(inner.failed("head", &name, error)),
        })
        .await
    }

    async fn put_if_absent(&self, name: &ObjectName, data: Bytes) -> Result<PutOutcome> {
        let name = name.clone();
        self.blocking(move |inner| {
            inner
                .write(&name, &data, Existing::Keep)
                .map_err(|error| inner.failed("put_if_absent", &name, error))
        })
        .await
    }

    async fn put(&self, name: &ObjectName, data: Bytes) -> Result<()> {
        crate::store::check_mutable(self, name)?;
        let name = name.clone();
        self.blocking(move |inner| {
            inner
                .write(&name, &data, Existing::Replace)
                .map(drop)
                .map_err(|error| inner.failed("put", &name, error))
        })
        .await
    }

    async fn get_versioned(&self, name: &ObjectName, limit: usize) -> Result<(Bytes, Version)> {
        let data = self.get(name, limit).await?;
        let version = Inner::version(&data);
        Ok((data, version))
    }

    async fn compare_and_swap(
        &self,
        name: &ObjectName,
        expected: Option<&Version>,
        data: Bytes,
    ) -> Result<Option<Version>> {
        let (name, expected) = (name.clone(), expected.cloned());
        self.blocking(move |inner| inner.compare_and_swap(&name, expected.as_ref(), &data)).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page> {
        let (prefix, from) = (prefix.to_string(), from.cloned());
        self.blocking(move |inner| inner.list(&prefix, from.as_ref())).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<()> {
        let name = name.clone();
        self.blocking(move |inner| match fs::remove_file(inner.path(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(inner.failed("delete", &name, error))
            }
            _ => Ok(()),
        })
        .await
    }

    async fn abilities(&self) -> Result<Abilities> {
        // link(2) fails if the name exists; compare-and-swap holds a lock
        Ok(Abilities { conditional_put: true, compare_and_swap: true })
    }
}

/// The directory that a `file://` URL names.
#[must_use]
pub fn directory_of(url: &str) -> Option<&Path> {
    url.strip_prefix("file://").filter(|path| path.starts_with('/')).map(|path| Path::new(OsStr::new(path)))
}
