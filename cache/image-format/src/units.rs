//! Numbers with types: where a byte is, how many bytes, which chunk.
//!
//! Invariants: an offset, a length, an index and a chunk size never share a type;
//! [`pieces`] never yields a piece that crosses a chunk boundary or leaves the device.

use std::fmt;
use std::ops::Range;

/// Size of a chunk in this version's images: 512 KiB, as published. Smaller chunks
/// deduplicate better, larger ones cost fewer requests; every manifest carries its size.
pub const CHUNK_SIZE: ChunkSize = ChunkSize(512 * 1024);

/// File system block: the unit of ext4 layout and of the copy-on-write overlay.
pub const BLOCK_SIZE: u32 = 4096;

/// Bytes in one chunk: a power of two from 64 KiB to 4 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// Smallest chunk size that a manifest may carry.
    pub const MIN: u32 = 64 * 1024;
    /// Largest chunk size that a manifest may carry; bounds what one read may allocate.
    pub const MAX: u32 = 4 * 1024 * 1024;

    /// Accepts a size in bytes, or `None` if it is no power of two within the bounds.
    #[must_use]
    pub fn new(bytes: u32) -> Option<Self> {
        (bytes.is_power_of_two() && (Self::MIN..=Self::MAX).contains(&bytes)).then_some(Self(bytes))
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The size in bytes, for slicing.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        // ≤ 4 MiB by construction
        self.0 as usize
    }
}

/// A chunk's position in its device: byte offset divided by the chunk size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A byte position in a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteLen(pub u64);

/// The part of one chunk that a read touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// Bytes within that chunk; never empty.
    pub range: Range<u32>,
}

/// A read that does not lie inside the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("range of {length} bytes at offset {offset} leaves the device of {device} bytes")]
pub struct OutOfRange {
    /// First byte asked for.
    pub offset: u64,
    /// Bytes asked for.
    pub length: u64,
    /// Length of the device in bytes.
    pub device: u64,
}

/// Cuts the byte range at `offset` into its parts by chunk, in order.
///
/// # Errors
/// [`OutOfRange`] if the range does not lie inside a device of `device` bytes, or if the
/// device has more chunks than an index can name.
pub fn pieces(
    offset: ByteOffset,
    length: ByteLen,
    device: ByteLen,
    chunk_size: ChunkSize,
) -> Result<impl Iterator<Item = Piece>, OutOfRange> {
    let refused = OutOfRange { offset: offset.0, length: length.0, device: device.0 };
    let end = offset.0.checked_add(length.0).filter(|&end| end <= device.0).ok_or(refused)?;
    let size = u64::from(chunk_size.bytes());
    u32::try_from(device.0 / size).map_err(|_| refused)?;
    let mut at = offset.0;
    Ok(std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let index = u32::try_from(at / size).expect("below the device's chunk count, checked above");
        let start = u32::try_from(at % size).expect("below a chunk size, which is u32");
        let stop = u32::try_from((end - (at - u64::from(start))).min(size)).expect("at most a chunk size");
        at += u64::from(stop - start);
        Some(Piece { chunk: ChunkIndex(index), range: start..stop })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chunk_sizes_are_bounded_powers_of_two() {
        for (bytes, ok) in [
            (0, false),
            (32 << 10, false),
            (64 << 10, true),
            (100_000, false),
            (4 << 20, true),
            (8 << 20, false),
        ] {
            assert_eq!(ChunkSize::new(bytes).is_some(), ok, "{bytes}");
        }
    }

    #[test]
    fn ranges_outside_are_refused() {
        for (offset, length) in [(0, 1025), (1024, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(pieces(ByteOffset(offset), ByteLen(length), ByteLen(1024), CHUNK_SIZE).is_err());
        }
        assert_eq!(pieces(ByteOffset(1024), ByteLen(0), ByteLen(1024), CHUNK_SIZE).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_in_order(offset in 0u64..5_000_000, length in 0u64..3_000_000) {
            let device = ByteLen(8_000_000);
            let mut at = offset;
            for piece in pieces(ByteOffset(offset), ByteLen(length), device, CHUNK_SIZE).unwrap() {
                prop_assert!(piece.range.start < piece.range.end);
                prop_assert!(piece.range.end <= CHUNK_SIZE.bytes());
                let begin = u64::from(piece.chunk.0) * u64::from(CHUNK_SIZE.bytes()) + u64::from(piece.range.start);
                prop_assert_eq!(begin, at);
                at += u64::from(piece.range.end - piece.range.start);
            }
            prop_assert_eq!(at, offset + length);
        }
    }
}
