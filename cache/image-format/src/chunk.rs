//! A chunk's three lives: sealed (bytes of unknown worth), verified (they are what the
//! name says), plain (what a guest reads).
//!
//! Invariant: there is no way from [`SealedChunk`] to its bytes for reading but
//! [`SealedChunk::verify`]. Storing unverified bytes is refused the same way: tiers and
//! stores accept [`VerifiedChunk`].

use crate::ids::ChunkId;
use crate::units::ChunkSize;
use bytes::Bytes;
use std::ops::Range;

/// Bytes that claim to be a sealed chunk: from a disk, a cache node or the store.
#[derive(Clone)]
pub struct SealedChunk {
    bytes: Bytes,
    /// What the bytes were verified to be before, so that nothing is hashed twice.
    proved: Option<ChunkId>,
}

/// Sealed bytes that are not the chunk they were fetched as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes hash to {actual} and not to {expected}: the copy is corrupt")]
pub struct Mismatch {
    /// The chunk asked for.
    pub expected: ChunkId,
    /// The id that the bytes have.
    pub actual: ChunkId,
    /// How many bytes there were.
    pub length: usize,
}

impl SealedChunk {
    /// Takes bytes as they came.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes, proved: None }
    }

    /// How many bytes came; says nothing of their worth.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.bytes.len()
    }

    /// Checks that the bytes are the chunk `expected`.
    ///
    /// # Errors
    /// [`Mismatch`] if they hash to another id.
    pub fn verify(self, expected: &ChunkId) -> Result<VerifiedChunk, Mismatch> {
        let actual = self.proved.unwrap_or_else(|| ChunkId::of(&self.bytes));
        if actual == *expected {
            Ok(VerifiedChunk { id: actual, bytes: self.bytes })
        } else {
            Err(Mismatch { expected: *expected, actual, length: self.bytes.len() })
        }
    }
}

impl From<VerifiedChunk> for SealedChunk {
    /// A verified chunk on its way through code that takes any; verifying it again is free.
    fn from(chunk: VerifiedChunk) -> Self {
        Self { bytes: chunk.bytes, proved: Some(chunk.id) }
    }
}

impl std::fmt::Debug for SealedChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedChunk({} unverified bytes)", self.bytes.len())
    }
}

/// Sealed bytes whose id was checked.
#[derive(Clone)]
pub struct VerifiedChunk {
    id: ChunkId,
    bytes: Bytes,
}

impl VerifiedChunk {
    /// The chunk's name.
    #[must_use]
    pub const fn id(&self) -> &ChunkId {
        &self.id
    }

    /// The sealed bytes, to be stored or sent on.
    #[must_use]
    pub const fn sealed_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn into_parts(self) -> (ChunkId, Bytes) {
        (self.id, self.bytes)
    }
}

impl From<&crate::seal::SealedOutput> for VerifiedChunk {
    /// A chunk sealed here is verified by construction: its id was computed from it.
    fn from(output: &crate::seal::SealedOutput) -> Self {
        Self { id: output.id, bytes: output.bytes.clone() }
    }
}

impl std::fmt::Debug for VerifiedChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifiedChunk({}, {} bytes)", self.id, self.bytes.len())
    }
}

/// A chunk's plaintext, kept without its trailing zeros so that partly filled chunks cost
/// a memory cache only what they hold.
#[derive(Clone)]
pub struct PlainChunk {
    bytes: Bytes,
    size: ChunkSize,
}

/// Zeros to answer reads of elided bytes from, as long as the largest chunk.
static ZEROS: [u8; ChunkSize::MAX as usize] = [0; ChunkSize::MAX as usize];

/// `length` zero bytes without allocating.
///
/// # Panics
/// If `length` exceeds the largest chunk size.
#[must_use]
pub fn zeros(length: u32) -> Bytes {
    Bytes::from_static(&ZEROS[..length as usize])
}

impl PlainChunk {
    pub(crate) const fn new(bytes: Bytes, size: ChunkSize) -> Self {
        Self { bytes, size }
    }

    /// The chunk that is all zeros.
    #[must_use]
    pub const fn zero(size: ChunkSize) -> Self {
        Self { bytes: Bytes::new(), size }
    }

    /// Bytes of memory that the chunk occupies, at most its chunk size.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of `range` as at most two slices: held bytes, then zeros. No copy.
    ///
    /// # Panics
    /// If the range leaves the chunk; ranges come from [`crate::units::pieces`].
    #[must_use]
    pub fn slices(&self, range: Range<u32>) -> [Bytes; 2] {
        assert!(range.start <= range.end && range.end <= self.size.bytes(), "range inside the chunk");
        let (start, end) = (range.start as usize, range.end as usize);
        let held = self.bytes.len();
        let head = self.bytes.slice(start.min(held)..end.min(held));
        let zeros_wanted = end - start - head.len();
        [head, Bytes::from_static(&ZEROS[..zeros_wanted])]
    }
}

impl std::fmt::Debug for PlainChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlainChunk({} of {} bytes)", self.bytes.len(), self.size.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::CHUNK_SIZE;

    #[test]
    fn only_the_right_bytes_verify() {
        let bytes = Bytes::from_static(b"sealed bytes");
        let id = ChunkId::of(&bytes);
        assert!(SealedChunk::new(bytes.clone()).verify(&id).is_ok());
        let mismatch = SealedChunk::new(bytes.slice(1..)).verify(&id).unwrap_err();
        assert_eq!((mismatch.expected, mismatch.length), (id, 11));
        let again = SealedChunk::from(SealedChunk::new(bytes).verify(&id).unwrap());
        assert!(again.clone().verify(&ChunkId::of(b"other")).is_err());
        assert!(again.verify(&id).is_ok());
    }

    #[test]
    fn slices_extend_with_zeros() {
        let chunk = PlainChunk::new(Bytes::from_static(b"abc"), CHUNK_SIZE);
        for (range, head, zeros) in
            [(0..3, "abc", 0), (1..5, "bc", 3 - 1 + 5 - 3 - 2), (3..10, "", 7), (9..9, "", 0)]
        {
            let [a, b] = chunk.slices(range.clone());
            assert_eq!(a, head.as_bytes(), "{range:?}");
            assert_eq!(b.len(), zeros, "{range:?}");
            assert!(b.iter().all(|&byte| byte == 0));
        }
    }
}
