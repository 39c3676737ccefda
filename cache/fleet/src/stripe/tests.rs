//! Any `k` of `k + m` shards give the chunk; whatever else comes in is an error. The crate
//! `reed-solomon-erasure` is the oracle: from two parity shards on, its stripes are ours.

use super::*;
use proptest::prelude::*;
use reed_solomon_erasure::galois_8::ReedSolomon;

/// Bytes without a pattern (SplitMix64).
fn noise(len: usize, mut state: u64) -> Bytes {
    let word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(len).collect()
}

fn len(sealed: &Bytes) -> u32 {
    u32::try_from(sealed.len()).unwrap()
}

fn stripe(code: Code, sealed: &Bytes) -> Vec<(u8, Bytes)> {
    (0..).zip(code.encode(sealed)).collect()
}

fn only(stripe: &[(u8, Bytes)], subset: u32) -> Vec<(u8, Bytes)> {
    stripe.iter().filter(|(index, _)| subset >> index & 1 == 1).cloned().collect()
}

/// Every code that is small enough to try all subsets of.
fn small_codes() -> impl Iterator<Item = Code> {
    (1..=6).flat_map(|data| (0..=4).map(move |parity| Code::new(data, parity).unwrap()))
}

#[test]
fn every_small_code_decodes_from_every_subset() {
    for code in small_codes() {
        for bytes in [1, 63, 64, 65, 1000, 4096] {
            let sealed = noise(bytes, 1);
            let stripe = stripe(code, &sealed);
            for subset in 0..1_u32 << code.width() {
                let shards = only(&stripe, subset);
                let decoded = code.decode(len(&sealed), &shards);
                if subset.count_ones() >= u32::from(code.data()) {
                    assert_eq!(decoded.unwrap(), sealed, "{code}, {bytes} bytes, subset {subset:b}");
                } else {
                    let have = shards.len();
                    assert_eq!(decoded.unwrap_err(), DecodeError::TooFew { have, need: code.data() });
                }
            }
        }
    }
}

#[test]
fn the_largest_codes_decode_without_as_many_data_shards_as_there_is_parity() {
    for (data, parity) in [(16, 8), (16, 1), (1, 8), (8, 8), (15, 7), (2, 8)] {
        let code = Code::new(data, parity).unwrap();
        let sealed = noise(10_007, 2);
        let stripe = stripe(code, &sealed);
        let lost = usize::from(parity.min(data));
        assert_eq!(code.decode(len(&sealed), &stripe[lost..]).unwrap(), sealed, "{code}");
        let mut reversed = stripe[usize::from(parity)..].to_vec();
        reversed.reverse();
        assert_eq!(code.decode(len(&sealed), &reversed).unwrap(), sealed, "{code}");
    }
}

#[test]
fn every_length_up_to_3000_and_a_whole_chunk() {
    let codes = [(4, 1), (4, 2), (3, 1), (1, 1), (2, 0)].map(|(k, m)| Code::new(k, m).unwrap());
    for bytes in (0..=3000).chain([512 * 1024 - 1, 512 * 1024, 512 * 1024 + 16]) {
        let sealed = noise(bytes, 3);
        for code in codes {
            let stripe = stripe(code, &sealed);
            let expected = code.shard_len(len(&sealed)) as usize;
            assert!(stripe.iter().all(|(_, shard)| shard.len() == expected));
            let lost = usize::from(code.parity());
            assert_eq!(code.decode(len(&sealed), &stripe[lost..]).unwrap(), sealed, "{code}, {bytes} bytes");
            assert_eq!(code.decode(len(&sealed), &stripe).unwrap(), sealed, "{code}, {bytes} bytes");
        }
    }
}

#[test]
fn rebuilt_shards_are_the_encoded_ones() {
    for code in small_codes() {
        for bytes in [0, 1, 700, 70_000] {
            let sealed = noise(bytes, 4);
            for (index, shard) in stripe(code, &sealed) {
                assert_eq!(code.rebuild(len(&sealed), &sealed, index), shard, "{code}, shard {index}");
            }
            assert!(code.rebuild(len(&sealed), &sealed, code.width()).is_empty());
        }
    }
}

