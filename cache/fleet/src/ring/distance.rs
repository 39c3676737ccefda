//! How far a node is from a partition: the only source of order in placement. Normative:
//! clients that differ here look for chunks in different places.

/// The finaliser of SplitMix64: every bit of the result depends on every bit of `z`.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A node's part of its distances: [`mix`] of the 64-bit FNV-1a of its name. Normative.
pub(super) fn node_seed(name: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// A partition's part of its distances. Normative.
pub(super) fn partition_seed(partition: u32) -> u64 {
    mix((u64::from(partition) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Minus the natural logarithm of `u`, for `u` in (0, 1).
///
/// From additions, multiplications and one division of IEEE doubles, which give the same bits
/// on every machine; a library's `ln` need not. Off by less than 1e-12.
pub(super) fn minus_ln(u: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = u.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let mut m = f64::from_bits(bits & MANTISSA | 1.0_f64.to_bits());
    // within a factor of √2 of 1, where the series is short
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 1.0 / 11.0 + q * (1.0 / 13.0);
    let series = 1.0 / 7.0 + q * (1.0 / 9.0 + q * series);
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * series));
    -(exponent * std::f64::consts::LN_2 + 2.0 * s * series)
}

/// The uniform number in (0, 1) of a node and a partition: an odd multiple of 2^-53. Normative.
fn uniform(node_seed: u64, partition_seed: u64) -> f64 {
    let hash = mix(node_seed ^ partition_seed);
    f64::from_bits(hash >> 12 | 1.0_f64.to_bits()) - (1.0 - f64::EPSILON / 2.0)
}

/// How far a node is from a partition: minus the logarithm of their uniform number, divided
/// by the node's weight. Normative.
///
/// That is exponentially distributed with the weight as its rate, so a node is nearest to a
/// part of the partitions proportional to its weight, and other nodes' weights change nothing
/// (weighted rendezvous hashing). Returned as the bits of a double above zero, which sort as
/// the double does; equal distances are told apart by partition, then by the order of names.
pub(super) fn distance(node_seed: u64, weight: f64, partition_seed: u64) -> u64 {
    (minus_ln(uniform(node_seed, partition_seed)) / weight).to_bits()
}

/// The [`distance`] if it may be below `radius`; always if it is.
///
/// Most nodes are told to be farther without a logarithm: -ln(u) is never below 1 - u, by a
/// margin far above the rounding except where both are far below any radius used.
pub(super) fn distance_within(radius: f64, node_seed: u64, weight: f64, partition_seed: u64) -> Option<u64> {
    let u = uniform(node_seed, partition_seed);
    (1.0 - u < radius * weight).then(|| (minus_ln(u) / weight).to_bits())
}
