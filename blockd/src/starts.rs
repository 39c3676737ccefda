//! The limit on starts: when starts slow down, more of them are under way, and beyond the
//! limit a new one is refused at once instead of making all of them slower (ATC'23 section
//! 4.2). What is refused costs nothing, so a full worker stays quick to say so.
//!
//! Invariant: a start ends with its [`Place`], or after a bounded time, whatever its owner does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A start that was not reported as over counts no longer than this: some commands never
/// print anything.
const LONGEST: Duration = Duration::from_secs(60);

/// Refused: as many starts as allowed are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} starts are under way, as many as allowed; try again soon, elsewhere, or raise --max-starts")]
pub struct TooManyStarts(pub usize);

/// Starts under way.
#[derive(Debug)]
pub struct Starts {
    most: usize,
    places: Arc<Semaphore>,
    refused: AtomicU64,
}

/// A start under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Place {
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    timer: tokio::task::JoinHandle<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.timer.abort();
    }
}

impl Starts {
    /// At most `most` at the same time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, places: Arc::new(Semaphore::new(most)), refused: AtomicU64::new(0) }
    }

    /// Begins a start.
    ///
    /// # Errors
    /// [`TooManyStarts`] without waiting.
    pub fn begin(&self) -> Result<Place, TooManyStarts> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooManyStarts(self.most));
        };
        let permit = Arc::new(Mutex::new(Some(permit)));
        let forgotten = Arc::clone(&permit);
        let timer = tokio::spawn(async move {
            tokio::time::sleep(LONGEST).await;
            forgotten.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Ok(Place { permit, timer })
    }

    /// Starts under way now.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.most - self.places.available_permits()
    }

    /// Starts refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_come_back() {
        let starts = Starts::new(2);
        let (first, second) = (starts.begin().unwrap(), starts.begin().unwrap());
        assert_eq!(starts.begin().unwrap_err(), TooManyStarts(2));
        assert_eq!((starts.under_way(), starts.refused()), (2, 1));
        drop(first);
        let third = starts.begin().unwrap();
        tokio::time::sleep(LONGEST * 2).await;
        assert_eq!(starts.under_way(), 0, "a start that nobody ends is forgotten");
        drop((second, third));
        assert_eq!(starts.under_way(), 0);
    }
}
