//! One tar header block: v7, ustar, star and GNU, decoded as every container engine does.
//!
//! Pure functions on 512 bytes. Fields that this crate has no use for (names of owners,
//! access times) are not decoded, so damage in them is not noticed, as intended.

use super::archive::{BLOCK_BYTES, Block};
use super::error::Fault;

/// Which dialect a header block speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The fields of a header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) dialect: Dialect,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) typeflag: u8,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
}

/// What a block is when a header is due.
#[derive(Debug)]
pub(super) enum Decoded {
    /// All zeros: half of an end marker.
    Zero,
    Header(Header),
}

/// Decodes a block that stands at `offset` of the archive.
pub(super) fn decode(block: &Block, offset: u64) -> Result<Decoded, Fault> {
    if block.iter().all(|&b| b == 0) {
        return Ok(Decoded::Zero);
    }
    let invalid = |reason| Fault::Header { offset, reason };
    if !checksum_matches(block) {
        return Err(invalid("the checksum is wrong; this is not a tar archive or it is damaged"));
    }
    let dialect = dialect(block);
    let field =
        |at: usize, length: usize, reason| number(&block[at..at + length]).ok_or_else(|| invalid(reason));
    let typeflag = block[156];
    let size = field(124, 12, "the size is not a number")?;
    let size = u64::try_from(size).map_err(|_| invalid("the size is negative"))?;
    let device = matches!(typeflag, b'3' | b'4') && dialect != Dialect::V7;
    let (major, minor) = if device {
        (
            field(329, 8, "the major number is not a number")?,
            field(337, 8, "the minor number is not a number")?,
        )
    } else {
        (0, 0)
    };
    Ok(Decoded::Header(Header {
        dialect,
        name: name(block, dialect),
        link: text(&block[157..257]).to_vec(),
        typeflag,
        mode: field(100, 8, "the mode is not a number")?,
        uid: field(108, 8, "the uid is not a number")?,
        gid: field(116, 8, "the gid is not a number")?,
        size,
        mtime: field(136, 12, "the modification time is not a number")?,
        major,
        minor,
    }))
}

/// Whether a block could be a header or part of an end marker, rather than data.
pub(super) fn plausible(block: &Block) -> bool {
    block.iter().all(|&b| b == 0) || checksum_matches(block)
}

fn dialect(block: &Block) -> Dialect {
    match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Dialect::Star,
        (b"ustar\0", _, _) => Dialect::Ustar,
        (b"ustar ", b" \0", _) => Dialect::Gnu,
        _ => Dialect::V7,
    }
}

fn name(block: &Block, dialect: Dialect) -> Vec<u8> {
    let name = text(&block[..100]);
    let prefix = match dialect {
        Dialect::Ustar => text(&block[345..500]),
        Dialect::Star => text(&block[345..476]),
        // Writers in Go before 1.8, which made many old images, put a prefix where GNU tar
        // has two times; it is one where these are not numbers.
        Dialect::Gnu => {
            let time = |at: usize| block[at] == 0 || number(&block[at..at + 12]).is_some();
            let prefix = text(&block[345..500]);
            if time(345) && time(357) || !prefix.is_ascii() { &[] } else { prefix }
        }
        Dialect::V7 => &[],
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// A text field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits among spaces and NULs (empty is 0), or two's complement
/// base 256 when the first bit is set. `None` when it is neither or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let flip = if negative { 0xff } else { 0 };
    let mut value: u64 = 0;
    for (at, &byte) in field.iter().enumerate() {
        let byte = if at == 0 { (byte ^ flip) & 0x7f } else { byte ^ flip };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|&b| b != b' ' && b != 0).unwrap_or(field.len());
    let digits = text(&field[start..]).trim_ascii_end();
    let mut value: i64 = 0;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// Sums the block with the checksum field as spaces, as unsigned bytes and, as some old
/// tars did, as signed ones.
fn checksum_matches(block: &Block) -> bool {
    let Some(stored) = octal(&block[148..156]) else { return false };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    stored == unsigned || stored == signed
}

/// The (offset, length) pairs of an old GNU sparse header or extension: `count` slots of
/// two 12-byte numbers from `at` on, up to the first empty one.
pub(super) fn sparse_slots(block: &Block, at: usize, count: usize) -> Option<Vec<(u64, u64)>> {
    debug_assert!(at + count * 24 <= BLOCK_BYTES, "the slots lie inside the block");
    let mut pairs = Vec::with_capacity(count);
    for slot in block[at..at + count * 24].chunks_exact(24) {
        if slot[0] == 0 {
            break;
        }
        let offset = u64::try_from(number(&slot[..12])?).ok()?;
        let length = u64::try_from(number(&slot[12..])?).ok()?;
        pairs.push((offset, length));
    }
    Some(pairs)
}
