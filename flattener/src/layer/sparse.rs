//! Sparse files in archives: where the stored bytes belong in the file.
//!
//! Four spellings (old GNU, and GNU's PAX 0.0, 0.1 and 1.0) become one checked
//! [`SparseMap`]. Invariants: runs ascend, do not overlap, lie inside the file, and their
//! lengths add up to exactly what the archive stores.

use super::archive::{Archive, BLOCK_BYTES, Block};
use super::error::Fault;
use super::header;
use super::pax::{self, SparseKeys};
use super::spool::to_u64;

/// Most runs one file may have; each costs 16 bytes while the file is read. GNU tar makes
/// one per run of data, so only a file with a million holes has more.
const RUNS_MAX: usize = 1 << 20;

const TOO_MANY: Fault = Fault::Limit { what: "runs in one sparse file", limit: 1 << 20, setting: "(fixed)" };

/// Where the stored bytes of a sparse file belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// Logical size of the file.
    pub(super) size: u64,
    /// (offset in the file, length) of each run, in the order they are stored.
    pub(super) runs: Vec<(u64, u64)>,
}

impl SparseMap {
    /// Checks raw runs against the file's size and the bytes stored for it.
    fn new(size: u64, runs: Vec<(u64, u64)>, stored: u64) -> Result<Self, Fault> {
        let (mut end, mut total) = (0_u64, 0_u64);
        for &(offset, length) in &runs {
            if offset < end {
                return Err(Fault::Sparse("runs overlap or are out of order"));
            }
            end = offset.checked_add(length).ok_or(Fault::Sparse("a run ends past 2^64"))?;
            // No overflow: the runs lie in disjoint ranges below `end`.
            total += length;
        }
        if end > size {
            return Err(Fault::Sparse("a run ends past the end of the file"));
        }
        if total != stored {
            return Err(Fault::Sparse("the runs do not add up to the bytes stored"));
        }
        Ok(Self { size, runs })
    }

    /// The map of an old GNU sparse entry; its continuation blocks are read from `archive`.
    pub(super) fn old_gnu(block: &Block, stored: u64, archive: &mut Archive<'_>) -> Result<Self, Fault> {
        const BAD: Fault = Fault::Sparse("an offset or length is not a number");
        let size = header::number(&block[483..495]).and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or(Fault::Sparse("the real size is not a number"))?;
        let mut runs = header::sparse_slots(block, 386, 4).ok_or(BAD)?;
        let mut extended = block[482] != 0;
        while extended {
            let offset = archive.offset();
            let what = "a sparse map";
            let more = archive.block(what)?.ok_or(Fault::Truncated { what, offset })?;
            runs.extend(header::sparse_slots(&more, 0, 21).ok_or(BAD)?);
            if runs.len() > RUNS_MAX {
                return Err(TOO_MANY);
            }
            extended = more[504] != 0;
        }
        Self::new(size, runs, stored)
    }

    /// The map that PAX keys describe, if they do. `stored` counts the bytes in the archive;
    /// version 1.0 keeps the map before the data and `stored` is lowered by it.
    pub(super) fn pax(
        keys: &SparseKeys,
        stored: &mut u64,
        archive: &mut Archive<'_>,
    ) -> Result<Option<Self>, Fault> {
        let inline = match (keys.major, keys.minor) {
            (Some(1), Some(0)) => true,
            (None, None) | (Some(0), Some(0 | 1)) if keys.map.is_some() => false,
            (None, None) => return Ok(None),
            _ => return Err(Fault::Sparse("its version is unknown")),
        };
        let size = keys.real_size.ok_or(Fault::Sparse("the real size is missing"))?;
        let flat = if inline { read_inline(stored, archive)? } else { keys.map.clone().unwrap_or_default() };
        if !flat.len().is_multiple_of(2) {
            return Err(Fault::Sparse("an offset has no length"));
        }
        if flat.len() / 2 > RUNS_MAX {
            return Err(TOO_MANY);
        }
        let runs = flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Self::new(size, runs, *stored).map(Some)
    }
}

/// Reads the map of version 1.0: decimal numbers, one a line, the count of runs first,
/// padded to a block.
fn read_inline(stored: &mut u64, archive: &mut Archive<'_>) -> Result<Vec<u64>, Fault> {
    const BAD: Fault = Fault::Sparse("the map before the data is not made of numbers");
    let mut numbers = Vec::new();
    let mut line: Vec<u8> = Vec::new();
    let mut due: Option<usize> = None;
    while due.is_none_or(|due| numbers.len() < due) {
        *stored = stored
            .checked_sub(to_u64(BLOCK_BYTES))
            .ok_or(Fault::Sparse("the map before the data is longer than the data"))?;
        let offset = archive.offset();
        let what = "a sparse map";
        let block = archive.block(what)?.ok_or(Fault::Truncated { what, offset })?;
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(BAD);
                }
                continue;
            }
            let number = pax::decimal(&line).ok_or(BAD)?;
            line.clear();
            if due.is_some() {
                numbers.push(number);
            } else {
                let runs = usize::try_from(number).ok().filter(|&runs| runs <= RUNS_MAX).ok_or(TOO_MANY)?;
                due = Some(runs * 2);
            }
            if due == Some(numbers.len()) {
                return Ok(numbers);
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_lie_are_refused() {
        for (size, runs, stored, good) in [
            (10, vec![], 0, true),
            (10, vec![(0, 10)], 10, true),
            (10, vec![(0, 2), (4, 2), (10, 0)], 4, true),
            (10, vec![(0, 4), (3, 2)], 6, false),
            (10, vec![(4, 2), (0, 2)], 4, false),
            (10, vec![(8, 4)], 4, false),
            (10, vec![(0, 4)], 5, false),
            (10, vec![(0, 4)], 3, false),
            (u64::MAX, vec![(u64::MAX, 1)], 1, false),
        ] {
            assert_eq!(SparseMap::new(size, runs.clone(), stored).is_ok(), good, "{size} {runs:?} {stored}");
        }
    }
}
