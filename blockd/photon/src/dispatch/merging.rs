//! Whose sandboxes may have equal pages of memory merged by the kernel (KSM): one tenant's at a
//! time.
//!
//! Photons that were forked from one process and did the same have the same in most pages that
//! they wrote to, so merging leaves a fraction of their memory. But the kernel merges whatever is
//! equal, and a write to a merged page takes longer: who can try a page and time the write learns
//! whether somebody else has it.
//!
//! Invariant: of all processes of sandboxes that may be merged at one moment, all are one
//! tenant's. A sandbox without a [`Permit`] cannot ask the kernel for it
//! ([`crate::sandbox::Request::may_merge`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Gives out permits.
#[derive(Debug)]
pub(super) struct Merging {
    is_allowed: bool,
    holder: Mutex<Holder>,
}

/// Whose sandboxes may, and how many do.
#[derive(Debug, Default)]
struct Holder {
    tenant: String,
    permits: usize,
}

/// For one sandbox, from before it is started until nothing of it is left.
#[derive(Debug)]
pub(super) struct Permit(Arc<Merging>);

/// Says whether the kernel merges at all.
const SWITCH: &str = "/sys/kernel/mm/ksm/run";

impl Merging {
    /// Nobody's are merged if it is not allowed, nor while the kernel's switch is off.
    pub(super) fn new(is_allowed: bool) -> Arc<Self> {
        if is_allowed && std::fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() != "1") {
            tracing::warn!("the kernel merges no memory; let it: echo 1 > {SWITCH}");
        } else if is_allowed && !std::path::Path::new(SWITCH).exists() {
            tracing::warn!("this kernel cannot merge memory: there is no {SWITCH}");
        }
        Arc::new(Self { is_allowed, holder: Mutex::default() })
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        // changed as a whole
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a sandbox of `tenant`, unless there are others' that may.
    pub(super) fn permit(self: &Arc<Self>, tenant: &str) -> Option<Permit> {
        let mut holder = self.holder();
        if !self.is_allowed || (holder.permits > 0 && holder.tenant != tenant) {
            return None;
        }
        if holder.permits == 0 {
            tenant.clone_into(&mut holder.tenant);
        }
        holder.permits += 1;
        Some(Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.holder().permits -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_at_a_time() {
        let merging = Merging::new(true);
        let first = merging.permit("a").unwrap();
        let second = merging.permit("a").unwrap();
        assert!(merging.permit("b").is_none());
        drop(first);
        assert!(merging.permit("b").is_none(), "one of the other's is left");
        drop(second);
        let third = merging.permit("b").unwrap();
        assert!(merging.permit("a").is_none());
        drop(third);
        assert!(Merging::new(false).permit("a").is_none(), "nobody's unless it was asked for");
    }
}
