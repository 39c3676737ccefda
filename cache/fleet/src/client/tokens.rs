//! The budget for repeating calls: a repetition costs a token, a success gives a tenth back,
//! so that an outage meets at most a tenth more requests.

use std::sync::atomic::{AtomicU32, Ordering};

/// Hundredths of a token that a success gives back.
const GIVEN_BACK: u32 = 10;
/// One repetition.
const COST: u32 = 100;

#[derive(Debug)]
pub(super) struct Tokens {
    full: u32,
    left: AtomicU32,
}

impl Tokens {
    pub(super) const fn new(budget: u32) -> Self {
        let full = budget.saturating_mul(COST);
        Self { full, left: AtomicU32::new(full) }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(COST)).is_ok()
    }

    pub(super) fn give_back(&self) {
        let more = |left: u32| (left < self.full).then(|| left.saturating_add(GIVEN_BACK).min(self.full));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_successes_buy_one_repetition() {
        let tokens = Tokens::new(1);
        assert!(tokens.take() && !tokens.take());
        (0..9).for_each(|_| tokens.give_back());
        assert!(!tokens.take());
        tokens.give_back();
        assert!(tokens.take());
        (0..100).for_each(|_| tokens.give_back());
        assert!(tokens.take() && !tokens.take(), "no more than the budget is saved up");
    }
}
