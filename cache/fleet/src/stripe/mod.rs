//! How a sealed chunk becomes a stripe of shards and back (ATC'23 section 4.1): `k` data and
//! `m` parity shards, of which any `k` give the chunk.
//!
//! Layout, normative: the chunk is cut into `k` data shards of [`Code::shard_len`] bytes, in
//! order, the end filled up with zeros; index `0..k` are the data, `k..k+m` the parity. With
//! one parity shard that is the exclusive or of the data ([`xor`]), with more it is
//! Reed-Solomon's (`reed_solomon.rs`). What stands in the padding is never looked at again.
//!
//! Nothing here tells a wrong shard from a right one: only the chunk's id does, once the
//! stripe is decoded. Shards come from the network, so any bytes, indices and lengths are
//! answered by an error, never by a panic.

mod reed_solomon;
pub mod xor;

use bytes::Bytes;
use std::fmt;

/// Most data shards of a stripe: every one is a request for each chunk read.
pub const MAX_DATA: u8 = 16;
/// Most parity shards of a stripe.
pub const MAX_PARITY: u8 = 8;
/// Every shard's length is a multiple of this many bytes: a cache line, the widest
/// vector, and what other Reed-Solomon codes ask for. Normative.
const SHARD_ALIGN: usize = 64;

/// Numbers of shards that make no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stripe has 1 to {MAX_DATA} data and 0 to {MAX_PARITY} parity shards, not {data} and {parity}")]
pub struct CodeError {
    /// Data shards asked for.
    pub data: u8,
    /// Parity shards asked for.
    pub parity: u8,
}

/// Shards that give no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer than the code's number of data shards.
    #[error("{have} shards of a stripe are too few, {need} are needed")]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many it takes.
        need: u8,
    },
    /// An index that the code does not have.
    #[error("shard {index} of a stripe of {width}")]
    Index {
        /// Which.
        index: u8,
        /// The code's width.
        width: u8,
    },
    /// One index twice.
    #[error("shard {index} is there twice")]
    Twice {
        /// Which.
        index: u8,
    },
    /// A shard of another length than the chunk's shards have.
    #[error("shard {index} has {len} bytes instead of {expected}")]
    Length {
        /// Which.
        index: u8,
        /// Its bytes.
        len: usize,
        /// The bytes of every shard of this chunk.
        expected: usize,
    },
}

