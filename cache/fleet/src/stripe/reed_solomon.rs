//! Stripes with two or more parity shards: Reed-Solomon over GF(2^8).
//!
//! Normative: the bytes at one place of all shards are the values of a polynomial of degree
//! below `k` at the points 0, 1, 2 and so on, a shard's index being its point; the field is
//! that of x^8 + x^4 + x^3 + x^2 + 1. So any `k` shards give every other one, with Lagrange's
//! coefficients. It is the code of the crate `reed-solomon-erasure`, which the tests hold
//! this one to, byte for byte.
//!
//! A shard times a coefficient takes shifts and exclusive ors only, so that safe code is made
//! of vector instructions by the compiler; reading several times as fast as from tables is
//! worth it because with `m` ≥ 2 most reads decode (`docs/decisions/0009-stripes.md`).
//!
//! Invariant of the callers: shards are equally long.

use super::xor::xor_into;
use bytes::Bytes;
use std::ops::Range;

/// The field's polynomial without x^8.
const POLYNOMIAL: u8 = 0x1d;
/// Bytes of every shard that are worked on before going on: they stay in the first-level cache.
const BLOCK: usize = 2 * 1024;

/// The element times x.
const fn double(element: u8) -> u8 {
    (element << 1) ^ if element & 0x80 == 0 { 0 } else { POLYNOMIAL }
}

/// The product of two elements; only for coefficients, a handful per chunk.
const fn product(a: u8, b: u8) -> u8 {
    let mut sum = 0;
    let mut bit = 8;
    while bit > 0 {
        bit -= 1;
        sum = double(sum);
        if b >> bit & 1 == 1 {
            sum ^= a;
        }
    }
    sum
}

/// The inverse of an element other than 0 (of which it is 0): its 254th power.
const fn inverse(element: u8) -> u8 {
    let mut power = 1;
    let mut step = 0;
    while step < 254 {
        power = product(power, element);
        step += 1;
    }
    power
}

/// What each of the values at `points` counts for in the value at `target`: Lagrange's
/// coefficients. The points are distinct.
fn coefficients(points: &[u8], target: u8) -> Vec<u8> {
    let coefficient = |&point: &u8| {
        let others = points.iter().filter(|&&other| other != point);
        let (above, below) = others.fold((1, 1), |(above, below), &other| {
            (product(above, target ^ other), product(below, point ^ other))
        });
        product(above, inverse(below))
    };
    points.iter().map(coefficient).collect()
}

/// Appends the shard at index `target` to `out`, from `k` others and their indices.
pub(super) fn append_shard(out: &mut Vec<u8>, known: &[(u8, &Bytes)], target: u8) {
    let points: Vec<u8> = known.iter().map(|&(index, _)| index).collect();
    let coefficients = coefficients(&points, target);
    // of each bit of a coefficient, the highest first, the shards that it is set for
    let with_bit = |bit: usize| -> Vec<&[u8]> {
        let set = known.iter().zip(&coefficients).filter(move |(_, of)| *of >> bit & 1 == 1);
        set.map(|((_, shard), _)| shard.as_ref()).collect()
    };
    let bits: Vec<Vec<&[u8]>> = (0..8).rev().map(with_bit).collect();
    let len = known.first().map_or(0, |(_, shard)| shard.len());
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        let sum = out.len();
        out.resize(sum + block.len(), 0);
        for shards in &bits {
            add_bit(&mut out[sum..], shards, block.clone());
        }
    }
}

/// Doubles the sum and adds this block of the shards: one step for one bit.
fn add_bit(sum: &mut [u8], shards: &[&[u8]], block: Range<usize>) {
    fn cut<'a>(shard: &'a [u8], block: &Range<usize>) -> &'a [u8] {
        &shard[block.clone()]
    }
    match *shards {
        [] => double_and_add(sum, []),
        [a] => double_and_add(sum, [cut(a, &block)]),
        [a, b] => double_and_add(sum, [cut(a, &block), cut(b, &block)]),
        [a, b, c] => double_and_add(sum, [cut(a, &block), cut(b, &block), cut(c, &block)]),
        [a, b, c, d, ref others @ ..] => {
            double_and_add(sum, [cut(a, &block), cut(b, &block), cut(c, &block), cut(d, &block)]);
            others.iter().for_each(|shard| xor_into(sum, cut(shard, &block)));
        }
    }
}

/// Doubles the sum and adds `N` shards in one pass, which the compiler vectorises: lengths
/// are made equal before the loop.
#[inline(never)]
fn double_and_add<const N: usize>(sum: &mut [u8], shards: [&[u8]; N]) {
    let len = sum.len();
    let shards = shards.map(|shard| &shard[..len]);
    for at in 0..len {
        sum[at] = shards.iter().fold(double(sum[at]), |sum, shard| sum ^ shard[at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_one() {
        for a in 1..=255 {
            assert_eq!(product(a, inverse(a)), 1, "{a}");
            assert_eq!(product(a, 2), double(a));
            assert_eq!(product(a, 7), a ^ product(a, 6));
        }
    }
}
