//! A device that fails on demand: wraps another one. For tests, here and in `blockd`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::device::{BlockDevice, DeviceBytes, DeviceError, ErrorKind};

/// What a [`FaultyDevice`] does with the requests that begin from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the device below answers.
    None,
    /// Every request fails with this kind.
    Fail(ErrorKind),
    /// Every request waits this long first and never answers from memory at once.
    Slow(Duration),
    /// No request ever ends.
    Hang,
    /// Reads answer with one byte less than asked for, a breach of the contract.
    Short,
    /// Every request panics, a breach of the contract.
    Panic,
}

/// Another device with a switchable [`Fault`] in front.
#[derive(Debug)]
pub struct FaultyDevice<D> {
    below: D,
    fault: Mutex<Fault>,
}

impl<D: BlockDevice> FaultyDevice<D> {
    /// Wraps `below`, first without a fault.
    pub fn new(below: D) -> Arc<Self> {
        Arc::new(Self { below, fault: Mutex::new(Fault::None) })
    }

    /// Changes what happens to requests that begin from now on.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::panic, reason = "a double that panics on request, to show that nothing else does")]
    async fn strike(&self) -> Result<(), DeviceError> {
        match self.fault() {
            Fault::None | Fault::Short => Ok(()),
            Fault::Fail(kind) => Err(DeviceError::new(kind, "failed on demand")),
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Fault::Hang => std::future::pending().await,
            Fault::Panic => panic!("panicked on demand"),
        }
    }
}

#[async_trait]
impl<D: BlockDevice> BlockDevice for FaultyDevice<D> {
    fn length(&self) -> u64 {
        self.below.length()
    }

    fn is_writable(&self) -> bool {
        self.below.is_writable()
    }

    #[expect(clippy::panic, reason = "a double that panics on request, to show that nothing else does")]
    fn try_read_at(&self, offset: u64, length: u32) -> Option<DeviceBytes> {
        match self.fault() {
            Fault::None => self.below.try_read_at(offset, length),
            Fault::Panic => panic!("panicked on demand"),
            _ => None,
        }
    }

    async fn read_at(&self, offset: u64, length: u32) -> Result<DeviceBytes, DeviceError> {
        self.strike().await?;
        let short = u32::from(self.fault() == Fault::Short);
        self.below.read_at(offset, length - short).await
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), DeviceError> {
        self.strike().await?;
        self.below.write_at(offset, data).await
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        self.strike().await?;
        self.below.flush().await
    }

    async fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.strike().await?;
        self.below.discard(offset, length).await
    }
}
