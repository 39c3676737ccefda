//! What this crate needs of a block device: the trait, its contract, its errors.
//!
//! The consumer owns the interface: `blockd` implements [`BlockDevice`] for images and writable
//! instances, [`RamDevice`](crate::RamDevice) and [`FaultyDevice`](crate::FaultyDevice) are the
//! implementations for tests. Kinds become errno in `errno.rs` and nowhere else.

use std::fmt;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

/// The granularity of a device's length, and the logical block size of its loop device, in
/// bytes: the page size, so that no request of ext4 ever needs a read-modify-write.
pub const SECTOR_SIZE: u32 = 4096;

/// A device of fixed length that can be read and perhaps written at any byte range.
///
/// Contract:
/// - [`length`](Self::length) is a multiple of [`SECTOR_SIZE`], greater than zero, and with
///   [`is_writable`](Self::is_writable) constant for the life of the value.
/// - The caller never asks for a range beyond the end and never for an empty one. Ranges have no
///   alignment; all that comes from ext4 through a loop device is aligned to [`SECTOR_SIZE`].
/// - A read answers with exactly `length` bytes that are right, or with an error: never fewer,
///   never zeros in place of bytes that could not be had or verified.
/// - A read that begins after a write or discard of the same range has ended sees it. Requests
///   that overlap in time may take effect in any order.
/// - After [`flush`](Self::flush) every write and discard that had ended before it began survives
///   whatever the device promises to survive.
/// - A discarded range reads as zeros.
/// - Futures may be dropped at any await point (a request past its deadline is): the device must
///   stay usable, and the range of a dropped write holds old or new bytes, page by page.
/// - Many calls run at the same time.
#[async_trait]
pub trait BlockDevice: Send + Sync + 'static {
    /// Length in bytes.
    fn length(&self) -> u64;

    /// Whether writes and discards are accepted; if not, they are refused before they get here.
    fn is_writable(&self) -> bool;

    /// The bytes of the range if they are in memory, else `None`, at once.
    ///
    /// Called on a thread that answers requests for all devices: it must not block, wait for a
    /// lock held during I/O, or compute for longer than a copy would take.
    fn try_read_at(&self, offset: u64, length: u32) -> Option<DeviceBytes>;

    /// The bytes of the range, fetched from wherever they are.
    ///
    /// # Errors
    /// Any [`DeviceError`] if the bytes cannot be had or are not the right ones.
    async fn read_at(&self, offset: u64, length: u32) -> Result<DeviceBytes, DeviceError>;

    /// Puts `data` at `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] when there is no room, [`ErrorKind::Denied`] when read-only.
    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), DeviceError>;

    /// Makes what was written before durable, as far as the device promises durability.
    ///
    /// # Errors
    /// Any [`DeviceError`]; the writes since the last flush are then in doubt.
    async fn flush(&self) -> Result<(), DeviceError>;

    /// Forgets the range, which reads as zeros afterwards.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    async fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError>;
}

/// The answer to a read: slices of whatever the device holds, in order.
///
/// A single slice goes to the kernel without a copy in user space; several are joined first,
/// because a reply is one slice. A read crosses a chunk boundary rarely, so one is the rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceBytes {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl DeviceBytes {
    /// No bytes yet; see [`push`](Self::push).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next slice; an empty one changes nothing.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push(piece);
        }
    }

    /// Total length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The slices in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).filter(|piece| !piece.is_empty()).chain(&self.rest)
    }

    /// All bytes as one slice: copies only if there is more than one.
    #[must_use]
    pub fn into_contiguous(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut joined = BytesMut::with_capacity(self.len());
        for piece in self.pieces() {
            joined.extend_from_slice(piece);
        }
        joined.freeze()
    }
}

impl From<Bytes> for DeviceBytes {
    fn from(piece: Bytes) -> Self {
        Self { first: piece, rest: Vec::new() }
    }
}

/// What kind of failure an error is, for the one table to the kernel and for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A thing that was named does not exist.
    NotFound,
    /// The request itself is wrong.
    Invalid,
    /// Bytes were had but are not the right ones.
    Corrupt,
    /// The bytes cannot be had now.
    Unavailable,
    /// No answer within the deadline.
    TimedOut,
    /// No room left.
    Exhausted,
    /// Not permitted: the device is read-only.
    Denied,
    /// In use by someone else.
    Busy,
    /// A defect of ours.
    Internal,
}

/// Why a device could not do what it was asked.
#[derive(Debug)]
pub struct DeviceError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DeviceError {
    /// An error of `kind`; the message says what failed, where and why.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with the error that caused it; the message does not repeat the source's text.
    #[must_use]
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_in_order_and_one_piece_is_not_copied() {
        let one = Bytes::from_static(b"abc");
        let address = one.as_ptr();
        assert_eq!(DeviceBytes::from(one).into_contiguous().as_ptr(), address);
        let mut many = DeviceBytes::new();
        assert!(many.is_empty());
        for piece in ["", "ab", "", "c", "def"] {
            many.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!((many.len(), many.pieces().count()), (6, 3));
        assert_eq!(many.into_contiguous(), "abcdef");
    }
}
