//! Which neighbours to fetch ahead of demand: pure decisions, no I/O.
//!
//! A manifest's entries lie in the order of the image's files, so what is read next is
//! often near what was read last. Each reader that moves forward is a *stream* with a
//! window of entries in flight ahead of it; the window doubles while the stream is
//! followed. Serial round trips decide cold starts, so streams begin with a window of their
//! own; what was fetched and not used is bounded against what was demanded, so that lazy
//! stays lazy.
//!
//! Invariants: no position is proposed twice; the bytes proposed and not demanded never
//! exceed [`WindowSettings::unused_bytes`] plus [`WindowSettings::unused_share`] of the
//! bytes demanded.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How far ahead to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowSettings {
    /// Chunks that a new stream keeps in flight ahead; 0 switches prefetch off.
    pub first: usize,
    /// Most chunks ahead of a stream.
    pub most: usize,
    /// Streams followed at the same time.
    pub streams: usize,
    /// Stored bytes that may be fetched in vain at first.
    pub unused_bytes: u64,
    /// Stored bytes that may be fetched in vain, as a share of those demanded.
    pub unused_share: f64,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self { first: 4, most: 32, streams: 16, unused_bytes: 16 << 20, unused_share: 1.0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// The last position demanded.
    at: usize,
    /// The first position not yet proposed.
    frontier: usize,
    window: usize,
    used: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Untouched,
    Proposed,
    Demanded,
}

/// The decisions for one image.
#[derive(Debug)]
pub struct Window {
    settings: WindowSettings,
    /// Stored length of each entry, and what became of it.
    entries: Vec<(u32, Position)>,
    streams: Vec<Stream>,
    clock: u64,
    demanded_bytes: u64,
    unused_bytes: u64,
}

impl Window {
    /// Decisions over entries of these stored lengths.
    pub fn new(settings: WindowSettings, stored_lens: impl IntoIterator<Item = u32>) -> Self {
        Self {
            settings,
            entries: stored_lens.into_iter().map(|length| (length, Position::Untouched)).collect(),
            streams: Vec::new(),
            clock: 0,
            demanded_bytes: 0,
            unused_bytes: 0,
        }
    }

    /// Notes that the entry at `position` was demanded and returns what to fetch ahead.
    /// Repeated demands of one entry change nothing.
    pub fn demand(&mut self, position: usize) -> Vec<usize> {
        let Some(&mut (length, ref mut state)) = self.entries.get_mut(position) else { return Vec::new() };
        let before = std::mem::replace(state, Position::Demanded);
        match before {
            Position::Demanded => return Vec::new(),
            Position::Proposed => self.unused_bytes -= u64::from(length),
            Position::Untouched => {}
        }
        self.demanded_bytes += u64::from(length);
        if self.settings.first == 0 {
            return Vec::new();
        }
        self.clock += 1;
        let ahead = self.follow(position);
        ahead.filter(|&p| self.propose(p)).collect()
    }

    /// Finds or begins the stream that reads `position`; returns the range to fetch.
    fn follow(&mut self, position: usize) -> Range<usize> {
        let clock = self.clock;
        let followed = self
            .streams
            .iter_mut()
            .filter(|s| position > s.at && position <= s.frontier + s.window)
            .min_by_key(|s| position - s.at);
        if let Some(stream) = followed {
            stream.window = (stream.window * 2).min(self.settings.most);
            stream.at = position;
            stream.used = clock;
            let from = stream.frontier.max(position + 1);
            stream.frontier = from.max(position + 1 + stream.window);
            return from..stream.frontier;
        }
        let window = self.settings.first.min(self.settings.most);
        let stream = Stream { at: position, frontier: position + 1 + window, window, used: clock };
        if self.streams.len() < self.settings.streams.max(1) {
            self.streams.push(stream);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|s| s.used) {
            *oldest = stream;
        }
        position + 1..position + 1 + window
    }

    fn propose(&mut self, position: usize) -> bool {
        let allowed =
            self.settings.unused_bytes as f64 + self.settings.unused_share * self.demanded_bytes as f64;
        let Some((length, state)) = self.entries.get_mut(position) else { return false };
        let unused = self.unused_bytes + u64::from(*length);
        if *state != Position::Untouched || unused as f64 > allowed {
            return false;
        }
        *state = Position::Proposed;
        self.unused_bytes = unused;
        true
    }

    /// Stored bytes proposed and not demanded so far.
    #[must_use]
    pub const fn unused_bytes(&self) -> u64 {
        self.unused_bytes
    }

    /// Entries proposed and not demanded so far.
    #[must_use]
    pub fn unused_chunks(&self) -> u64 {
        self.entries.iter().filter(|&&(_, state)| state == Position::Proposed).count() as u64
    }

    /// Positions demanded so far.
    pub fn demanded(&self) -> impl Iterator<Item = usize> + '_ {
        let demanded = |&(_, &(_, state)): &(usize, &(u32, Position))| state == Position::Demanded;
        self.entries.iter().enumerate().filter(demanded).map(|(position, _)| position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEVER_MIND: WindowSettings =
        WindowSettings { first: 4, most: 16, streams: 2, unused_bytes: u64::MAX / 2, unused_share: 0.0 };

    #[test]
    fn a_sequential_reader_gets_a_growing_window() {
        let mut window = Window::new(NEVER_MIND, vec![1; 100]);
        assert_eq!(window.demand(0), vec![1, 2, 3, 4]);
        assert_eq!(window.demand(1), (5..10).collect::<Vec<_>>());
        assert_eq!(window.demand(2), (10..19).collect::<Vec<_>>());
        assert_eq!(window.demand(3), vec![19]);
        assert_eq!(window.demand(3), Vec::<usize>::new());
    }

    #[test]
    fn interleaved_readers_keep_their_streams() {
        let mut window = Window::new(NEVER_MIND, vec![1; 1000]);
        window.demand(0);
        window.demand(500);
        assert_eq!(window.demand(1).len(), 5);
        assert_eq!(window.demand(501).len(), 5);
    }

    #[test]
    fn off_means_off() {
        let mut window = Window::new(WindowSettings { first: 0, ..NEVER_MIND }, vec![1; 10]);
        assert!(window.demand(3).is_empty());
        assert_eq!(window.demanded().collect::<Vec<_>>(), vec![3]);
    }

    proptest! {
        #[test]
        fn waste_is_bounded_and_nothing_is_proposed_twice(
            demands in proptest::collection::vec(0usize..300, 1..200),
            lengths in proptest::collection::vec(1u32..1000, 300),
        ) {
            let settings = WindowSettings { unused_bytes: 3000, unused_share: 0.5, ..WindowSettings::default() };
            let mut window = Window::new(settings, lengths.clone());
            let mut met = std::collections::HashSet::new();
            let mut demanded = 0.0;
            for position in demands {
                met.insert(position);
                let before = window.entries[position].1;
                let ahead = window.demand(position);
                if before != Position::Demanded {
                    demanded += f64::from(lengths[position]);
                }
                for p in ahead {
                    prop_assert!(p < 300);
                    prop_assert!(met.insert(p), "{p} proposed twice");
                }
                prop_assert!(window.unused_bytes() as f64 <= 3000.0 + 0.5 * demanded);
            }
        }
    }
}
