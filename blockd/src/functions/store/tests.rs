//! What survives what: opening again, a second process, a disk that fails.

use super::*;
use redb::StorageBackend;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Storage in memory that can be made to fail, and is still there when it is opened again.
#[derive(Debug, Clone, Default)]
pub(in crate::functions) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Writes that still succeed, if it is about to be full.
    writes: Arc<Mutex<Option<usize>>>,
    is_unreadable: Arc<AtomicBool>,
}

impl Disk {
    pub(in crate::functions) fn open(&self) -> (Store, Contents) {
        let disk = self.clone();
        // no cache, so that reads reach the disk
        let open = move || Database::builder().set_cache_size(0).create_with_backend(disk.clone());
        Store::over(open, Path::new("disk")).unwrap()
    }

    /// Has it take so many writes more; `None` is no limit.
    pub(in crate::functions) fn take_writes(&self, most: Option<usize>) {
        *self.writes.lock().unwrap() = most;
    }

    fn written(&self) -> std::io::Result<()> {
        match &mut *self.writes.lock().unwrap() {
            Some(0) => Err(ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        if self.is_unreadable.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("a bad sector"));
        }
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.written()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.written()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.written()?;
        let start = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_disk_that_was_full_is_used_again() {
    let disk = Disk::default();
    let (store, _) = disk.open();
    store.commit(vec![event(1, b"one")]).await.unwrap();
    disk.take_writes(Some(0));
    for _ in 0..3 {
        let error = store.commit(vec![event(2, b"two")]).await.unwrap_err();
        assert!(error.to_string().contains("need not be restarted"), "{error}");
    }
    disk.take_writes(None);
    store.commit(vec![event(3, b"three")]).await.unwrap();
    assert_eq!(store.payload(1).await.unwrap().unwrap(), "one");
    drop(store);
    let ids: Vec<u64> = disk.open().1.events.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 3]);
}

#[tokio::test]
async fn a_disk_that_fills_up_anywhere_in_a_commit_loses_nothing() {
    let mut failures = 0;
    for writes in 0.. {
        let disk = Disk::default();
        let (store, _) = disk.open();
        store.commit(vec![event(1, b"one")]).await.unwrap();
        disk.take_writes(Some(writes));
        let second = store.commit(vec![Change::RemoveEvent(1), event(2, b"two")]).await;
        disk.take_writes(None);
        store.commit(vec![event(3, b"three")]).await.unwrap();
        drop(store);
        let (store, contents) = disk.open();
        let ids: Vec<u64> = contents.events.iter().map(|(id, _)| *id).collect();
        let all_or_nothing = [vec![1, 3], vec![2, 3]];
        assert!(all_or_nothing.contains(&ids), "after {writes} writes: {ids:?}");
        for id in &ids {
            assert!(store.payload(*id).await.unwrap().is_some(), "after {writes} writes: {id}");
        }
        if second.is_ok() {
            assert_eq!(ids, [2, 3]);
            break;
        }
        failures += 1;
    }
    assert!(failures > 3, "{failures}");
}

#[tokio::test]
async fn a_disk_that_could_not_be_read_is_read_again() {
    let disk = Disk::default();
    let (store, _) = disk.open();
    store.commit(vec![event(1, b"one")]).await.unwrap();
    disk.is_unreadable.store(true, Ordering::SeqCst);
    assert!(store.payload(1).await.is_err());
    assert!(store.payload(1).await.is_err());
    disk.is_unreadable.store(false, Ordering::SeqCst);
    assert_eq!(store.payload(1).await.unwrap().unwrap(), "one");
    store.commit(vec![event(2, b"two")]).await.unwrap();
}

#[tokio::test]
async fn a_file_is_opened_again_and_stays_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("functions.redb");
    let open = file::opening(&path).unwrap();
    drop(open().unwrap());
    let database = open().unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
    drop(database);
    assert!(Store::open(&path).is_ok());
}
