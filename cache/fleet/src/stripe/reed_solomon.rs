//! Stripes with two or more parity shards: Reed-Solomon over GF(2^16), by `reed-solomon-simd`.
//!
//! Normative for such stripes is that library's code (the Leopard code, in its order of
//! original and recovery shards); its golden bytes are in the tests. Invariants of the callers: the counts
//! are those of a [`Code`](super::Code), every shard has the same length, a multiple of 64
//! above zero, so that the library has nothing to refuse.

use bytes::Bytes;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

const CHECKED: &str = "a code's counts are supported, shards are distinct and of one even length";

/// The parity shards of these data shards, each of `len` bytes.
pub(super) fn parity(data: &[Bytes], parity: usize, len: usize) -> Vec<Bytes> {
    let mut encoder = ReedSolomonEncoder::new(data.len(), parity, len).expect(CHECKED);
    for shard in data {
        encoder.add_original_shard(shard).expect(CHECKED);
    }
    let result = encoder.encode().expect(CHECKED);
    result.recovery_iter().map(Bytes::copy_from_slice).collect()
}

/// All data shards of `len` bytes one after another, from `data` with gaps and enough of
/// `parity` to fill them; each slice holds what there is at its index.
pub(super) fn restore(data: &[Option<&Bytes>], parity: &[Option<&Bytes>], len: usize) -> Vec<u8> {
    let mut decoder = ReedSolomonDecoder::new(data.len(), parity.len(), len).expect(CHECKED);
    for (index, shard) in data.iter().enumerate() {
        if let Some(shard) = shard {
            decoder.add_original_shard(index, shard).expect(CHECKED);
        }
    }
    for (index, shard) in parity.iter().enumerate() {
        if let Some(shard) = shard {
            decoder.add_recovery_shard(index, shard).expect(CHECKED);
        }
    }
    let result = decoder.decode().expect(CHECKED);
    let mut joined = Vec::with_capacity(data.len() * len);
    for (index, shard) in data.iter().enumerate() {
        let shard = shard.map(AsRef::as_ref).or_else(|| result.restored_original(index));
        joined.extend_from_slice(shard.expect(CHECKED));
    }
    joined
}
