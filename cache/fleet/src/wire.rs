//! A shard as it goes over the wire and lies on a node's disk: docs/formats.md, "Shard record".
//!
//! Invariants: [`ShardRecord::decode`] accepts any bytes without panic, and what it accepts
//! has a payload of exactly the length that its header implies. The checksum finds bits that
//! rotted; it proves nothing about who wrote them: only the chunk's id does, once a stripe is
//! decoded.

use crate::stripe::Code;
use bytes::Bytes;
use image_format::ids::ChunkId;
use image_format::units::ChunkSize;

/// Length of the header before the payload, in bytes.
pub const HEADER_LEN: usize = 16;
/// Longest record: a chunk of the largest size in one shard.
pub const MAX_RECORD_LEN: usize = HEADER_LEN + ChunkSize::MAX as usize;

const MAGIC: [u8; 4] = *b"LSHD";
const VERSION: u8 = 1;
const CHECKED: usize = 12;

/// What a shard says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardHeader {
    /// Which shard of the stripe: data shards first, then parity.
    pub index: u8,
    /// Data shards of the stripe.
    pub data: u8,
    /// Parity shards of the stripe.
    pub parity: u8,
    /// Length of the whole sealed chunk in bytes.
    pub stored_len: u32,
}

/// A shard that came with a right checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRecord {
    /// What it says of itself.
    pub header: ShardHeader,
    /// Its bytes.
    pub payload: Bytes,
}

/// Bytes that are no shard record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than a header, or longer than any record.
    #[error("{0} bytes are no shard record")]
    Length(usize),
    /// Another format, or a later version.
    #[error("not a shard record of version 1")]
    Version,
    /// A header that no writer makes.
    #[error("shard record with an impossible {0}")]
    Field(&'static str),
    /// The bytes changed since they were written, or belong to another chunk.
    #[error("shard record with a wrong checksum")]
    Checksum,
}

impl ShardHeader {
    /// The stripe that the shard is of.
    fn check(&self) -> Result<Code, WireError> {
        let code = Code::new(self.data, self.parity).map_err(|_| WireError::Field("number of shards"))?;
        if self.index >= code.width() {
            return Err(WireError::Field("index"));
        }
        if self.stored_len == 0 || self.stored_len > ChunkSize::MAX {
            return Err(WireError::Field("chunk length"));
        }
        Ok(code)
    }

    fn checksum(head: &[u8], id: &ChunkId, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), id.as_bytes()), payload)
    }

    /// The header's bytes before `payload` of the chunk `id`.
    #[must_use]
    pub fn encode(&self, id: &ChunkId, payload: &[u8]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.index;
        bytes[6] = self.data;
        bytes[7] = self.parity;
        bytes[8..CHECKED].copy_from_slice(&self.stored_len.to_le_bytes());
        let checksum = Self::checksum(&bytes[..CHECKED], id, payload);
        bytes[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

impl ShardRecord {
    /// Reads a record of the chunk `id`.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not one; never panics.
    pub fn decode(id: &ChunkId, bytes: &Bytes) -> Result<Self, WireError> {
        if bytes.len() > MAX_RECORD_LEN {
            return Err(WireError::Length(bytes.len()));
        }
        let (head, payload) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(WireError::Length(bytes.len()))?;
        if head[..4] != MAGIC || head[4] != VERSION {
            return Err(WireError::Version);
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let header = ShardHeader { index: head[5], data: head[6], parity: head[7], stored_len: word(8) };
        if payload.len() != header.check()?.shard_len(header.stored_len) as usize {
            return Err(WireError::Field("payload length"));
        }
        if ShardHeader::checksum(&head[..CHECKED], id, payload) != word(CHECKED) {
            return Err(WireError::Checksum);
        }
        Ok(Self { header, payload: bytes.slice(HEADER_LEN..) })
    }

    /// The whole record in one buffer.
    #[must_use]
    pub fn to_bytes(&self, id: &ChunkId) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.extend_from_slice(&self.header.encode(id, &self.payload));
        bytes.extend_from_slice(&self.payload);
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(stored_len: u32) -> (ChunkId, ShardRecord) {
        let header = ShardHeader { index: 2, data: 4, parity: 1, stored_len };
        let payload = vec![9; Code::PUBLISHED.shard_len(stored_len) as usize].into();
        (ChunkId::of(b"chunk"), ShardRecord { header, payload })
    }

    #[test]
    fn golden_bytes() {
        let (id, record) = record(1000);
        let bytes = record.to_bytes(&id);
        assert_eq!(bytes.len(), 16 + 256);
        assert_eq!(hex_of(&bytes[..HEADER_LEN]), GOLDEN);
    }

    /// A change of this line is a change of the format: version and document move with it.
    const GOLDEN: &str = "4c53484401020401e80300007fda361b";

    fn hex_of(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_record_belongs_to_one_chunk() {
        let (id, record) = record(1000);
        let bytes = record.to_bytes(&id);
        assert_eq!(ShardRecord::decode(&id, &bytes), Ok(record));
        assert_eq!(ShardRecord::decode(&ChunkId::of(b"other"), &bytes), Err(WireError::Checksum));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(stored_len in 1_u32..5000) {
            let (id, record) = record(stored_len);
            prop_assert_eq!(ShardRecord::decode(&id, &record.to_bytes(&id)), Ok(record));
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_found(at in 0_usize..272, bit in 0_u8..8, keep in 0_usize..272) {
            let (id, record) = record(1000);
            let whole = record.to_bytes(&id);
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << bit;
            prop_assert!(ShardRecord::decode(&id, &flipped.into()).is_err());
            prop_assert!(ShardRecord::decode(&id, &whole.slice(..keep)).is_err());
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ShardRecord::decode(&ChunkId::of(b"x"), &bytes.into());
        }
    }
}
