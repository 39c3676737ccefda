//! The file that functions, events and dead letters are kept in: one redb database, written
//! by one thread that commits what has gathered, so that a burst of events costs few
//! transactions.
//!
//! Invariants: a change that was reported as done survives the death of the process and of
//! the host; the changes of one call are done together or not at all; the file is readable
//! by its owner alone, because environments hold secrets.
//!
//! What is in it: docs/formats.md, "functions.redb".

mod file;

use bytes::Bytes;
use file::StoreFile;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

const VERSION: u64 = 1;
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const FUNCTIONS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("functions");
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
const PAYLOADS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("payloads");

/// Calls committed together, at most; and the payload bytes after which no more join.
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Calls that may wait for the writer. More wait to be queued.
const MAX_WAITING: usize = 1024;

/// Why the file cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("functions cannot be kept in {path}: {reason}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A later Lantern wrote it.
    #[error("{path} was written by a later version of Lantern (format {found}); use that version")]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// A later Lantern wrote a part of it.
    #[error(
        "{table} entry {key} in {path} was written by a later version of Lantern (format {found}); use that \
         version, or move the file away"
    )]
    EntryVersion {
        /// Which file.
        path: PathBuf,
        /// Which table.
        table: &'static str,
        /// Which entry.
        key: String,
        /// Its format.
        found: u64,
    },
    /// What is in it cannot be understood.
    #[error("{table} entry {key} in {path} is damaged: {reason}; restore the file, or move it away")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which table.
        table: &'static str,
        /// Which entry.
        key: String,
        /// Why.
        reason: String,
    },
    /// It cannot be read or written now.
    #[error(
        "the worker's store of functions failed: {0}; check the disk of its state directory and the space on it, \
         then try again: the worker need not be restarted"
    )]
    Failed(String),
}

/// One change of the tables.
#[derive(Debug, Clone)]
pub enum Change {
    /// Makes or replaces a function.
    PutFunction {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
        /// What is stored.
        record: Vec<u8>,
    },
    /// Removes a function.
    RemoveFunction {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// Makes an event, or replaces its record where there is no payload.
    PutEvent {
        /// Its id.
        id: u64,
        /// What is stored.
        record: Vec<u8>,
        /// Its payload.
        payload: Option<Bytes>,
    },
    /// Removes an event and its payload.
    RemoveEvent(u64),
    /// Makes an event a dead letter: the payload stays where it is.
    Bury {
        /// Its id.
        id: u64,
        /// What is stored.
        record: Vec<u8>,
    },
    /// Removes a dead letter and its payload.
    RemoveDead(u64),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::PutFunction { record, .. } | Self::Bury { record, .. } => record.len(),
            Self::PutEvent { record, payload, .. } => record.len() + payload.as_ref().map_or(0, Bytes::len),
            Self::RemoveFunction { .. } | Self::RemoveEvent(_) | Self::RemoveDead(_) => 0,
        }
    }
}

/// Refuses an entry that a later Lantern wrote. One whose version cannot be read is left to
/// whoever reads all of it.
pub(super) fn check_version(
    record: &[u8],
    known: u32,
    (path, table, key): (&Path, &'static str, &str),
) -> Result<(), StoreError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u64,
    }
    match serde_json::from_slice(record) {
        Ok(Versioned { version }) if version > known.into() => {
            Err(StoreError::EntryVersion { path: path.to_path_buf(), table, key: key.into(), found: version })
        }
        _ => Ok(()),
    }
}

/// What was in the file when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// Functions by tenant and name.
    pub functions: Vec<((String, String), Vec<u8>)>,
    /// Events by id.
    pub events: Vec<(u64, Vec<u8>)>,
    /// Dead letters by id.
    pub dead: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// The open file. Dropping it waits for the writer to end.
#[derive(Debug)]
pub struct Store {
    file: Arc<StoreFile>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Store {
    /// Opens or makes the file and reads what is in it. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<(Self, Contents), StoreError> {
        let opening = file::opening(path)
            .map_err(|error| StoreError::Open { path: path.to_path_buf(), reason: error.to_string() })?;
        Self::over(opening, path)
    }

