//! The file that functions, events and dead letters are kept in: one redb database, written
//! by one thread that commits what has gathered, so that a burst of events costs few
//! transactions.
//!
//! Invariants: a change that was reported as done survives the death of the process and of
//! the host; the changes of one call are done together or not at all; the file is readable
//! by its owner alone, because environments hold secrets.
//!
//! | table | key | value |
//! |---|---|---|
//! | `about` | `version` | 1 |
//! | `functions` | tenant, name | `Definition` as JSON |
//! | `events` | id | `EventRecord` as JSON |
//! | `dead` | id | `DeadLetter` as JSON |
//! | `payloads` | id of an event or dead letter | its payload |

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::os::unix::fs::OpenOptionsExt;
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

/// Pages kept in memory: the tables are read in full only when the file is opened.
const CACHE_BYTES: usize = 16 << 20;
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
    #[error("the worker's store of functions failed: {0}; check the disk of its state directory")]
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
    database: Arc<Database>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Failed(error.into().to_string())
}

impl Store {
    /// Opens or makes the file and reads what is in it. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<(Self, Contents), StoreError> {
        let refused = |reason: String| StoreError::Open { path: path.to_path_buf(), reason };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| refused(error.to_string()))?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(|error| refused(error.to_string()))?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let backend = FileBackend::new(file).map_err(|error| refused(error.to_string()))?;
        let database = builder.create_with_backend(backend).map_err(|error| refused(error.to_string()))?;
        let contents = read(&database, path)?;
        let database = Arc::new(database);
        let (jobs, queue) = mpsc::channel(MAX_WAITING);
        let writer = std::thread::Builder::new()
            .name("functions-store".into())
            .spawn({
                let database = Arc::clone(&database);
                move || write(&database, queue)
            })
            .map_err(|error| refused(error.to_string()))?;
        Ok((Self { database, jobs: Some(jobs), writer: Some(writer) }, contents))
    }

    /// Makes changes, all or none. Not cancel-safe: once begun they may be made although
    /// nobody waits any more.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; then none was made.
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
        let database = Arc::clone(&self.database);
        let reading = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(PAYLOADS).map_err(failed)?;
            let value = table.get(id).map_err(failed)?;
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        });
        reading.await.map_err(|error| StoreError::Failed(error.to_string()))?
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

fn read(database: &Database, path: &Path) -> Result<Contents, StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    let mut contents = Contents::default();
    {
        let mut about = transaction.open_table(ABOUT).map_err(failed)?;
        let found = about.get("version").map_err(failed)?.map(|version| version.value());
        match found {
            None => drop(about.insert("version", VERSION).map_err(failed)?),
            Some(VERSION) => {}
            Some(found) => return Err(StoreError::Version { path: path.to_path_buf(), found }),
        }
        for entry in transaction.open_table(FUNCTIONS).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (tenant, name) = key.value();
            contents.functions.push(((tenant.into(), name.into()), value.value().to_vec()));
        }
        for entry in transaction.open_table(EVENTS).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            contents.events.push((key.value(), value.value().to_vec()));
        }
        for entry in transaction.open_table(DEAD).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            contents.dead.push((key.value(), value.value().to_vec()));
        }
        transaction.open_table(PAYLOADS).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(contents)
}

fn write(database: &Database, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let size = |job: &Job| job.changes.iter().map(Change::bytes).sum::<usize>();
        let mut bytes = size(&first);
        let mut jobs = vec![first];
        while jobs.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Ok(job) = queue.try_recv() else { break };
            bytes += size(&job);
            jobs.push(job);
        }
        let outcome = apply(database, &jobs);
        if let Err(error) = &outcome {
            tracing::error!(%error, calls = jobs.len(), "changes of functions or events were not stored");
        }
        for job in jobs {
            // a caller that went away does not need to know
            let _ = job.done.send(outcome.clone());
        }
    }
}

fn apply(database: &Database, jobs: &[Job]) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    {
        let mut functions = transaction.open_table(FUNCTIONS).map_err(failed)?;
        let mut events = transaction.open_table(EVENTS).map_err(failed)?;
        let mut dead = transaction.open_table(DEAD).map_err(failed)?;
        let mut payloads = transaction.open_table(PAYLOADS).map_err(failed)?;
        for change in jobs.iter().flat_map(|job| &job.changes) {
            match change {
                Change::PutFunction { tenant, name, record } => {
                    functions.insert((&**tenant, &**name), &**record).map_err(failed)?;
                }
                Change::RemoveFunction { tenant, name } => {
                    functions.remove((&**tenant, &**name)).map_err(failed)?;
                }
                Change::PutEvent { id, record, payload } => {
                    events.insert(id, &**record).map_err(failed)?;
                    if let Some(payload) = payload {
                        payloads.insert(id, &**payload).map_err(failed)?;
                    }
                }
                Change::RemoveEvent(id) => {
                    events.remove(id).map_err(failed)?;
                    payloads.remove(id).map_err(failed)?;
                }
                Change::Bury { id, record } => {
                    events.remove(id).map_err(failed)?;
                    dead.insert(id, &**record).map_err(failed)?;
                }
                Change::RemoveDead(id) => {
                    dead.remove(id).map_err(failed)?;
                    payloads.remove(id).map_err(failed)?;
                }
            }
        }
    }
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, payload: &'static [u8]) -> Change {
        Change::PutEvent { id, record: vec![1], payload: Some(Bytes::from_static(payload)) }
    }

    #[tokio::test]
    async fn what_was_done_is_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state/functions.redb");
        let (store, contents) = Store::open(&file).unwrap();
        assert!(contents.functions.is_empty() && contents.events.is_empty());
        let function = Change::PutFunction { tenant: "a".into(), name: "f".into(), record: vec![7] };
        store.commit(vec![function, event(1, b"one"), event(2, b"two")]).await.unwrap();
        store.commit(vec![Change::RemoveEvent(1), Change::Bury { id: 2, record: vec![2] }]).await.unwrap();
        store.commit(vec![event(3, b"three")]).await.unwrap();
        assert_eq!(store.payload(1).await.unwrap(), None);
        drop(store);
        let (store, contents) = Store::open(&file).unwrap();
        assert_eq!(contents.functions, [(("a".into(), "f".into()), vec![7])]);
        assert_eq!(contents.events, [(3, vec![1])]);
        assert_eq!(contents.dead, [(2, vec![2])]);
        assert_eq!(store.payload(2).await.unwrap().unwrap(), "two");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn one_process_at_a_time_and_no_strange_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("functions.redb");
        let (_store, _) = Store::open(&file).unwrap();
        assert!(matches!(Store::open(&file), Err(StoreError::Open { .. })));
        let strange = directory.path().join("strange");
        std::fs::write(&strange, b"not a database, and long enough to look at").unwrap();
        assert!(matches!(Store::open(&strange), Err(StoreError::Open { .. })));
    }

    #[tokio::test]
    async fn many_at_once_share_transactions() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("functions.redb");
        let (store, _) = Store::open(&file).unwrap();
        let commits = (0..500).map(|id| store.commit(vec![event(id, b"x")]));
        assert!(futures_util::future::join_all(commits).await.iter().all(Result::is_ok));
        drop(store);
        assert_eq!(Store::open(&file).unwrap().1.events.len(), 500);
    }
}
