//! A device in memory, for tests, benches and examples.
//!
//! Held in pieces of [`PIECE_SIZE`] so that reads are slices, as they are for a real image.

use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::device::{BlockDevice, DeviceBytes, DeviceError, ErrorKind, SECTOR_SIZE};

/// Bytes per piece: the chunk size of an image, so that reads split where theirs do.
const PIECE_SIZE: usize = 512 * 1024;

/// A device whose bytes are all in memory. Flush does nothing; nothing survives the process.
#[derive(Debug)]
pub struct RamDevice {
    pieces: RwLock<Vec<Bytes>>,
    length: u64,
    writable: bool,
}

impl RamDevice {
    /// A read-only device holding `content`, padded with zeros to a whole number of sectors.
    #[must_use]
    pub fn read_only(content: &[u8]) -> Self {
        Self::with_content(content, false)
    }

    /// A writable device that starts as `content`, padded with zeros to whole sectors.
    #[must_use]
    pub fn writable(content: &[u8]) -> Self {
        Self::with_content(content, true)
    }

    fn with_content(content: &[u8], writable: bool) -> Self {
        let sector = SECTOR_SIZE as usize;
        let padded = content.len().max(1).next_multiple_of(sector);
        let pieces = (0..padded)
            .step_by(PIECE_SIZE)
            .map(|start| {
                let mut piece = BytesMut::zeroed(PIECE_SIZE.min(padded - start));
                let have = content.len().saturating_sub(start).min(piece.len());
                piece[..have].copy_from_slice(&content[start..start + have]);
                piece.freeze()
            })
            .collect();
        Self { pieces: RwLock::new(pieces), length: padded as u64, writable }
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.pieces.read().unwrap_or_else(PoisonError::into_inner).concat()
    }

    /// Where `offset` lies: piece and byte in it, or an error if the range leaves the device.
    fn locate(&self, offset: u64, length: u64) -> Result<(usize, usize), DeviceError> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        match usize::try_from(offset) {
            Ok(offset) if inside => Ok((offset / PIECE_SIZE, offset % PIECE_SIZE)),
            _ => Err(DeviceError::new(
                ErrorKind::Invalid,
                format!("range {offset}+{length} leaves a device of {} bytes", self.length),
            )),
        }
    }

    fn slices(&self, pieces: &[Bytes], offset: u64, length: u32) -> Result<DeviceBytes, DeviceError> {
        let (mut index, mut start) = self.locate(offset, u64::from(length))?;
        let mut left = length as usize;
        let mut found = DeviceBytes::new();
        while left > 0 {
            let piece = &pieces[index];
            let take = left.min(piece.len() - start);
            found.push(piece.slice(start..start + take));
            left -= take;
            (index, start) = (index + 1, 0);
        }
        Ok(found)
    }

    fn change(
        &self,
        offset: u64,
        length: u64,
        mut fill: impl FnMut(&mut [u8], usize),
    ) -> Result<(), DeviceError> {
        if !self.writable {
            return Err(DeviceError::new(ErrorKind::Denied, "this device in memory is read-only"));
        }
        let (mut index, mut start) = self.locate(offset, length)?;
        let mut pieces = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
        let (mut done, mut left) = (0, usize::try_from(length).unwrap_or(usize::MAX));
        while left > 0 {
            // Copies only while a reader still holds a slice of this piece.
            let mut piece = BytesMut::from(std::mem::take(&mut pieces[index]));
            let take = left.min(piece.len() - start);
            fill(&mut piece[start..start + take], done);
            pieces[index] = piece.freeze();
            done += take;
            left -= take;
            (index, start) = (index + 1, 0);
        }
        Ok(())
    }
}

#[async_trait]
impl BlockDevice for RamDevice {
    fn length(&self) -> u64 {
        self.length
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn try_read_at(&self, offset: u64, length: u32) -> Option<DeviceBytes> {
        self.slices(&self.pieces.try_read().ok()?, offset, length).ok()
    }

    async fn read_at(&self, offset: u64, length: u32) -> Result<DeviceBytes, DeviceError> {
        self.slices(&self.pieces.read().unwrap_or_else(PoisonError::into_inner), offset, length)
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), DeviceError> {
        self.change(offset, data.len() as u64, |target, done| {
            target.copy_from_slice(&data[done..done + target.len()]);
        })
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.change(offset, length, |target, _| target.fill(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LENGTH: usize = 3 * PIECE_SIZE / 2;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn behaves_as_a_vector(steps in prop::collection::vec((0u8..3, 0usize..LENGTH, 1usize..PIECE_SIZE, any::<u8>()), 1..12)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            let device = RamDevice::writable(&vec![7; LENGTH]);
            let mut model = vec![7u8; LENGTH];
            for (what, at, length, fill) in steps {
                let length = length.min(LENGTH - at);
                match what {
                    0 => {
                        runtime.block_on(device.write_at(at as u64, vec![fill; length].into())).expect("write");
                        model[at..at + length].fill(fill);
                    }
                    1 => {
                        runtime.block_on(device.discard(at as u64, length as u64)).expect("discard");
                        model[at..at + length].fill(0);
                    }
                    _ => {
                        let length32 = u32::try_from(length).expect("small");
                        let got = device.try_read_at(at as u64, length32).expect("in memory");
                        prop_assert_eq!(&got.into_contiguous()[..], &model[at..at + length]);
                    }
                }
            }
            prop_assert_eq!(device.content(), model);
        }
    }

    #[tokio::test]
    async fn refuses_what_leaves_the_device_and_writes_to_a_read_only_one() {
        let device = RamDevice::read_only(b"x");
        assert_eq!(device.length(), 4096);
        assert!(device.try_read_at(4090, 7).is_none());
        assert_eq!(device.read_at(u64::MAX, 2).await.expect_err("outside").kind(), ErrorKind::Invalid);
        let refused = device.write_at(0, Bytes::from_static(b"y")).await.expect_err("read-only");
        assert_eq!(refused.kind(), ErrorKind::Denied);
    }
}