#[test]
fn shard_lengths() {
    let code = Code::PUBLISHED;
    for (stored, shard) in [(0, 0), (1, 64), (256, 64), (257, 128), (524_288, 131_072), (524_289, 131_136)] {
        assert_eq!(code.shard_len(stored), shard);
    }
    assert_eq!(Code::new(1, 0).unwrap().shard_len(u32::MAX), u32::MAX);
    assert!(Code::new(0, 1).is_err() && Code::new(17, 1).is_err() && Code::new(4, 9).is_err());
    assert_eq!(code.to_string(), "4+1");
}

#[test]
fn whole_data_shards_are_not_copied() {
    let sealed = noise(1000, 5);
    let shards = Code::PUBLISHED.encode(&sealed);
    for (index, shard) in shards.iter().take(3).enumerate() {
        assert_eq!(shard.as_ptr(), sealed[index * 256..].as_ptr());
    }
    assert_eq!(shards[3][1000 - 768..], [0; 24]);
    let whole = Code::new(1, 2).unwrap();
    let stripe = stripe(whole, &sealed);
    assert_eq!(whole.decode(1000, &stripe[..1]).unwrap().as_ptr(), stripe[0].1.as_ptr());
}

#[test]
fn what_is_no_stripe_is_named() {
    let code = Code::PUBLISHED;
    let sealed = noise(1000, 6);
    let stripe = stripe(code, &sealed);
    let decode = |shards: &[(u8, Bytes)]| code.decode(1000, shards).unwrap_err();
    assert_eq!(decode(&stripe[..3]), DecodeError::TooFew { have: 3, need: 4 });
    let mut bad = stripe.clone();
    bad[2].0 = 5;
    assert_eq!(decode(&bad), DecodeError::Index { index: 5, width: 5 });
    bad[2].0 = 1;
    assert_eq!(decode(&bad), DecodeError::Twice { index: 1 });
    bad = stripe;
    bad[3].1.truncate(255);
    assert_eq!(decode(&bad), DecodeError::Length { index: 3, len: 255, expected: 256 });
    assert_eq!(
        code.decode(1025, &bad).unwrap_err(),
        DecodeError::Length { index: 0, len: 256, expected: 320 }
    );
}

/// Here the oracle is a loop of single bytes: the crate's parity is another one for most `k`.
#[test]
fn one_parity_shard_is_the_sum_of_single_bytes() {
    for k in 1..=MAX_DATA {
        let code = Code::new(k, 1).unwrap();
        let shards = code.encode(&noise(9000, 7));
        let (sum, data) = shards.split_last().unwrap();
        let bytes = (0..sum.len()).map(|at| data.iter().fold(0, |sum, shard| sum ^ shard[at]));
        assert_eq!(*sum, bytes.collect::<Vec<u8>>(), "{code}");
        let mut theirs: Vec<Vec<u8>> = shards.iter().map(|shard| shard.to_vec()).collect();
        ReedSolomon::new(usize::from(k), 1).unwrap().encode(&mut theirs).unwrap();
        assert_eq!(shards == theirs, [1, 3, 7, 15].contains(&k), "{code}");
    }
}

#[test]
fn more_parity_shards_are_the_oracles() {
    for (data, parity) in (1..=MAX_DATA).flat_map(|data| (2..=MAX_PARITY).map(move |parity| (data, parity))) {
        let code = Code::new(data, parity).unwrap();
        let ours = code.encode(&noise(9000, 7));
        let mut theirs: Vec<Vec<u8>> = ours.iter().map(|shard| shard.to_vec()).collect();
        for shard in &mut theirs[usize::from(data)..] {
            shard.fill(0);
        }
        ReedSolomon::new(usize::from(data), usize::from(parity)).unwrap().encode(&mut theirs).unwrap();
        assert!(ours == theirs, "{code}");
    }
}

#[test]
fn golden_bytes() {
    let digest = |data, parity| {
        let code = Code::new(data, parity).unwrap();
        image_format::ids::ChunkId::of(&code.encode(&noise(100_000, 8)).concat()).to_string()
    };
    assert_eq!(digest(4, 1), "9ec3f9656e1c15ffb4d2dd8f1cedfb66555deca7a09fe59ae3eb15b26154574a");
    assert_eq!(digest(4, 2), "38bc62fe3471b0f1c76981f8052cb56a27d11cf5b301a958d4af417eca1e4c12");
    assert_eq!(digest(10, 4), "264c0c1233630f713e2d40ade64cead22c861558bce72b10455ab4b305330e50");
}

