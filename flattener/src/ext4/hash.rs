//! The directory hash: half MD4 over unsigned bytes, seeded, as the kernel and e2fsck
//! compute it. The seed is a constant of the layout policy.

use super::HASH_SEED;

/// The hash that means "end of directory" to readers; never given to a name.
const END_OF_DIRECTORY: u32 = 0x7fff_ffff << 1;

/// Hash of a name. Bit 0 is always clear: index entries use it for collisions.
pub(super) fn directory_hash(name: &[u8]) -> u32 {
    let mut state = HASH_SEED;
    let mut rest = name;
    while !rest.is_empty() {
        half_md4(&mut state, &words(rest));
        rest = rest.get(32..).unwrap_or(&[]);
    }
    let hash = state[1] & !1;
    if hash == END_OF_DIRECTORY { END_OF_DIRECTORY - 2 } else { hash }
}

/// Up to 32 bytes as eight words, first byte highest; what is missing is filled with the
/// length of what is left.
fn words(name: &[u8]) -> [u32; 8] {
    let length = u32::try_from(name.len()).expect("a name has at most 255 bytes");
    let pad = length | length << 8;
    let pad = pad | pad << 16;
    let name = &name[..name.len().min(32)];
    let mut out = [pad; 8];
    let mut groups = name.chunks(4);
    for (word, group) in out.iter_mut().zip(&mut groups) {
        *word = group.iter().fold(pad, |value, &byte| u32::from(byte).wrapping_add(value << 8));
    }
    out
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    const K2: u32 = 0x5a82_7999;
    const K3: u32 = 0x6ed9_eba1;
    const ORDER: [[usize; 8]; 3] =
        [[0, 1, 2, 3, 4, 5, 6, 7], [1, 3, 5, 7, 0, 2, 4, 6], [3, 7, 2, 6, 1, 5, 0, 4]];
    const SHIFT: [[u32; 4]; 3] = [[3, 7, 11, 19], [3, 5, 9, 13], [3, 9, 11, 15]];
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let [mut a, mut b, mut c, mut d] = *state;
    for round in 0..3 {
        for step in 0..8 {
            let mixed = match round {
                0 => f(b, c, d),
                1 => g(b, c, d).wrapping_add(K2),
                _ => h(b, c, d).wrapping_add(K3),
            };
            let turned = a
                .wrapping_add(mixed)
                .wrapping_add(input[ORDER[round][step]])
                .rotate_left(SHIFT[round][step % 4]);
            (a, b, c, d) = (d, turned, b, c);
        }
    }
    for (value, add) in state.iter_mut().zip([a, b, c, d]) {
        *value = value.wrapping_add(add);
    }
}
