//! Room for what sandboxes make this process hold: a little is each sandbox's own, the rest all of
//! them share, each up to a bound.
//!
//! Invariant: whatever others hold, a sandbox has its own room.

use rustix::process::{Resource, getrlimit};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for bodies is given out in portions of this many bytes.
pub(super) const PORTION_BYTES: usize = 64 << 10;
/// Largest answers for which a sandbox has room of its own.
const OWN_BODIES: usize = 1;
/// Largest answers for which a sandbox has room altogether.
const BODIES: usize = 16;
/// Largest answers for which all sandboxes have room beyond their own.
const WORKER_BODIES: usize = 64;
/// Connections of each kind for which a sandbox has room of its own.
const OWN_CONNECTIONS: usize = 4;
/// All sandboxes' connections beyond those take at most this part of the files that this process
/// may have open: a photon's has a descriptor of its process beside it, and the rest is for starts
/// and callers.
const CONNECTIONS_OF_FILES: u64 = 3;
/// Their number where files are not limited.
const MOST_CONNECTIONS: u64 = 1 << 20;

/// What all sandboxes of a worker share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct WorkerRoom {
    bodies: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

fn portions(answers: usize, most_response_bytes: usize) -> usize {
    answers.saturating_mul(most_response_bytes.div_ceil(PORTION_BYTES).max(1))
}

impl WorkerRoom {
    /// Room where answers have at most so many bytes, and by how many files may be open now.
    #[must_use]
    pub fn new(most_response_bytes: usize) -> Self {
        let files = getrlimit(Resource::Nofile).current;
        let connections = files.map_or(MOST_CONNECTIONS, |files| files / CONNECTIONS_OF_FILES);
        let connections = usize::try_from(connections.min(MOST_CONNECTIONS)).unwrap_or(usize::MAX);
        let bodies = portions(WORKER_BODIES, most_response_bytes);
        Self { bodies: semaphore(bodies), connections: semaphore(connections) }
    }

    /// One sandbox's room for bodies, in portions.
    pub(super) fn bodies(&self, most_response_bytes: usize) -> Room {
        let own = portions(OWN_BODIES, most_response_bytes);
        Room::new(own, portions(BODIES, most_response_bytes) - own, &self.bodies)
    }

    /// One sandbox's room for one kind of connections.
    pub(super) fn connections(&self, most: usize) -> Room {
        let own = OWN_CONNECTIONS.min(most);
        Room::new(own, most - own, &self.connections)
    }
}

/// Room of one sandbox.
#[derive(Debug)]
pub(super) struct Room {
    own: Arc<Semaphore>,
    share: Arc<Semaphore>,
    worker: Arc<Semaphore>,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _worker: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn new(own: usize, share: usize, worker: &Arc<Semaphore>) -> Self {
        Self { own: semaphore(own), share: semaphore(share), worker: Arc::clone(worker) }
    }

    /// Takes so much, the sandbox's own first, once it is there. Cancel-safe.
    pub(super) async fn take(&self, much: u32) -> Place {
        let take = |from: &Arc<Semaphore>| {
            let from = Arc::clone(from);
            async move { from.acquire_many_owned(much).await.expect("nobody closes it") }
        };
        let shared = async {
            let share = take(&self.share).await;
            Place { _own: share, _worker: Some(take(&self.worker).await) }
        };
        tokio::select! {
            biased;
            own = take(&self.own) => Place { _own: own, _worker: None },
            shared = shared => shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn one_that_takes_all_leaves_others_their_own() {
        const ANSWER: usize = 6 << 20;
        let worker = WorkerRoom::new(ANSWER);
        let answer = u32::try_from(ANSWER / PORTION_BYTES).unwrap();
        let greedy: Vec<Room> = (0..8).map(|_| worker.bodies(ANSWER)).collect();
        let taken: Vec<Vec<Place>> = greedy
            .iter()
            .map(|room| std::iter::from_fn(|| room.take(answer).now_or_never()).collect())
            .collect();
        assert!(taken.iter().all(|places| (OWN_BODIES..=BODIES).contains(&places.len())));
        let all: usize = taken.iter().map(Vec::len).sum();
        assert_eq!(all, WORKER_BODIES + 8 * OWN_BODIES, "bounded over all sandboxes");
        let other = worker.bodies(ANSWER);
        let own = other.take(answer).now_or_never().expect("a sandbox has room whatever others hold");
        assert!(other.take(1).now_or_never().is_none());
        drop(own);
        assert!(other.take(1).now_or_never().is_some());
        drop(taken);
        assert!(greedy[0].take(answer).now_or_never().is_some(), "what was held comes back");
    }
}