/// How many data and parity shards a chunk is stored as. Prints as `4+1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    data: u8,
    parity: u8,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl Code {
    /// The published code: any 4 of 5, a quarter more storage and requests.
    pub const PUBLISHED: Self = Self { data: 4, parity: 1 };

    /// A code of so many data and parity shards.
    ///
    /// # Errors
    /// [`CodeError`] if there is no data shard or too many of either.
    pub fn new(data: u8, parity: u8) -> Result<Self, CodeError> {
        if (1..=MAX_DATA).contains(&data) && parity <= MAX_PARITY {
            Ok(Self { data, parity })
        } else {
            Err(CodeError { data, parity })
        }
    }

    /// Data shards: how many of the stripe's shards it takes to read the chunk.
    #[must_use]
    pub const fn data(&self) -> u8 {
        self.data
    }

    /// Parity shards: how many of the stripe's shards may be lost.
    #[must_use]
    pub const fn parity(&self) -> u8 {
        self.parity
    }

    /// All shards of a stripe.
    #[must_use]
    pub const fn width(&self) -> u8 {
        self.data + self.parity
    }

    fn k(self) -> usize {
        usize::from(self.data)
    }

    /// Bytes of each shard of a sealed chunk of `stored_len` bytes: its part, rounded up to a
    /// multiple of 64; 0 for an empty chunk. (At most `u32::MAX`, which no chunk comes near.)
    #[must_use]
    pub fn shard_len(&self, stored_len: u32) -> u32 {
        u32::try_from(self.shard_bytes(stored_len as usize)).unwrap_or(u32::MAX)
    }

    fn shard_bytes(self, stored_len: usize) -> usize {
        stored_len.div_ceil(self.k()).next_multiple_of(SHARD_ALIGN)
    }

    /// The stripe of a sealed chunk: [`Code::width`] shards in the order of their index.
    ///
    /// Data shards that lie wholly inside the chunk share its memory; at most the others and
    /// the parity are copies.
    #[must_use]
    pub fn encode(&self, sealed: &Bytes) -> Vec<Bytes> {
        let len = self.shard_bytes(sealed.len());
        let mut shards: Vec<Bytes> = (0..self.k()).map(|index| cut(sealed, index, len)).collect();
        let parity = self.parity_of(&shards, len);
        shards.extend(parity);
        shards
    }

    /// The parity shards of all data shards, each of `len` bytes.
    fn parity_of(self, data: &[Bytes], len: usize) -> Vec<Bytes> {
        match self.parity {
            0 => Vec::new(),
            parity if len == 0 => vec![Bytes::new(); usize::from(parity)],
            1 if self.data == 1 => data.to_vec(),
            1 => {
                let mut sum = Vec::with_capacity(len);
                xor::append_sum(&mut sum, data);
                vec![sum.into()]
            }
            _ => {
                let known: Vec<(u8, &Bytes)> = (0..).zip(data).collect();
                let shard = |index| {
                    let mut shard = Vec::with_capacity(len);
                    reed_solomon::append_shard(&mut shard, &known, index);
                    shard.into()
                };
                (self.data..self.width()).map(shard).collect()
            }
        }
    }

    /// The sealed chunk of `stored_len` bytes from any [`Code::data`] of its shards, given as
    /// index and payload in any order. Where there are more, data shards are used first.
    ///
    /// The result is the chunk only if its id says so.
    ///
    /// # Errors
    /// [`DecodeError`] if a shard cannot belong to such a stripe or there are too few.
    pub fn decode(&self, stored_len: u32, shards: &[(u8, Bytes)]) -> Result<Bytes, DecodeError> {
        let stored_len = stored_len as usize;
        let len = self.shard_bytes(stored_len);
        let found = self.sort(len, shards)?;
        let (data, parity) = found.split_at(self.k());
        let lost = data.iter().filter(|shard| shard.is_none()).count();
        if lost == 0 {
            return Ok(join(data, stored_len));
        }
        if len == 0 {
            return Ok(Bytes::new());
        }
        if let [Some(sum)] = parity {
            return Ok(restore_one(data, sum, stored_len));
        }
        Ok(self.restore(&found, len, stored_len))
    }

    /// Data shards one after another, the missing ones from the first `k` that there are.
    fn restore(self, found: &[Option<&Bytes>], len: usize, stored_len: usize) -> Bytes {
        let known = (0..).zip(found).filter_map(|(index, shard)| shard.map(|shard| (index, shard)));
        let known: Vec<(u8, &Bytes)> = known.take(self.k()).collect();
        let mut joined = Vec::with_capacity(self.k() * len);
        for (index, shard) in (0..self.data).zip(found) {
            match shard {
                Some(shard) => joined.extend_from_slice(shard),
                None => reed_solomon::append_shard(&mut joined, &known, index),
            }
        }
        joined.truncate(stored_len);
        joined.into()
    }

    /// The shards by their index, checked; at least as many as it takes.
    fn sort<'a>(&self, len: usize, shards: &'a [(u8, Bytes)]) -> Result<Vec<Option<&'a Bytes>>, DecodeError> {
        let mut found = vec![None; usize::from(self.width())];
        for (index, shard) in shards {
            let index = *index;
            let Some(slot) = found.get_mut(usize::from(index)) else {
                return Err(DecodeError::Index { index, width: self.width() });
            };
            if shard.len() != len {
                return Err(DecodeError::Length { index, len: shard.len(), expected: len });
            }
            if slot.replace(shard).is_some() {
                return Err(DecodeError::Twice { index });
            }
        }
        if shards.len() < self.k() {
            return Err(DecodeError::TooFew { have: shards.len(), need: self.data });
        }
        Ok(found)
    }

    /// One shard of a chunk again, from the whole chunk of `stored_len` bytes; empty for an
    /// index that the code does not have.
    #[must_use]
    pub fn rebuild(&self, stored_len: u32, sealed: &Bytes, index: u8) -> Bytes {
        let len = self.shard_bytes(stored_len as usize);
        if index < self.data {
            return cut(sealed, usize::from(index), len);
        }
        let data: Vec<Bytes> = (0..self.k()).map(|index| cut(sealed, index, len)).collect();
        let parity = self.parity_of(&data, len);
        parity.into_iter().nth(usize::from(index - self.data)).unwrap_or_default()
    }
}

/// The data shard at `index`, shared where it lies wholly inside the chunk.
fn cut(sealed: &Bytes, index: usize, len: usize) -> Bytes {
    let start = sealed.len().min(index.saturating_mul(len));
    let end = sealed.len().min(start.saturating_add(len));
    let inside = sealed.slice(start..end);
    if inside.len() == len {
        return inside;
    }
    let mut padded = vec![0; len];
    padded[..inside.len()].copy_from_slice(&inside);
    padded.into()
}

/// Data shards one after another, without the padding; shared if there is only one.
fn join(data: &[Option<&Bytes>], stored_len: usize) -> Bytes {
    if let [Some(whole)] = data {
        return whole.slice(..stored_len);
    }
    let mut joined = Vec::with_capacity(stored_len);
    for shard in data.iter().flatten() {
        let rest = stored_len - joined.len();
        joined.extend_from_slice(&shard[..shard.len().min(rest)]);
    }
    joined.into()
}

/// Data shards one after another, the missing one being the sum of all others.
fn restore_one(data: &[Option<&Bytes>], sum: &Bytes, stored_len: usize) -> Bytes {
    let mut others = vec![sum];
    others.extend(data.iter().flatten());
    let mut joined = Vec::with_capacity(data.len() * sum.len());
    for shard in data {
        match shard {
            Some(shard) => joined.extend_from_slice(shard),
            None => xor::append_sum(&mut joined, &others),
        }
    }
    joined.truncate(stored_len);
    joined.into()
}

#[cfg(test)]
mod tests;
