//! Shard records, of the chunk whose id comes first: as they come, and with the checksum
//! repaired. What decodes encodes to the same bytes and belongs to no other chunk.

#![no_main]

use bytes::Bytes;
use fleet::wire::{HEADER_LEN, ShardHeader, ShardRecord, WireError};
use image_format::ids::ChunkId;
use libfuzzer_sys::fuzz_target;

fn check(id: &ChunkId, bytes: &Bytes) {
    let parsed = ShardRecord::parse(bytes);
    let Ok(record) = ShardRecord::decode(id, bytes) else { return };
    assert_eq!(parsed.as_ref(), Ok(&record));
    assert_eq!(record.to_bytes(id), bytes);
    assert_eq!(ShardRecord::decode(&ChunkId::of(id.as_bytes()), bytes), Err(WireError::Checksum));
}

fuzz_target!(|data: &[u8]| {
    let Some((id, bytes)) = data.split_first_chunk::<32>() else { return };
    let id = ChunkId::from_bytes(*id);
    check(&id, &Bytes::copy_from_slice(bytes));

    let Some((head, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    let stored_len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let header = ShardHeader { index: head[5], data: head[6], parity: head[7], stored_len };
    check(&id, &[&header.encode(&id, payload), payload].concat().into());
});
