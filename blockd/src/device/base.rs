//! The read-only device of an image: byte ranges to chunks through the read path.
//!
//! Invariant: a range is answered whole and right or with an error; bytes of chunks are
//! passed on as slices and never copied here.

use async_trait::async_trait;
use bytes::Bytes;
use cache::read_path::{ImageReader, ReadError};
use fuse_mount::{BlockDevice, DeviceBytes, DeviceError, ErrorKind};
use futures_util::future::try_join_all;
use image_format::units::{ByteLen, ByteOffset, OutOfRange, Piece, pieces};
use origin::store::ErrorKind as StoreKind;

/// The read-only device of one image.
#[derive(Debug, Clone)]
pub struct ImageDevice {
    reader: ImageReader,
}

impl ImageDevice {
    /// The device that `reader` reads.
    #[must_use]
    pub const fn new(reader: ImageReader) -> Self {
        Self { reader }
    }

    fn pieces(&self, offset: u64, length: u32) -> Result<impl Iterator<Item = Piece>, OutOfRange> {
        let head = self.reader.manifest().head();
        pieces(ByteOffset(offset), ByteLen(length.into()), ByteLen(head.device_len), head.chunk_size)
    }
}

fn failed(error: ReadError) -> DeviceError {
    let kind = match error.kind() {
        StoreKind::NotFound | StoreKind::Corrupt => ErrorKind::Corrupt,
        StoreKind::Unavailable => ErrorKind::Unavailable,
        StoreKind::Exhausted => ErrorKind::Exhausted,
        StoreKind::Denied | StoreKind::Unsupported => ErrorKind::Denied,
        StoreKind::Invalid => ErrorKind::Invalid,
        StoreKind::Internal => ErrorKind::Internal,
    };
    DeviceError::with_source(kind, "the image could not be read", error)
}

fn read_only() -> DeviceError {
    DeviceError::new(ErrorKind::Denied, "images are read-only; run with --rw for a writable instance")
}

#[async_trait]
impl BlockDevice for ImageDevice {
    fn length(&self) -> u64 {
        self.reader.manifest().head().device_len
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn try_read_at(&self, offset: u64, length: u32) -> Option<DeviceBytes> {
        let mut out = DeviceBytes::new();
        for piece in self.pieces(offset, length).ok()? {
            let plain = self.reader.try_read(piece.chunk)?;
            plain.slices(piece.range).into_iter().for_each(|slice| out.push(slice));
        }
        Some(out)
    }

    async fn read_at(&self, offset: u64, length: u32) -> Result<DeviceBytes, DeviceError> {
        let pieces = self
            .pieces(offset, length)
            .map_err(|error| DeviceError::with_source(ErrorKind::Invalid, "a read left the device", error))?;
        let reads = pieces.map(|piece| async move {
            self.reader.read(piece.chunk).await.map(|plain| plain.slices(piece.range))
        });
        let mut out = DeviceBytes::new();
        for slices in try_join_all(reads).await.map_err(failed)? {
            slices.into_iter().for_each(|slice| out.push(slice));
        }
        Ok(out)
    }

    async fn write_at(&self, _offset: u64, _data: Bytes) -> Result<(), DeviceError> {
        Err(read_only())
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn discard(&self, _offset: u64, _length: u64) -> Result<(), DeviceError> {
        Err(read_only())
    }
}
