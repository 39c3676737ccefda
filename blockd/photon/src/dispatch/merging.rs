//! Whose sandboxes may have equal pages of memory merged by the kernel (KSM): one tenant's at a
//! time.
//!
//! Photons that were forked from one process and did the same have the same in most pages that
//! they wrote to, so merging leaves a fraction of their memory. But the kernel merges whatever is
//! equal, and shows it: in the time of a write, and in files. Who can try a page learns whether
//! somebody else has it.
//!
//! Invariant: of all processes of sandboxes that may be merged at one moment, all are one
//! tenant's of one worker, of those that share a tree of control groups, whatever becomes of the
//! worker. A sandbox without a [`Permit`] cannot ask the kernel for it
//! ([`crate::sandbox::Request::may_merge`]).

use crate::sandbox::Observer;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Says whether the kernel merges at all.
const SWITCH: &str = "/sys/kernel/mm/ksm/run";
/// How often it is looked whether processes that could not be ended are gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Gives out permits.
#[derive(Debug)]
pub(super) struct Merging {
    is_allowed: bool,
    claim: fn() -> io::Result<File>,
    holder: Mutex<Holder>,
}

/// Whose sandboxes may, and how many do.
#[derive(Debug, Default)]
struct Holder {
    tenant: String,
    permits: usize,
    /// That no other worker's may meanwhile.
    claim: Option<File>,
    /// Whether it was told that this worker's may not.
    told: bool,
}

/// For one sandbox, from before it is started until nothing of it is left.
#[derive(Debug)]
pub(super) struct Permit(Arc<Merging>);

impl Merging {
    /// Nobody's are merged if it is not allowed, nor while the kernel's switch is off. `claim`:
    /// [`crate::sandbox::claim_merging`].
    pub(super) fn new(is_allowed: bool, claim: fn() -> io::Result<File>) -> Arc<Self> {
        if is_allowed && !Path::new(SWITCH).exists() {
            tracing::warn!("this kernel cannot merge memory: there is no {SWITCH}");
        } else if is_allowed && std::fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() != "1") {
            tracing::warn!("the kernel merges no memory; let it: echo 1 > {SWITCH}");
        }
        Arc::new(Self { is_allowed, claim, holder: Mutex::default() })
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        // changed as a whole
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a sandbox of `tenant`, unless there are others' that may.
    pub(super) fn permit(self: &Arc<Self>, tenant: &str) -> Option<Permit> {
        if !self.is_allowed {
            return None;
        }
        let mut holder = self.holder();
        if holder.permits > 0 && holder.tenant != tenant {
            return None;
        }
        if holder.permits == 0 {
            match (self.claim)() {
                Ok(claim) => holder.claim = Some(claim),
                Err(error) => {
                    if !std::mem::replace(&mut holder.told, true) {
                        let why = if error.kind() == io::ErrorKind::WouldBlock {
                            "another worker's sandboxes are merged, or a dead one's are left".into()
                        } else {
                            error.to_string()
                        };
                        tracing::warn!(why, "no memory is merged for now");
                    }
                    return None;
                }
            }
            tenant.clone_into(&mut holder.tenant);
        }
        holder.permits += 1;
        Some(Permit(Arc::clone(self)))
    }
}

impl Permit {
    /// Gives it back once no process of the sandbox is left: at once as a rule, later where the
    /// kernel holds one that was killed.
    pub(super) fn end(self, sandbox: Option<Observer>) {
        let Some(sandbox) = sandbox.filter(|sandbox| !sandbox.processes().is_empty()) else { return };
        // without one this process is about to end, and the claim says no to whoever is next
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            while !sandbox.processes().is_empty() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            drop(self);
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut holder = self.0.holder();
        holder.permits -= 1;
        if holder.permits == 0 {
            holder.claim = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> io::Result<File> {
        File::open("/dev/null")
    }

    #[test]
    fn one_tenant_at_a_time() {
        let merging = Merging::new(true, granted);
        let first = merging.permit("a").unwrap();
        let second = merging.permit("a").unwrap();
        assert!(merging.permit("b").is_none());
        drop(first);
        assert!(merging.permit("b").is_none(), "one of the other's is left");
        second.end(None);
        let third = merging.permit("b").unwrap();
        assert!(merging.permit("a").is_none());
        drop(third);
        assert!(merging.holder().claim.is_none(), "other workers' turn");
    }

    #[test]
    fn nobodys_unless_it_was_asked_for_and_no_other_worker_does() {
        assert!(Merging::new(false, granted).permit("a").is_none());
        assert!(Merging::new(true, || Err(io::ErrorKind::WouldBlock.into())).permit("a").is_none());
    }
}
