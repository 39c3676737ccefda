//! Room on the host for a function that has none: idle sandboxes of others go for it.
//!
//! Invariants: only sandboxes without an invocation go, of functions that nobody waits for; those
//! first whose keeping is worth least (see [`crate::policy::keepalive`]); no more go than are
//! wanted, those that already go counted.

use super::Shared;
use super::handle::Handle;
use crate::policy::admission::{Phase, Refusal, View};
use crate::policy::keepalive::{IdleSandbox, make_room};
use std::sync::Arc;
use std::time::Instant;

/// What a function is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Places for sandboxes.
    pub(super) sandboxes: usize,
    /// Bytes of memory.
    pub(super) bytes: u64,
}

impl Wanted {
    /// What those that wait are short of.
    pub(super) fn of(host: &View<'_>, refusal: Refusal) -> Self {
        let sandboxes = host.waiting.div_ceil(host.limit.max(1));
        let all = host.sandbox_bytes.saturating_mul(u64::try_from(sandboxes).unwrap_or(u64::MAX));
        let by_memory = matches!(refusal, Refusal::Memory { .. });
        Self { sandboxes, bytes: if by_memory { all.saturating_sub(host.memory_bytes) } else { 0 } }
    }
}

/// Ends idle sandboxes of whichever function. False if there are none, and none are going: there
/// is no room to wait for. No lock of a group may be held.
pub(super) fn make(shared: &Shared, wanted: Wanted) -> bool {
    let now = Instant::now();
    let (mut going, mut going_bytes) = (0_usize, 0_u64);
    let (mut handles, mut candidates): (Vec<Arc<Handle>>, Vec<IdleSandbox>) = Default::default();
    for entry in shared.all() {
        let groups = entry.groups().clone();
        // a sandbox of a function for which somebody waits is idle for this moment only
        let settled = groups.iter().filter(|group| !group.has_waiting());
        for handle in settled.flat_map(|group| group.sandboxes()) {
            let memory_bytes = handle.memory_bytes();
            if handle.phase() == Phase::Closing && handle.slots.in_flight() == 0 {
                going += 1;
                going_bytes = going_bytes.saturating_add(memory_bytes);
            } else if let Some(idle_since) = handle.idle_since(now) {
                candidates.push(IdleSandbox { idle_since, memory_bytes, start: handle.start_took() });
                handles.push(handle);
            }
        }
    }
    let bytes = wanted.bytes.saturating_sub(going_bytes);
    let chosen = make_room(&candidates, bytes, wanted.sandboxes.saturating_sub(going), now);
    for index in &chosen {
        handles[*index].drain();
    }
    going > 0 || !chosen.is_empty()
}
