//! CRC-32C as ext4 uses it (no final inversion), and little-endian fields in byte arrays.

use super::CHECKSUM_SEED;

/// Continues a checksum over more bytes.
pub(super) fn crc(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}

/// What the checksums of an inode's own structures start from. Generations are all 0.
pub(super) fn inode_seed(ino: u32) -> u32 {
    crc(crc(CHECKSUM_SEED, &ino.to_le_bytes()), &[0; 4])
}

/// The lower and upper half, for the fields that split a checksum.
pub(super) fn halves(value: u32) -> ([u8; 2], [u8; 2]) {
    let [a, b, c, d] = value.to_le_bytes();
    ([a, b], [c, d])
}

/// The lower and upper word of a block number or size.
pub(super) fn words(value: u64) -> ([u8; 4], [u8; 4]) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    ([a, b, c, d], [e, f, g, h])
}

/// Writes a field, already in its little-endian form.
pub(super) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_castagnoli_without_the_last_inversion() {
        // the check value of CRC-32C is e3069283
        assert_eq!(crc(!0, b"123456789"), !0xe306_9283);
        assert_eq!(crc(crc(!0, b"1234"), b"56789"), crc(!0, b"123456789"));
    }
}