    /// The store on whatever `open` opens, again after failures.
    pub(super) fn over(
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
        path: &Path,
    ) -> Result<(Self, Contents), StoreError> {
        let refused = |reason: String| StoreError::Open { path: path.to_path_buf(), reason };
        let file = StoreFile::open(Box::new(open)).map_err(|error| refused(error.to_string()))?;
        let (contents, version) = file.with(read)?;
        if version != VERSION {
            return Err(StoreError::Version { path: path.to_path_buf(), found: version });
        }
        let file = Arc::new(file);
        let (jobs, queue) = mpsc::channel(MAX_WAITING);
        let writer = std::thread::Builder::new()
            .name("functions-store".into())
            .spawn({
                let file = Arc::clone(&file);
                move || write(&file, queue)
            })
            .map_err(|error| refused(error.to_string()))?;
        Ok((Self { file, jobs: Some(jobs), writer: Some(writer) }, contents))
    }

    /// Makes changes, all or none. Not cancel-safe: once begun they may be made although
    /// nobody waits any more.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; then none was made, unless the disk failed at the very end of
    /// writing: then they may be found after the next start.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let gone = || StoreError::Failed("its writer has ended".into());
        let (done, outcome) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { changes, done }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// The payload of an event or dead letter; `None` if there is none. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn payload(&self, id: u64) -> Result<Option<Bytes>, StoreError> {
        let file = Arc::clone(&self.file);
        let reading = tokio::task::spawn_blocking(move || file.with(|database| payload(database, id)));
        Ok(reading.await.map_err(|error| StoreError::Failed(error.to_string()))??)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn payload(database: &Database, id: u64) -> Result<Option<Bytes>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(PAYLOADS)?;
    Ok(table.get(id)?.map(|value| Bytes::copy_from_slice(value.value())))
}

/// What is in the file, and its version; nothing is read of another version than ours.
fn read(database: &Database) -> Result<(Contents, u64), redb::Error> {
    let transaction = database.begin_write()?;
    let mut contents = Contents::default();
    {
        let mut about = transaction.open_table(ABOUT)?;
        let found = about.get("version")?.map(|version| version.value());
        match found {
            None => drop(about.insert("version", VERSION)?),
            Some(VERSION) => {}
            Some(found) => return Ok((contents, found)),
        }
        for entry in transaction.open_table(FUNCTIONS)?.iter()? {
            let (key, value) = entry?;
            let (tenant, name) = key.value();
            contents.functions.push(((tenant.into(), name.into()), value.value().to_vec()));
        }
        for entry in transaction.open_table(EVENTS)?.iter()? {
            let (key, value) = entry?;
            contents.events.push((key.value(), value.value().to_vec()));
        }
        for entry in transaction.open_table(DEAD)?.iter()? {
            let (key, value) = entry?;
            contents.dead.push((key.value(), value.value().to_vec()));
        }
        transaction.open_table(PAYLOADS)?;
    }
    transaction.commit()?;
    Ok((contents, VERSION))
}

fn write(file: &StoreFile, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let size = |job: &Job| job.changes.iter().map(Change::bytes).sum::<usize>();
        let mut bytes = size(&first);
        let mut jobs = vec![first];
        while jobs.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Ok(job) = queue.try_recv() else { break };
            bytes += size(&job);
            jobs.push(job);
        }
        let outcome = file.with(|database| apply(database, &jobs)).map_err(StoreError::from);
        if let Err(error) = &outcome {
            tracing::error!(%error, calls = jobs.len(), "changes of functions or events were not stored");
        }
        for job in jobs {
            // a caller that went away does not need to know
            let _ = job.done.send(outcome.clone());
        }
    }
}

/// Makes the changes of these jobs. May be done twice: each change says what is to be, not what
/// is to be different.
fn apply(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut functions = transaction.open_table(FUNCTIONS)?;
        let mut events = transaction.open_table(EVENTS)?;
        let mut dead = transaction.open_table(DEAD)?;
        let mut payloads = transaction.open_table(PAYLOADS)?;
        for change in jobs.iter().flat_map(|job| &job.changes) {
            match change {
                Change::PutFunction { tenant, name, record } => {
                    functions.insert((&**tenant, &**name), &**record)?;
                }
                Change::RemoveFunction { tenant, name } => {
                    functions.remove((&**tenant, &**name))?;
                }
                Change::PutEvent { id, record, payload } => {
                    events.insert(id, &**record)?;
                    if let Some(payload) = payload {
                        payloads.insert(id, &**payload)?;
                    }
                }
                Change::RemoveEvent(id) => {
                    events.remove(id)?;
                    payloads.remove(id)?;
                }
                Change::Bury { id, record } => {
                    events.remove(id)?;
                    dead.insert(id, &**record)?;
                }
                Change::RemoveDead(id) => {
                    dead.remove(id)?;
                    payloads.remove(id)?;
                }
            }
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
pub(super) mod tests;
