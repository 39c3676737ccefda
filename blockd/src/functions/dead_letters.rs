//! The events that came to nothing and that somebody wants to see: bounded in number and
//! bytes, the oldest go first.

use super::retry::Condition;
use super::settings::EventSettings;
use super::store::Change;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// The dead letters that are kept.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    letters: BTreeMap<u64, DeadLetter>,
    bytes: u64,
}

impl DeadLetters {
    /// Takes one in, and says which changes make it so: the oldest may have to go.
    pub(super) fn bury(&mut self, letter: DeadLetter, settings: &EventSettings) -> Vec<Change> {
        let record = serde_json::to_vec(&letter).expect("strings and numbers are always JSON");
        let mut changes = vec![Change::Bury { id: letter.id, record }];
        self.insert(letter);
        while self.letters.len() > settings.max_dead_letters || self.bytes > settings.max_dead_letter_bytes {
            let Some((&oldest, _)) = self.letters.first_key_value() else { break };
            self.remove(oldest);
            changes.push(Change::RemoveDead(oldest));
        }
        changes
    }

    pub(super) fn insert(&mut self, letter: DeadLetter) {
        self.bytes += letter.payload_bytes;
        self.letters.insert(letter.id, letter);
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(letter) = self.letters.remove(&id) {
            self.bytes -= letter.payload_bytes;
        }
    }

    pub(super) fn of_tenant(&self, tenant: &str) -> Vec<DeadLetter> {
        self.letters.values().filter(|letter| letter.tenant == tenant).cloned().collect()
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

    #[test]
    fn the_oldest_go_first() {
        let settings =
            EventSettings { max_dead_letters: 3, max_dead_letter_bytes: 25, ..EventSettings::default() };
        let mut letters = DeadLetters::default();
        assert_eq!(letters.bury(letter(1), &settings).len(), 1);
        assert_eq!(letters.bury(letter(2), &settings).len(), 1);
        let changes = letters.bury(letter(3), &settings);
        assert!(matches!(changes[..], [Change::Bury { id: 3, .. }, Change::RemoveDead(1)]));
        assert_eq!(letters.of_tenant("a").len(), 2);
        assert_eq!((letters.of_tenant("b").len(), letters.last_id()), (0, Some(3)));
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(DeadLetter::cut("no"), "no");
        assert_eq!(DeadLetter::cut(&"ä".repeat(MAX_ERROR_BYTES)).len(), MAX_ERROR_BYTES);
        assert_eq!(DeadLetter::cut(&format!("x{}", "ä".repeat(MAX_ERROR_BYTES))).len(), MAX_ERROR_BYTES - 1);
    }
}
