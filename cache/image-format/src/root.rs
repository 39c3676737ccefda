//! Roots: generations that keep chunks alive, as a pure state machine (ATC'23 section 3.4).
//!
//! ```text
//! Active ──retire──▶ Retired ──expire──▶ Expired ──delete──▶ Deleted
//! ```
//!
//! Invariants: new data goes only to an active root; a manifest in a root implies all its
//! chunks in that root; no transition goes back or skips a state; a table never forgets a
//! root, so an id is never used twice. Byte map: docs/formats.md, "Root table".

use crate::ids::RootId;
use crate::wire::{LABEL_FIELD, Reader, Short, put_label};

const MAGIC: &[u8; 8] = b"LANTERNT";
const VERSION: u16 = 1;
const ENTRY_LEN: usize = LABEL_FIELD + 8;
/// Most roots that a table may hold; far above what rotation ever needs.
pub const MAX_ROOTS: usize = 4096;

/// How far a root's life has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootState {
    /// Reads and writes; all new data goes to active roots.
    Active,
    /// Read only; what is still referenced is being migrated to an active root.
    Retired,
    /// Reads are still answered, but each is an alarm that stops all deletion.
    Expired,
    /// Its objects may be gone.
    Deleted,
}

impl RootState {
    /// Whether new objects may be written.
    #[must_use]
    pub const fn accepts_writes(self) -> bool {
        matches!(self, Self::Active)
    }

    /// Whether reading means that a migration was missed.
    #[must_use]
    pub const fn read_is_alarm(self) -> bool {
        matches!(self, Self::Expired)
    }

    /// The one state that may follow.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Active => Some(Self::Retired),
            Self::Retired => Some(Self::Expired),
            Self::Expired => Some(Self::Deleted),
            Self::Deleted => None,
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::Active => 1,
            Self::Retired => 2,
            Self::Expired => 3,
            Self::Deleted => 4,
        }
    }

    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Active),
            2 => Some(Self::Retired),
            3 => Some(Self::Expired),
            4 => Some(Self::Deleted),
            _ => None,
        }
    }
}

impl std::fmt::Display for RootState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        })
    }
}

/// Why a table did not change or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The table has no such root.
    #[error("root {0} does not exist; active roots: {1}")]
    Unknown(RootId, String),
    /// The root exists already, perhaps deleted long ago.
    #[error("root {0} exists already; ids are never used twice")]
    Exists(RootId),
    /// The last active root would go.
    #[error("root {0} is the only active one; add another first")]
    LastActive(RootId),
    /// Not the state that follows.
    #[error("root {root} is {from} and cannot become {to}")]
    Transition {
        /// Which root.
        root: RootId,
        /// Its state.
        from: RootState,
        /// What was asked.
        to: RootState,
    },
    /// New data was meant for a root that takes none.
    #[error("root {root} is {state} and takes no new data; use one of: {active}")]
    NotWritable {
        /// Which root.
        root: RootId,
        /// Its state.
        state: RootState,
        /// Which roots would.
        active: String,
    },
    /// The table holds as many roots as it can.
    #[error("the table holds {MAX_ROOTS} roots, which is its limit")]
    Full,
    /// Bytes that are no version 1 table.
    #[error("not a Lantern root table of version 1: truncated, damaged, or written by a later version")]
    Malformed,
}

impl From<Short> for RootError {
    fn from(_: Short) -> Self {
        Self::Malformed
    }
}

/// All roots of a store and their states, in order of creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootTable {
    generation: u64,
    roots: Vec<(RootId, RootState)>,
}

impl RootTable {
    /// The table of a new store: one active root. Equal for equal ids, so that racing
    /// creators write equal bytes.
    #[must_use]
    pub fn initial(root: RootId) -> Self {
        Self { generation: 1, roots: vec![(root, RootState::Active)] }
    }

    /// Counts changes; a compare-and-swap on the object keeps it strictly growing.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The roots in order of creation.
    #[must_use]
    pub fn roots(&self) -> &[(RootId, RootState)] {
        &self.roots
    }

    /// The state of a root.
    ///
    /// # Errors
    /// [`RootError::Unknown`].
    pub fn state(&self, root: &RootId) -> Result<RootState, RootError> {
        self.roots
            .iter()
            .find(|(id, _)| id == root)
            .map(|&(_, state)| state)
            .ok_or_else(|| RootError::Unknown(root.clone(), self.active_list()))
    }

    /// Checks that new data may go to `root`.
    ///
    /// # Errors
    /// [`RootError::Unknown`] or [`RootError::NotWritable`], naming the active roots.
    pub fn check_writable(&self, root: &RootId) -> Result<(), RootError> {
        let state = self.state(root)?;
        if state.accepts_writes() {
            return Ok(());
        }
        Err(RootError::NotWritable { root: root.clone(), state, active: self.active_list() })
    }

    fn active_list(&self) -> String {
        let active: Vec<&str> =
            self.roots.iter().filter(|(_, s)| s.accepts_writes()).map(|(id, _)| id.as_str()).collect();
        active.join(", ")
    }

