//! The devices shown by one FUSE mount: names, inode numbers, open counts.
//!
//! Invariants: inode numbers are never used twice in the life of a mount; a removed device gets
//! no new handles; a failed device answers every request, also those already waiting, with EIO.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Notify, Semaphore, watch};

use crate::device::{BlockDevice, SECTOR_SIZE};
use crate::error::MountError;

/// The inode of the one directory.
pub(crate) const ROOT_INODE: u64 = 1;

/// Longest name of a device in bytes: what a directory entry can hold.
const MAX_NAME_LEN: usize = 255;

/// One device as shown.
pub(crate) struct Slot {
    pub(crate) inode: u64,
    pub(crate) name: String,
    pub(crate) device: Arc<dyn BlockDevice>,
    /// Device calls in progress; each device has its own, so that a slow one holds up no other.
    pub(crate) permits: Arc<Semaphore>,
    opens: AtomicUsize,
    released: Notify,
    failed: watch::Sender<bool>,
}

impl Slot {
    /// From now on every request is answered with EIO, also those that wait.
    pub(crate) fn fail(&self) {
        self.failed.send_replace(true);
    }

    /// Whether [`fail`](Self::fail) was called.
    pub(crate) fn is_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Resolves when the device is failed, never otherwise.
    pub(crate) async fn failure(&self) {
        let mut failed = self.failed.subscribe();
        // The sender lives in self, so waiting cannot end for another reason.
        let _ = failed.wait_for(|failed| *failed).await;
    }

    /// One open handle less.
    pub(crate) fn release(&self) {
        let _ = self.opens.fetch_update(Ordering::AcqRel, Ordering::Acquire, |opens| opens.checked_sub(1));
        self.released.notify_waiters();
    }

    /// Waits until no handle is open.
    pub(crate) async fn idle(&self) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.opens.load(Ordering::Acquire) == 0 {
                return;
            }
            released.await;
        }
    }
}

#[derive(Default)]
struct Inner {
    by_inode: BTreeMap<u64, Arc<Slot>>,
    by_name: BTreeMap<String, u64>,
    last_inode: u64,
}

/// All devices of one mount; shared by the FUSE threads and the control plane.
#[derive(Default)]
pub(crate) struct Table {
    inner: RwLock<Inner>,
}

impl Table {
    /// Shows `device` as `name`, with at most `max_in_flight` device calls at a time.
    pub(crate) fn add(
        &self,
        name: &str,
        device: Arc<dyn BlockDevice>,
        max_in_flight: usize,
    ) -> Result<(), MountError> {
        let invalid = |reason| Err(MountError::Invalid { name: name.to_owned(), reason });
        if name.is_empty() || name.len() > MAX_NAME_LEN || matches!(name, "." | "..") {
            return invalid("a name has 1 to 255 bytes and is neither . nor ..");
        }
        if name.bytes().any(|byte| byte == b'/' || byte.is_ascii_control()) {
            return invalid("a name holds no slash and no control character");
        }
        let length = device.length();
        if length == 0 || !length.is_multiple_of(u64::from(SECTOR_SIZE)) || i64::try_from(length).is_err() {
            return invalid("its length is not a positive multiple of 4096 bytes");
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.by_name.contains_key(name) {
            return Err(MountError::Exists { name: name.to_owned() });
        }
        inner.last_inode = inner.last_inode.max(ROOT_INODE) + 1;
        let inode = inner.last_inode;
        let slot = Slot {
            inode,
            name: name.to_owned(),
            device,
            permits: Arc::new(Semaphore::new(max_in_flight)),
            opens: AtomicUsize::new(0),
            released: Notify::new(),
            failed: watch::Sender::new(false),
        };
        inner.by_inode.insert(inode, Arc::new(slot));
        inner.by_name.insert(name.to_owned(), inode);
        Ok(())
    }

    /// The device with this inode number.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<Arc<Slot>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).by_inode.get(&inode).cloned()
    }

    /// The device of this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Slot>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_name.get(name).and_then(|inode| inner.by_inode.get(inode)).cloned()
    }

    /// Counts a new handle and returns its device; `None` if it is gone.
    pub(crate) fn open(&self, inode: u64) -> Option<Arc<Slot>> {
        // Counted under the lock, so that removal sees every handle that was given out.
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let slot = inner.by_inode.get(&inode)?;
        slot.opens.fetch_add(1, Ordering::AcqRel);
        Some(Arc::clone(slot))
    }

    /// Removes `slot` if no handle is open or `even_if_open`; tells whether it is gone.
    pub(crate) fn remove(&self, slot: &Slot, even_if_open: bool) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if !even_if_open && slot.opens.load(Ordering::Acquire) > 0 {
            return false;
        }
        if inner.by_inode.remove(&slot.inode).is_some() {
            inner.by_name.remove(&slot.name);
        }
        true
    }

    /// Devices with an inode number above `after`, in order: name and inode.
    pub(crate) fn list(&self, after: u64) -> Vec<(String, u64)> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_inode.range(after + 1..).map(|(inode, slot)| (slot.name.clone(), *inode)).collect()
    }

    /// Fails every device.
    pub(crate) fn fail_all(&self) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_inode.values().for_each(|slot| slot.fail());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::RamDevice;

    #[tokio::test]
    async fn inodes_are_not_reused_and_open_devices_stay() {
        let table = Table::default();
        let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::read_only(b""));
        for bad in ["", ".", "..", "a/b", "a\nb", &"x".repeat(256)] {
            assert!(table.add(bad, Arc::clone(&device), 1).is_err(), "{bad:?}");
        }
        table.add("a", Arc::clone(&device), 1).expect("fresh");
        assert!(matches!(table.add("a", Arc::clone(&device), 1), Err(MountError::Exists { .. })));
        let slot = table.by_name("a").expect("there");
        assert!(table.open(slot.inode).is_some());
        assert!(!table.remove(&slot, false));
        slot.release();
        slot.idle().await;
        assert!(table.remove(&slot, false) && table.open(slot.inode).is_none());
        table.add("a", device, 1).expect("fresh again");
        assert!(table.by_name("a").expect("there").inode > slot.inode);
        assert_eq!(table.list(slot.inode).len(), 1);
    }
}
