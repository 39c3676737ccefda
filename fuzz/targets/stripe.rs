//! Stripes: any set of shards that a network may give is decoded or refused, and any `k` of a
//! chunk's shards give the chunk back.

#![no_main]

use bytes::Bytes;
use fleet::stripe::{Code, MAX_DATA, MAX_PARITY};
use libfuzzer_sys::fuzz_target;

/// Shards cut from the input: an index, a byte that says whether the length is right, bytes.
fn hostile(code: Code, stored_len: u32, bytes: &Bytes) {
    let (mut shards, mut rest) = (Vec::new(), bytes.clone());
    while rest.len() > 2 && shards.len() < 40 {
        let (index, kind) = (rest[0], rest[1]);
        rest = rest.slice(2..);
        let right = code.shard_len(stored_len) as usize;
        let take = if kind < 200 { right } else { usize::from(kind) - 200 };
        if take > rest.len() {
            // as long as it should be, of whatever there is
            let mut padded = rest.to_vec();
            padded.resize(right.min(1 << 16), kind);
            shards.push((index, padded.into()));
            rest = Bytes::new();
        } else {
            shards.push((index, rest.split_to(take)));
        }
    }
    if let Ok(chunk) = code.decode(stored_len, &shards) {
        assert_eq!(chunk.len(), stored_len as usize);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[data_shards, parity, lost @ ..], chunk)) = data.split_first_chunk::<6>() else { return };
    let chunk = Bytes::copy_from_slice(chunk);
    let Ok(code) = Code::new(data_shards, parity) else {
        assert!(data_shards == 0 || data_shards > MAX_DATA || parity > MAX_PARITY);
        return;
    };
    let lost = u32::from_le_bytes(lost);
    hostile(code, lost, &chunk);
    hostile(code, lost % 4096, &chunk);

    let length = u32::try_from(chunk.len()).expect("an input of that length");
    let shards: Vec<(u8, Bytes)> = (0..code.width()).zip(code.encode(&chunk)).collect();
    assert_eq!(shards.len(), usize::from(code.width()));
    for (index, shard) in &shards {
        assert_eq!(shard.len(), code.shard_len(length) as usize);
        assert_eq!(code.rebuild(length, &chunk, *index), shard);
    }
    // As many as may be, of those whose bit is set; begin at an end that the input picks.
    let mut kept = shards;
    for index in (0..code.width()).rev() {
        if kept.len() > usize::from(code.data()) && lost >> index & 1 == 1 {
            kept.retain(|(of, _)| *of != index);
        }
    }
    if lost >> 31 == 1 {
        kept.reverse();
    }
    assert_eq!(code.decode(length, &kept).expect("enough shards"), chunk);
    kept.truncate(usize::from(code.data()));
    assert_eq!(code.decode(length, &kept).expect("just enough shards"), chunk);
    kept.pop();
    assert!(code.decode(length, &kept).is_err());
});
