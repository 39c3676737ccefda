//! A base and an overlay as one writable device.
//!
//! Invariants: the base is never written; a page is read from the overlay, from nowhere
//! (zeros) or from the base, by its state; partial pages are completed from what they were
//! before; requests that touch the same group of pages do not interleave, so nobody sees
//! half a write.

use super::overlay::{Overlay, PAGE, Page};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fuse_mount::{BlockDevice, DeviceBytes, DeviceError, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Pages that share a lock: 1 MiB, the largest request, so that one takes two at most.
const GROUP: u64 = 256;
/// Locks; groups further apart share one.
const LOCKS: u64 = 64;

/// A writable device. What was written is gone when it is dropped: [`BlockDevice::flush`]
/// has nothing to make durable, since the key does not outlive the instance.
#[derive(Debug)]
pub struct ComposedDevice<B> {
    base: Arc<B>,
    overlay: Arc<Overlay>,
    locks: Vec<Arc<RwLock<()>>>,
}

/// The whole pages that a byte range touches.
fn pages_of(offset: u64, length: u64) -> Range<u64> {
    offset / PAGE..(offset + length).div_ceil(PAGE)
}

fn length_of(pages: &Range<u64>) -> usize {
    usize::try_from((pages.end - pages.start) * PAGE).expect("a request is at most some MiB")
}

/// Runs disk work off the reactor: writes may wait for the kernel's dirty limit.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| DeviceError::with_source(ErrorKind::Internal, "overlay work failed", error))?
}

impl<B: BlockDevice> ComposedDevice<B> {
    /// The device of an instance.
    #[must_use]
    pub fn new(base: Arc<B>, overlay: Overlay) -> Self {
        let locks = (0..LOCKS).map(|_| Arc::new(RwLock::new(()))).collect();
        Self { base, overlay: Arc::new(overlay), locks }
    }

    /// The locks of a range of pages, each once and in one order, so that nobody deadlocks.
    fn locks(&self, pages: &Range<u64>) -> Vec<Arc<RwLock<()>>> {
        let (first, last) = (pages.start / GROUP, pages.end.saturating_sub(1) / GROUP);
        let mut numbers: Vec<u64> = if last - first >= LOCKS {
            (0..LOCKS).collect()
        } else {
            (first..=last).map(|group| group % LOCKS).collect()
        };
        numbers.sort_unstable();
        numbers.dedup();
        let find = |number: u64| Arc::clone(&self.locks[usize::try_from(number).expect("below LOCKS")]);
        numbers.into_iter().map(find).collect()
    }

    async fn read_locked(&self, pages: &Range<u64>) -> Vec<OwnedRwLockReadGuard<()>> {
        let mut guards = Vec::new();
        for lock in self.locks(pages) {
            guards.push(lock.read_owned().await);
        }
        guards
    }

    async fn write_locked(&self, pages: &Range<u64>) -> Vec<OwnedRwLockWriteGuard<()>> {
        let mut guards = Vec::new();
        for lock in self.locks(pages) {
            guards.push(lock.write_owned().await);
        }
        guards
    }

    /// The content of whole pages; the caller holds their locks.
    async fn read_pages(&self, pages: Range<u64>) -> Result<DeviceBytes, DeviceError> {
        let mut out = DeviceBytes::new();
        let mut next = pages.start;
        while next < pages.end {
            let (state, run) = self.overlay.run(next..pages.end);
            next = run.end;
            match state {
                Page::Zero => out.push(Bytes::from(vec![0; length_of(&run)])),
                Page::Held => {
                    let overlay = Arc::clone(&self.overlay);
                    out.push(blocking(move || overlay.read(run)).await?.into());
                }
                Page::Base => {
                    let length = u32::try_from(length_of(&run)).expect("a request is below 4 GiB");
                    let read = self.base.read_at(run.start * PAGE, length).await?;
                    read.pieces().for_each(|piece| out.push(piece.clone()));
                }
            }
        }
        Ok(out)
    }

    /// `data` at `offset`, completed to whole pages by what is there; the locks are held.
    async fn complete(&self, offset: u64, data: &[u8]) -> Result<(u64, Vec<u8>), DeviceError> {
        let pages = pages_of(offset, data.len() as u64);
        let mut whole = BytesMut::zeroed(length_of(&pages));
        let before = usize::try_from(offset - pages.start * PAGE).expect("below a page");
        let after = whole.len() - before - data.len();
        if before > 0 {
            let old = self.read_pages(pages.start..pages.start + 1).await?.into_contiguous();
            whole[..old.len()].copy_from_slice(&old);
        }
        if after > 0 && (before == 0 || pages.end - pages.start > 1) {
            let old = self.read_pages(pages.end - 1..pages.end).await?.into_contiguous();
            let at = whole.len() - old.len();
            whole[at..].copy_from_slice(&old);
        }
        whole[before..before + data.len()].copy_from_slice(data);
        Ok((pages.start, whole.into()))
    }

    async fn write_held(
        &self,
        offset: u64,
        data: &[u8],
        guards: Vec<OwnedRwLockWriteGuard<()>>,
    ) -> Result<(), DeviceError> {
        let (first, whole) = self.complete(offset, data).await?;
        let overlay = Arc::clone(&self.overlay);
        // the locks go along: a request that is given up must not let others in too early
        blocking(move || {
            let _held = guards;
            overlay.write(first, whole)
        })
        .await
    }
}

/// The bytes `range` of an answer.
fn cut(bytes: &DeviceBytes, range: Range<usize>) -> DeviceBytes {
    let mut out = DeviceBytes::new();
    let mut at = 0;
    for piece in bytes.pieces() {
        let (start, end) = (range.start.max(at), range.end.min(at + piece.len()));
        if start < end {
            out.push(piece.slice(start - at..end - at));
        }
        at += piece.len();
    }
    out
}

#[async_trait]
impl<B: BlockDevice> BlockDevice for ComposedDevice<B> {
    fn length(&self) -> u64 {
        self.base.length()
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn try_read_at(&self, offset: u64, length: u32) -> Option<DeviceBytes> {
        let pages = pages_of(offset, length.into());
        // pages of the overlay are decrypted elsewhere
        let _guards: Vec<_> =
            self.locks(&pages).into_iter().map(|lock| lock.try_read_owned().ok()).collect::<Option<_>>()?;
        match self.overlay.run(pages.clone()) {
            (Page::Base, run) if run == pages => self.base.try_read_at(offset, length),
            _ => None,
        }
    }

    async fn read_at(&self, offset: u64, length: u32) -> Result<DeviceBytes, DeviceError> {
        let pages = pages_of(offset, length.into());
        let _guards = self.read_locked(&pages).await;
        let start = usize::try_from(offset - pages.start * PAGE).expect("below a page");
        let whole = self.read_pages(pages).await?;
        Ok(cut(&whole, start..start + length as usize))
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), DeviceError> {
        let guards = self.write_locked(&pages_of(offset, data.len() as u64)).await;
        self.write_held(offset, &data, guards).await
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let end = offset + length;
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        // parts of pages at the edges are written as zeros, whole pages are given back
        let edges =
            if first > last { [offset..end, end..end] } else { [offset..first * PAGE, last * PAGE..end] };
        for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
            let zeros = vec![0; usize::try_from(edge.end - edge.start).expect("below two pages")];
            self.write_at(edge.start, zeros.into()).await?;
        }
        if first < last {
            let guards = self.write_locked(&(first..last)).await;
            let overlay = Arc::clone(&self.overlay);
            blocking(move || {
                let _held = guards;
                overlay.discard(first..last)
            })
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
