//! The events that came to nothing and that somebody wants to see: bounded in number and
//! bytes. The oldest of the tenant that has most go first, so that nobody's failures push out
//! another's.
//!
//! Invariant: a letter is shown once it is in the store, and not before.

use super::retry::Condition;
use super::settings::EventSettings;
use super::store::Change;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest error that is kept with a dead letter, in bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// An event that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id, in the order of their deaths only roughly.
    #[serde(skip)]
    pub id: u64,
    /// Whose it was.
    pub tenant: String,
    /// Which function it was for.
    pub function: String,
    /// Which invocation it was.
    pub request_id: String,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// When it was given up.
    pub ended_ms: u64,
    /// Why.
    pub condition: Condition,
    /// How often the function failed.
    pub failures: u32,
    /// The last answer, or why the function was not reached; cut.
    pub error: String,
    /// Bytes of its payload.
    pub payload_bytes: u64,
}

impl DeadLetter {
    /// An error as it is kept.
    #[must_use]
    pub fn cut(error: &str) -> String {
        let mut end = error.len().min(MAX_ERROR_BYTES);
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        error[..end].into()
    }
}

/// What a tenant has of them.
#[derive(Debug, Default)]
struct Share {
    /// Those that are in the store.
    shown: BTreeSet<u64>,
    count: u64,
    bytes: u64,
}

/// The dead letters that are kept.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    letters: BTreeMap<u64, DeadLetter>,
    tenants: BTreeMap<String, Share>,
    bytes: u64,
}

impl DeadLetters {
    /// Takes one in, and says which changes make it so: others may have to go. It is shown
    /// from [`Self::buried`] on.
    pub(super) fn bury(&mut self, letter: DeadLetter, settings: &EventSettings) -> Vec<Change> {
        let record = serde_json::to_vec(&letter).expect("strings and numbers are always JSON");
        let mut changes = vec![Change::Bury { id: letter.id, record }];
        self.count(letter);
        loop {
            let too_many = self.letters.len() > settings.max_dead_letters;
            if !too_many && self.bytes <= settings.max_dead_letter_bytes {
                return changes;
            }
            let of_shown = self.tenants.values().filter(|share| !share.shown.is_empty());
            let most = of_shown.max_by_key(|share| if too_many { share.count } else { share.bytes });
            // what is on its way into the store is not taken back
            let Some(&oldest) = most.and_then(|share| share.shown.first()) else { return changes };
            self.remove(oldest);
            changes.push(Change::RemoveDead(oldest));
        }
    }

    /// The letter is in the store, if there is one of that id.
    pub(super) fn buried(&mut self, id: u64) {
        if let Some(letter) = self.letters.get(&id)
            && let Some(share) = self.tenants.get_mut(&letter.tenant)
        {
            share.shown.insert(id);
        }
    }

    /// One that is in the store.
    pub(super) fn insert(&mut self, letter: DeadLetter) {
        let id = letter.id;
        self.count(letter);
        self.buried(id);
    }

    fn count(&mut self, letter: DeadLetter) {
        let share = self.tenants.entry(letter.tenant.clone()).or_default();
        share.count += 1;
        share.bytes += letter.payload_bytes;
        self.bytes += letter.payload_bytes;
        self.letters.insert(letter.id, letter);
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(letter) = self.letters.remove(&id) else { return };
        self.bytes -= letter.payload_bytes;
        if let Some(share) = self.tenants.get_mut(&letter.tenant) {
            share.shown.remove(&id);
            share.count -= 1;
            share.bytes -= letter.payload_bytes;
            if share.count == 0 {
                self.tenants.remove(&letter.tenant);
            }
        }
    }

    pub(super) fn of_tenant(&self, tenant: &str) -> Vec<DeadLetter> {
        let shown = self.tenants.get(tenant).into_iter().flat_map(|share| &share.shown);
        shown.filter_map(|id| self.letters.get(id)).cloned().collect()
    }

    pub(super) fn last_id(&self) -> Option<u64> {
        self.letters.last_key_value().map(|(&id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u64) -> DeadLetter {
        DeadLetter {
            id,
            tenant: "a".into(),
            function: "f".into(),
            request_id: "r".into(),
            accepted_ms: 0,
            ended_ms: 1,
            condition: Condition::RetriesExhausted,
            failures: 3,
            error: String::new(),
            payload_bytes: 10,
        }
    }

    /// Buries one, and gives back those that went.
    fn bury(letters: &mut DeadLetters, id: u64, tenant: &str, settings: &EventSettings) -> Vec<u64> {
        let changes = letters.bury(DeadLetter { tenant: tenant.into(), ..letter(id) }, settings);
        letters.buried(id);
        assert!(matches!(changes[0], Change::Bury { id: made, .. } if made == id));
        let gone = changes[1..].iter().map(|change| match change {
            Change::RemoveDead(id) => *id,
            other => panic!("{other:?}"),
        });
        gone.collect()
    }

    #[test]
    fn the_oldest_go_first() {
        let settings =
            EventSettings { max_dead_letters: 3, max_dead_letter_bytes: 25, ..EventSettings::default() };
        let mut letters = DeadLetters::default();
        assert_eq!(bury(&mut letters, 1, "a", &settings), [0_u64; 0]);
        assert_eq!(bury(&mut letters, 2, "a", &settings), [0_u64; 0]);
        assert_eq!(bury(&mut letters, 3, "a", &settings), [1]);
        assert_eq!(letters.of_tenant("a").len(), 2);
        assert_eq!((letters.of_tenant("b").len(), letters.last_id()), (0, Some(3)));
        assert_eq!(bury(&mut letters, 0, "a", &settings), [2], "not the one that was just made");
    }

    #[test]
    fn who_has_most_loses_first() {
        for settings in [
            EventSettings { max_dead_letters: 4, ..EventSettings::default() },
            EventSettings { max_dead_letter_bytes: 40, ..EventSettings::default() },
        ] {
            let mut letters = DeadLetters::default();
            assert_eq!(bury(&mut letters, 1, "quiet", &settings), [0_u64; 0]);
            for id in 2..100 {
                let gone = bury(&mut letters, id, "loud", &settings);
                assert_eq!(gone, if id < 5 { vec![] } else { vec![id - 3] });
            }
            assert_eq!(bury(&mut letters, 100, "new", &settings), [97]);
            let left = ["quiet", "loud", "new"].map(|tenant| letters.of_tenant(tenant).len());
            assert_eq!(left, [1, 2, 1]);
        }
    }

    #[test]
    fn shown_once_stored() {
        let mut letters = DeadLetters::default();
        let settings = EventSettings { max_dead_letters: 1, ..EventSettings::default() };
        letters.bury(letter(1), &settings);
        assert!(letters.of_tenant("a").is_empty());
        assert_eq!(letters.bury(letter(2), &settings).len(), 1, "what is on its way is not removed");
        letters.buried(1);
        letters.buried(2);
        assert_eq!(letters.of_tenant("a").len(), 2);
        assert_eq!(bury(&mut letters, 3, "a", &settings), [1, 2]);
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(DeadLetter::cut("no"), "no");
        assert_eq!(DeadLetter::cut(&"ä".repeat(MAX_ERROR_BYTES)).len(), MAX_ERROR_BYTES);
        assert_eq!(DeadLetter::cut(&format!("x{}", "ä".repeat(MAX_ERROR_BYTES))).len(), MAX_ERROR_BYTES - 1);
    }
}
