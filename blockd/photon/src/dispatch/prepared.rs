//! Sandboxes of functions in use, prepared up to their first instruction.
//!
//! What a start takes once its shell is there is nearly all the OCI runtime's work (mounts,
//! namespaces, filters); a function that runs is likely to need another sandbox, so some of them
//! are made when the worker has nothing to start. A start is then one byte to a process that
//! waits.
//!
//! Invariants: only functions that have a sandbox have prepared ones, and only of the revision
//! that is invoked; each is counted in [`Shared::prepared`] from before it is made until nothing
//! of it is left; one that cannot be started any more costs a start its time, never its success.

use super::group::Group;
use super::merging::Permit;
use super::{Shared, life};
use crate::function::FunctionNetwork;
use crate::rootfs::RootFs;
use crate::sandbox::Prepared;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// None is made while sandboxes start; so often it is looked whether they do.
const QUIET: Duration = Duration::from_millis(100);

/// A sandbox that waits to be started, and the image it is on.
pub(super) struct Ready {
    /// Slots that its runtime is told of.
    slots: usize,
    pub(super) rootfs: Arc<dyn RootFs>,
    pub(super) sandbox: Prepared,
    pub(super) permit: Option<Permit>,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

/// Those of one revision of a function.
#[derive(Debug, Default)]
pub(super) struct Stock {
    ready: Mutex<VecDeque<Ready>>,
    filling: AtomicBool,
}

impl Stock {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Ready>> {
        // sandboxes go in and out whole
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.ready().len()
    }

    /// One that is ready for so many slots, which is the caller's now.
    pub(super) fn take(&self, shared: &Arc<Shared>, slots: usize) -> Option<Ready> {
        loop {
            let taken = self.ready().pop_front()?;
            if taken.slots == slots {
                shared.prepared.fetch_sub(1, Ordering::AcqRel);
                return Some(taken);
            }
            tokio::spawn(clear(Arc::clone(shared), taken));
        }
    }

    /// Removes all, in the background.
    pub(super) fn clear(&self, shared: &Arc<Shared>) {
        for ready in std::mem::take(&mut *self.ready()) {
            tokio::spawn(clear(Arc::clone(shared), ready));
        }
    }
}

async fn clear(shared: Arc<Shared>, ready: Ready) {
    ready.sandbox.clear().await;
    shared.source.release(ready.rootfs).await;
    drop(ready.permit);
    shared.prepared.fetch_sub(1, Ordering::AcqRel);
}

/// How many a group may have: all of them are shared among the functions in use.
fn share(shared: &Shared) -> usize {
    let all = shared.all();
    let in_use = all.iter().flat_map(|entry| entry.groups().clone()).filter(|group| group.is_in_use());
    (shared.settings.prepared / in_use.count().max(1)).max(1)
}

fn wants(shared: &Shared, group: &Group) -> bool {
    let closing = shared.closing.load(Ordering::Acquire);
    !closing && group.is_in_use() && group.stock.len() < share(shared)
}

/// Counts one more, if there may be one more.
fn reserve(shared: &Shared) -> bool {
    let more = |now: usize| (now < shared.settings.prepared).then_some(now + 1);
    shared.prepared.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
}

/// Fills a group's stock in the background, unless somebody does already.
pub(super) fn fill(shared: &Arc<Shared>, group: &Arc<Group>) {
    if shared.settings.prepared == 0 || group.stock.filling.swap(true, Ordering::AcqRel) {
        return;
    }
    let (shared, group) = (Arc::clone(shared), Arc::clone(group));
    tokio::spawn(async move {
        tokio::time::sleep(QUIET).await;
        while wants(&shared, &group) {
            if shared.starts.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(QUIET).await;
            } else if !fill_one(&shared, &group).await {
                break;
            }
        }
        group.stock.filling.store(false, Ordering::Release);
    });
}

/// Makes one. False if that could not be, or may not.
async fn fill_one(shared: &Arc<Shared>, group: &Arc<Group>) -> bool {
    if !reserve(shared) {
        return false;
    }
    match make(shared, group).await {
        Ok(ready) => {
            group.stock.ready().push_back(ready);
            if !group.is_in_use() {
                group.stock.clear(shared);
            }
            true
        }
        Err(error) => {
            shared.prepared.fetch_sub(1, Ordering::AcqRel);
            tracing::debug!(function = %group.function().key, error, "no sandbox could be prepared ahead");
            false
        }
    }
}

async fn make(shared: &Arc<Shared>, group: &Arc<Group>) -> Result<Ready, String> {
    let (function, slots) = (group.function(), group.slots());
    let rootfs = shared.source.acquire(function).await?;
    let permit = life::permit(shared, function, rootfs.as_ref());
    let made = async {
        let request = life::request(shared, function, slots, rootfs.as_ref(), permit.is_some())
            .map_err(|failure| failure.to_string())?;
        let bridged = function.network == FunctionNetwork::Bridge;
        let shell = shared.pool.take(bridged).await.map_err(|error| error.to_string())?;
        let prepared = Prepared::prepare(shell, Arc::clone(&rootfs), request, &shared.settings.sandbox).await;
        prepared.map_err(|error| error.to_string())
    };
    match made.await {
        Ok(sandbox) => Ok(Ready { slots, rootfs, sandbox, permit }),
        Err(error) => {
            shared.source.release(rootfs).await;
            Err(error)
        }
    }
}
