//! The vocabulary of stored images, shared by everyone who writes or reads them.
//!
//! Pure: no I/O, no async, no clock, no randomness, no unsafe code. Entry test for
//! anything here: *does it appear in an object of the store, or name one?* The bytes are
//! specified in `docs/formats.md`; where code and document disagree, one has a bug.
//!
//! Invariants kept by the types:
//! - bytes that came from a disk or a network are a [`chunk::SealedChunk`]; only
//!   [`chunk::SealedChunk::verify`] makes them usable;
//! - keys print as `<redacted>` and are wiped when dropped;
//! - every decoder takes any bytes, checks sizes before it allocates, and never panics.

#![forbid(unsafe_code)]

pub mod chunk;
pub mod envelope;
pub mod ids;
pub mod manifest;
pub mod names;
pub mod reference;
pub mod root;
pub mod seal;
pub mod units;
mod wire;
