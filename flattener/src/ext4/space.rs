//! Addresses handed out upwards, with room to grow where the items themselves say so.
//!
//! Wherever an item's hash says so the cursor first moves to a multiple of a step. What is
//! added or removed before such a break moves what comes behind it only if the step is
//! exceeded, so a changed base seldom renumbers the rest. Address space costs nothing.

/// How often breaks come and to which multiple they go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Breaks {
    /// One in so many items starts at a multiple of `step`.
    pub(super) every: u64,
    /// The multiple.
    pub(super) step: u64,
}

/// A cursor over blocks or inode numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    next: u64,
    breaks: Breaks,
}

impl Space {
    pub(super) fn new(start: u64, breaks: Breaks) -> Self {
        Self { next: start, breaks }
    }

    /// Moves to a multiple of the step if the hash says so.
    pub(super) fn maybe_break(&mut self, hash: u64) {
        if hash.is_multiple_of(self.breaks.every) {
            self.next = self.next.next_multiple_of(self.breaks.step);
        }
    }

    /// Takes `count` from the cursor.
    pub(super) fn take(&mut self, count: u64) -> u64 {
        let start = self.next;
        self.next += count;
        start
    }

    pub(super) fn end(&self) -> u64 {
        self.next
    }
}

/// Rounds up to a coarse grid that grows with the number (steps of 1/8 to 1/16), so that
/// small growth changes nothing behind.
pub(super) fn coarse(count: u64) -> u64 {
    let bits = u64::BITS - count.leading_zeros();
    count.next_multiple_of(1 << bits.saturating_sub(4))
}

/// The alignment of a region of `count`: so large that a region is not cut by more
/// boundaries than it must, at most `max`.
pub(super) fn alignment(count: u64, max: u64) -> u64 {
    count.max(1).next_power_of_two().min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_coarse() {
        for (count, want) in
            [(0, 0), (1, 1), (15, 15), (16, 16), (17, 18), (37, 40), (100, 104), (1000, 1024)]
        {
            assert_eq!(coarse(count), want, "{count}");
        }
        assert_eq!((alignment(0, 256), alignment(5, 256), alignment(900, 256)), (1, 8, 256));
    }
}