    /// Adds an active root.
    ///
    /// # Errors
    /// [`RootError::Exists`] or [`RootError::Full`].
    pub fn add(&mut self, root: RootId) -> Result<(), RootError> {
        if self.roots.iter().any(|(id, _)| *id == root) {
            return Err(RootError::Exists(root));
        }
        if self.roots.len() >= MAX_ROOTS {
            return Err(RootError::Full);
        }
        self.roots.push((root, RootState::Active));
        self.generation += 1;
        Ok(())
    }

    /// Moves a root to the state that follows its own.
    ///
    /// # Errors
    /// [`RootError::Unknown`], [`RootError::Transition`] for any other state, or
    /// [`RootError::LastActive`].
    pub fn advance(&mut self, root: &RootId, to: RootState) -> Result<(), RootError> {
        let from = self.state(root)?;
        if from.next() != Some(to) {
            return Err(RootError::Transition { root: root.clone(), from, to });
        }
        let active = self.roots.iter().filter(|(_, state)| state.accepts_writes()).count();
        if from.accepts_writes() && active == 1 {
            return Err(RootError::LastActive(root.clone()));
        }
        for (id, state) in &mut self.roots {
            if id == root {
                *state = to;
            }
        }
        self.generation += 1;
        Ok(())
    }

    /// The table as stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.roots.len()).expect("at most MAX_ROOTS");
        let mut out = Vec::with_capacity(24 + self.roots.len() * ENTRY_LEN + 32);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.generation.to_le_bytes());
        for (root, state) in &self.roots {
            put_label(&mut out, root.as_str());
            out.push(state.to_wire());
            out.extend_from_slice(&[0; 7]);
        }
        let trailer = blake3::hash(&out);
        out.extend_from_slice(trailer.as_bytes());
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`RootError::Malformed`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, RootError> {
        let covered = bytes.len().checked_sub(32).ok_or(RootError::Malformed)?;
        let (body, trailer) = bytes.split_at(covered);
        if blake3::hash(body).as_bytes() != trailer {
            return Err(RootError::Malformed);
        }
        let mut reader = Reader::new(body);
        if reader.take(8)? != MAGIC || reader.u16()? != VERSION {
            return Err(RootError::Malformed);
        }
        let count = usize::from(reader.u16()?);
        let reserved: [u8; 4] = reader.array()?;
        let generation = reader.u64()?;
        if reserved != [0; 4] || count > MAX_ROOTS || reader.rest().len() != count * ENTRY_LEN {
            return Err(RootError::Malformed);
        }
        let mut roots: Vec<(RootId, RootState)> = Vec::with_capacity(count);
        for _ in 0..count {
            let root: RootId = reader.label()?.and_then(|t| t.parse().ok()).ok_or(RootError::Malformed)?;
            let state = RootState::from_wire(reader.u8()?).ok_or(RootError::Malformed)?;
            let padding: [u8; 7] = reader.array()?;
            if padding != [0; 7] || roots.iter().any(|(id, _)| *id == root) {
                return Err(RootError::Malformed);
            }
            roots.push((root, state));
        }
        Ok(Self { generation, roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root(text: &str) -> RootId {
        text.parse().unwrap()
    }

    #[test]
    fn life_goes_one_way() {
        let mut table = RootTable::initial(root("r1"));
        assert_eq!(table.advance(&root("r1"), RootState::Retired), Err(RootError::LastActive(root("r1"))));
        table.add(root("r2")).unwrap();
        for next in [RootState::Retired, RootState::Expired, RootState::Deleted] {
            table.advance(&root("r1"), next).unwrap();
            assert_eq!(table.state(&root("r1")), Ok(next));
            assert!(table.check_writable(&root("r1")).unwrap_err().to_string().contains("r2"));
        }
        assert_eq!(table.add(root("r1")), Err(RootError::Exists(root("r1"))));
        assert_eq!(table.generation(), 5);
    }

    #[test]
    fn skipping_and_going_back_are_refused() {
        use RootState::{Active, Deleted, Expired, Retired};
        for from in [Active, Retired, Expired, Deleted] {
            for to in [Active, Retired, Expired, Deleted] {
                let mut table =
                    RootTable { generation: 1, roots: vec![(root("a"), from), (root("b"), Active)] };
                assert_eq!(table.advance(&root("a"), to).is_ok(), from.next() == Some(to), "{from} to {to}");
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip_and_damage(names in proptest::collection::btree_set("[a-z0-9]{1,10}", 1..20), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut table = RootTable::initial(root("first.root"));
            for name in &names {
                table.add(root(name)).unwrap();
            }
            let bytes = table.encode();
            prop_assert_eq!(RootTable::decode(&bytes).unwrap(), table);
            let index = at.index(bytes.len());
            let mut changed = bytes.clone();
            changed[index] ^= 1 << bit;
            prop_assert!(RootTable::decode(&changed).is_err());
            prop_assert!(RootTable::decode(&bytes[..index]).is_err());
        }
    }
}