/// A code, a chunk and a subset of shards large enough.
fn case() -> impl Strategy<Value = (Code, Bytes, Vec<u8>)> {
    let code = (1..=MAX_DATA, 0..=MAX_PARITY).prop_map(|(k, m)| Code::new(k, m).unwrap());
    code.prop_flat_map(|code| {
        let order = Just((0..code.width()).collect::<Vec<u8>>()).prop_shuffle();
        let chunk = (0_usize..6000, any::<u64>()).prop_map(|(len, seed)| noise(len, seed));
        (Just(code), chunk, order, code.data()..=code.width()).prop_map(|(code, chunk, mut order, kept)| {
            order.truncate(usize::from(kept));
            (code, chunk, order)
        })
    })
}

proptest! {
    #[test]
    fn any_large_enough_subset_decodes((code, sealed, kept) in case()) {
        let encoded = code.encode(&sealed);
        let shards: Vec<(u8, Bytes)> = kept.iter().map(|&i| (i, encoded[usize::from(i)].clone())).collect();
        prop_assert_eq!(code.decode(len(&sealed), &shards).unwrap(), sealed);
    }

    /// The same data through the oracle, with the same shards lost, comes back the same.
    #[test]
    fn the_oracle_decodes_the_same((code, sealed, kept) in case()) {
        prop_assume!(code.parity() > 0 && !sealed.is_empty());
        let (k, m) = (usize::from(code.data()), usize::from(code.parity()));
        let encoded = code.encode(&sealed);
        let oracle = ReedSolomon::new(k, m).unwrap();
        let mut theirs: Vec<Vec<u8>> = encoded.iter().map(|shard| shard.to_vec()).collect();
        oracle.encode(&mut theirs).unwrap();
        let held = |index: usize| kept.contains(&u8::try_from(index).unwrap());
        let mut theirs: Vec<Option<Vec<u8>>> =
            theirs.into_iter().enumerate().map(|(i, shard)| held(i).then_some(shard)).collect();
        oracle.reconstruct_data(&mut theirs).unwrap();
        let shards: Vec<(u8, Bytes)> = kept.iter().map(|&i| (i, encoded[usize::from(i)].clone())).collect();
        let ours = code.decode(len(&sealed), &shards).unwrap();
        let mut joined: Vec<u8> = theirs.into_iter().take(k).flat_map(Option::unwrap).collect();
        joined.truncate(sealed.len());
        prop_assert_eq!(ours, joined);
    }

    /// A flipped bit changes the result or nothing, a wrong length is refused, and neither
    /// stops anything.
    #[test]
    fn damage_never_panics(
        (code, sealed, kept) in case(),
        victim in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        claimed in any::<u32>(),
    ) {
        let encoded = code.encode(&sealed);
        let mut shards: Vec<(u8, Bytes)> = kept.iter().map(|&i| (i, encoded[usize::from(i)].clone())).collect();
        prop_assert!(code.decode(claimed, &shards).is_err() || claimed < 16 * 6000);
        let victim = victim.index(shards.len());
        if shards[victim].1.is_empty() {
            return Ok(());
        }
        let mut flipped = shards[victim].1.to_vec();
        let bit = bit.index(flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        shards[victim].1 = flipped.into();
        prop_assert_eq!(code.decode(len(&sealed), &shards).unwrap().len(), sealed.len());
        let keep = cut.index(shards[victim].1.len());
        shards[victim].1.truncate(keep);
        let refused = matches!(code.decode(len(&sealed), &shards), Err(DecodeError::Length { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn arbitrary_shards_never_panic(
        code in (1..=MAX_DATA, 0..=MAX_PARITY),
        stored in 0_u32..2000,
        shards in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..30),
    ) {
        let code = Code::new(code.0, code.1).unwrap();
        let shards: Vec<(u8, Bytes)> = shards.into_iter().map(|(index, bytes)| (index, bytes.into())).collect();
        let _: Result<Bytes, DecodeError> = code.decode(stored, &shards);
    }
}
