//! Who waits where, first come first served.
//!
//! Invariants: a ticket is in one queue until it leaves; a place with nobody in its queue has
//! no queue; being woken is remembered, so a wake between looking and sleeping is not lost.
//! Used by the store, under its lock.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::Notify;

/// One that waits.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    wake: Arc<Notify>,
}

impl Ticket {
    /// Returns once woken, at once if it was since the last time. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

#[derive(Debug)]
pub(super) struct Queues<P> {
    waiting: HashMap<P, VecDeque<(u64, Arc<Notify>)>>,
    length: usize,
    next: u64,
}

impl<P> Default for Queues<P> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), length: 0, next: 0 }
    }
}

impl<P: Hash + Eq + Clone> Queues<P> {
    /// How many wait at all places.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Whether nobody waits at the place.
    pub(super) fn is_empty_at(&self, place: &P) -> bool {
        !self.waiting.contains_key(place)
    }

    /// Goes to the end of the place's queue.
    pub(super) fn join(&mut self, place: &P) -> Ticket {
        let ticket = Ticket { number: self.next, wake: Arc::default() };
        self.next += 1;
        self.length += 1;
        let queue = self.waiting.entry(place.clone()).or_default();
        queue.push_back((ticket.number, Arc::clone(&ticket.wake)));
        ticket
    }

    /// Whether the ticket is the first in the place's queue.
    pub(super) fn is_first(&self, place: &P, ticket: &Ticket) -> bool {
        let first = self.waiting.get(place).and_then(VecDeque::front);
        first.is_some_and(|(number, _)| *number == ticket.number)
    }

    /// Leaves the queue; the one that is first then is woken, for it may be his turn.
    pub(super) fn leave(&mut self, place: &P, ticket: &Ticket) {
        let Some(queue) = self.waiting.get_mut(place) else { return };
        // numbers ascend from front to back
        let Ok(index) = queue.binary_search_by_key(&ticket.number, |(number, _)| *number) else { return };
        queue.remove(index);
        self.length -= 1;
        if queue.is_empty() {
            self.waiting.remove(place);
        } else if index == 0 {
            self.wake_first(place);
        }
    }

    /// Wakes the first in the queue.
    pub(super) fn wake_first(&self, place: &P) {
        if let Some((_, wake)) = self.waiting.get(place).and_then(VecDeque::front) {
            wake.notify_one();
        }
    }

    /// Wakes all in the queue.
    pub(super) fn wake_all(&self, place: &P) {
        for (_, wake) in self.waiting.get(place).into_iter().flatten() {
            wake.notify_one();
        }
    }
}
