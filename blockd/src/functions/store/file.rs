//! The database under the store, opened anew after a failure.
//!
//! redb refuses everything after the first read or write that failed, for as long as the
//! database is open, also when the disk is well again; and only opening it again finds out how
//! far a commit came. So whatever fails is tried once more on a database that was opened anew.

use redb::backends::FileBackend;
use redb::{Database, DatabaseError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// Pages kept in memory: the tables are read in full only when the file is opened.
const CACHE_BYTES: usize = 16 << 20;

/// What opens the database; called again only after the one before was dropped.
type Opening = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A database that can be opened again.
pub(super) struct StoreFile {
    open: Opening,
    /// How often it was opened, and the database, unless it could not be opened again.
    current: RwLock<(u64, Option<Database>)>,
}

impl std::fmt::Debug for StoreFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreFile").finish_non_exhaustive()
    }
}

/// What opens the database in that file, which is made if it is not there. It is the same file
/// each time, whatever happened to its name meanwhile.
pub(super) fn opening(
    path: &Path,
) -> std::io::Result<impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    Ok(move || {
        let file = file.try_clone().map_err(|error| DatabaseError::Storage(error.into()))?;
        Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)
    })
}

impl StoreFile {
    /// Opens it for the first time.
    pub(super) fn open(open: Opening) -> Result<Self, DatabaseError> {
        let database = open()?;
        Ok(Self { open, current: RwLock::new((0, Some(database))) })
    }

    /// Does something with the database, and once more on a new one if reading or writing
    /// failed: `run` must be such that twice is the same as once. Blocks.
    pub(super) fn with<T>(
        &self,
        run: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let (opened, outcome) = self.once(&run);
        match outcome {
            Err(redb::Error::Io(_) | redb::Error::PreviousIo) => {
                self.open_again(opened)?;
                self.once(&run).1
            }
            outcome => outcome,
        }
    }

    fn once<T>(&self, run: impl Fn(&Database) -> Result<T, redb::Error>) -> (u64, Result<T, redb::Error>) {
        // only opening changes it, which leaves nothing where it panics
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let outcome = current.1.as_ref().map_or(Err(redb::Error::PreviousIo), run);
        (current.0, outcome)
    }

    /// Opens it again, unless somebody did since it was opened for the `opened`th time.
    fn open_again(&self, opened: u64) -> Result<(), redb::Error> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != opened {
            return Ok(());
        }
        current.0 += 1;
        // first, as it holds the lock of the file
        current.1 = None;
        current.1 = Some((self.open)()?);
        tracing::info!("the store of functions was opened again after a failed read or write");
        Ok(())
    }
}
