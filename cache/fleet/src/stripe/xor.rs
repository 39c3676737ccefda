//! Parity by exclusive or: the code of stripes with one parity shard (ATC'23 section 5).
//!
//! The loop is a function of its own on two slices of equal length, checked once before it,
//! so that the compiler turns it into vector instructions; `benches/stripe.rs` measures that
//! it has, against a loop of single bytes.

/// Bytes of all shards that are joined before going on: the sum stays in the first-level
/// cache instead of being written out and read again for every shard.
const BLOCK: usize = 8 * 1024;

/// Adds (exclusive or) `source` to `target`.
///
/// # Panics
/// If they differ in length.
#[inline(never)]
pub fn xor_into(target: &mut [u8], source: &[u8]) {
    assert_eq!(target.len(), source.len(), "shards of one stripe are equally long");
    for (sum, byte) in target.iter_mut().zip(source) {
        *sum ^= byte;
    }
}

/// Appends the sum of the shards to `out`; nothing if there are none.
///
/// # Panics
/// If the shards differ in length.
pub fn append_sum<T: AsRef<[u8]>>(out: &mut Vec<u8>, shards: &[T]) {
    let Some((first, others)) = shards.split_first() else { return };
    let len = first.as_ref().len();
    assert!(others.iter().all(|shard| shard.as_ref().len() == len), "shards of one stripe are equally long");
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        let sum = out.len();
        out.extend_from_slice(&first.as_ref()[block.clone()]);
        for shard in others {
            xor_into(&mut out[sum..], &shard.as_ref()[block.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_a_loop_of_bytes(
            shards in (0_usize..20_000).prop_flat_map(|len| {
                prop::collection::vec(prop::collection::vec(any::<u8>(), len), 1..7)
            })
        ) {
            let mut expected = Vec::new();
            for at in 0..shards[0].len() {
                expected.push(shards.iter().fold(0, |sum, shard| sum ^ shard[at]));
            }
            let mut sum = vec![7];
            append_sum(&mut sum, &shards);
            prop_assert_eq!(&sum[1..], &expected);
        }
    }

    #[test]
    fn no_shards_have_no_sum() {
        let mut sum = Vec::new();
        append_sum::<&[u8]>(&mut sum, &[]);
        assert!(sum.is_empty());
    }
}
