//! Where a waiting invocation goes: into a sandbox that serves, to a sandbox that is started
//! for it, into the queue, or back to the caller.
//!
//! Three rules, in this order:
//! 1. *Fill before you spread*: a free slot of the fullest sandbox is taken first. One runtime
//!    then carries as many invocations as it may, and the emptier sandboxes run dry and can go.
//! 2. *Start for the excess only*: slots of sandboxes that are starting belong to those who
//!    wait already. So `n` cold invocations at once start `⌈n/C⌉` sandboxes in whatever order
//!    and portions they arrive (Photons, section 5.3), and never more.
//! 3. *Refuse early*: who waits beyond the bound, or with nothing there that could ever serve
//!    him, is refused at once and not after a time in a queue. Under overload the work that was
//!    let in then still ends in time, so goodput stays flat (ATC'23, section 4.2).
//!
//! Used by the dispatcher: on each arrival, freed slot, finished or failed start, it calls
//! [`decide`] until the answer is [`Decision::Wait`]. A refusal concerns the newest of those
//! who wait; a join the oldest.

use std::num::NonZeroUsize;

/// What a sandbox can do for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// On its way: its slots serve soon.
    Starting,
    /// Takes invocations.
    Serving,
    /// Takes no more: draining, quarantined or broken.
    Closing,
}

/// One sandbox of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxView {
    /// What it can do.
    pub phase: Phase,
    /// Invocations in it.
    pub in_flight: usize,
    /// Most invocations in it: what it was started with, or less where measurement says so.
    pub limit: usize,
}

impl SandboxView {
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.in_flight)
    }
}

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Invocations of the function that wait, the one that just came included.
    pub waiting: usize,
    /// The function's sandboxes.
    pub sandboxes: &'a [SandboxView],
    /// Photon limit C of a sandbox started now; 0 counts as 1.
    pub limit: usize,
    /// Starts under way on the host, of all functions, those in `sandboxes` included.
    pub starts_under_way: usize,
    /// Most starts at once on the host, for this function's tenant.
    pub most_starts: usize,
    /// Sandboxes on the host, those that start included.
    pub sandboxes_on_host: usize,
    /// Most sandboxes on the host, for this function's tenant.
    pub most_sandboxes: usize,
    /// Memory that may still be promised to sandboxes, in bytes: what is free on the host, less
    /// what starting sandboxes were promised.
    pub memory_bytes: u64,
    /// What one more sandbox needs, in bytes: base and one increment, as estimated.
    pub sandbox_bytes: u64,
    /// Most invocations that wait without a slot on its way to them.
    pub most_waiting: usize,
}

/// Why an invocation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many wait already.
    #[error("{most_waiting} invocations of the function wait already; try again later")]
    Queue {
        /// The bound.
        most_waiting: usize,
    },
    /// The function has no sandbox, and the host starts as many as it may.
    #[error("the worker starts {most_starts} sandboxes already, which is its limit; try again later")]
    Starts {
        /// The bound.
        most_starts: usize,
    },
    /// The function has no sandbox, and the host has as many as it may.
    #[error("the worker runs {most_sandboxes} sandboxes already, which is its limit; try again later")]
    Sandboxes {
        /// The bound.
        most_sandboxes: usize,
    },
    /// The function has no sandbox, and the host has no memory for one.
    #[error(
        "a sandbox of the function needs {needed} bytes of memory and the worker has {available} left; try again later"
    )]
    Memory {
        /// What a sandbox needs, in bytes.
        needed: u64,
        /// What there is, in bytes.
        available: u64,
    },
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Hand the oldest that waits to this sandbox.
    Join {
        /// Index into [`View::sandboxes`].
        sandbox: usize,
    },
    /// Start so many sandboxes; then decide again with them in the view.
    Start(NonZeroUsize),
    /// Nothing to do until something changes.
    Wait,
    /// Refuse the newest that waits.
    Refuse(Refusal),
}

/// Decides for a function whose invocations wait. See the module for the rules.
///
/// Progress: following the answers, a finite number of calls leads to [`Decision::Wait`]. `Join`
/// and `Refuse` take one from those who wait, `Start` adds slots that are on their way.
#[must_use]
pub fn decide(view: &View<'_>) -> Decision {
    if view.waiting == 0 {
        return Decision::Wait;
    }
    if let Some(sandbox) = fullest_with_room(view.sandboxes) {
        return Decision::Join { sandbox };
    }
    let on_their_way = slots(view.sandboxes, Phase::Starting);
    let excess = view.waiting.saturating_sub(on_their_way);
    if excess == 0 {
        return Decision::Wait;
    }
    let obstacle = match startable(view) {
        Ok(most) => {
            let wanted = excess.div_ceil(view.limit.max(1));
            let count = NonZeroUsize::new(wanted).map_or(most, |wanted| wanted.min(most));
            return Decision::Start(count);
        }
        Err(obstacle) => obstacle,
    };
    // A serving sandbox without room frees a slot some day, so a bounded number may wait for it.
    let may_come = view.sandboxes.iter().any(|s| s.phase != Phase::Closing && s.limit > 0);
    if !may_come {
        return Decision::Refuse(obstacle);
    }
    if excess > view.most_waiting {
        return Decision::Refuse(Refusal::Queue { most_waiting: view.most_waiting });
    }
    Decision::Wait
}

/// Which limit of the host keeps a sandbox that is missing from starting, if idle sandboxes of
/// other functions could make room for it.
#[must_use]
pub fn blocked_by(view: &View<'_>) -> Option<Refusal> {
    match startable(view) {
        _ if view.waiting <= coming(view) => None,
        Err(refusal @ (Refusal::Sandboxes { .. } | Refusal::Memory { .. })) => Some(refusal),
        _ => None,
    }
}

/// Slots that those who wait can count on.
#[must_use]
pub fn coming(view: &View<'_>) -> usize {
    slots(view.sandboxes, Phase::Starting).saturating_add(slots(view.sandboxes, Phase::Serving))
}

/// The serving sandbox with room that has most in it; the first of several.
fn fullest_with_room(sandboxes: &[SandboxView]) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    for (index, sandbox) in sandboxes.iter().enumerate() {
        let fuller = best.is_none_or(|(_, in_flight)| sandbox.in_flight > in_flight);
        if sandbox.phase == Phase::Serving && sandbox.room() > 0 && fuller {
            best = Some((index, sandbox.in_flight));
        }
    }
    best.map(|(index, _)| index)
}

fn slots(sandboxes: &[SandboxView], phase: Phase) -> usize {
    sandboxes.iter().filter(|s| s.phase == phase).map(SandboxView::room).fold(0, usize::saturating_add)
}

/// How many sandboxes may be started now, or what stands in the way of the first.
fn startable(view: &View<'_>) -> Result<NonZeroUsize, Refusal> {
    let by_starts = NonZeroUsize::new(view.most_starts.saturating_sub(view.starts_under_way))
        .ok_or(Refusal::Starts { most_starts: view.most_starts })?;
    let by_number = NonZeroUsize::new(view.most_sandboxes.saturating_sub(view.sandboxes_on_host))
        .ok_or(Refusal::Sandboxes { most_sandboxes: view.most_sandboxes })?;
    let fit = view.memory_bytes / view.sandbox_bytes.max(1);
    let by_memory = NonZeroUsize::new(usize::try_from(fit).unwrap_or(usize::MAX))
        .ok_or(Refusal::Memory { needed: view.sandbox_bytes, available: view.memory_bytes })?;
    Ok(by_starts.min(by_number).min(by_memory))
}

#[cfg(test)]
mod tests;
