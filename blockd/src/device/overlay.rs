//! What a writable instance has written: encrypted pages over a base that never changes
//! (ATC'23 section 2.1).
//!
//! Invariants: every page is in one of three states, kept in memory; a page becomes `Held`
//! only after its ciphertext is in the file; the key lives in memory only and dies with the
//! instance, so the unlinked file is noise to everybody else and nothing survives a restart;
//! at most the budget is held, and running out changes nothing.

use aes::Aes256;
use aes::cipher::KeyInit;
use fuse_mount::{DeviceError, ErrorKind};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroizing;

/// Granularity of copy-on-write: the kernel's page and ext4's block.
pub(super) const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// Where a page's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// In the base: never written.
    Base,
    /// Here.
    Held,
    /// Nowhere: discarded, reads as zeros.
    Zero,
}

/// The pages of one writable instance.
pub struct Overlay {
    file: File,
    cipher: Xts128<Aes256>,
    /// One byte a page: 2.5 MiB for a device of 10 GiB.
    pages: Box<[AtomicU8]>,
    held: AtomicU64,
    budget: u64,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("key", &"<redacted>")
            .field("held_bytes", &self.held_bytes())
            .field("budget_bytes", &(self.budget * PAGE))
            .finish_non_exhaustive()
    }
}

fn failed(action: &str, error: io::Error) -> DeviceError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Unavailable,
    };
    DeviceError::with_source(kind, format!("the instance's overlay could not be {action}"), error)
}

impl Overlay {
    /// An empty overlay for a device of `length` bytes whose pages go to an unlinked file in
    /// `directory`, at most `budget_bytes` of them. Blocks for a few system calls.
    ///
    /// # Errors
    /// If the file or a key cannot be had.
    pub fn create(directory: &Path, length: u64, budget_bytes: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        file.set_len(length)?;
        let mut key = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *key).map_err(io::Error::other)?;
        let (data, tweak) = key.split_at(32);
        let half = |bytes: &[u8]| Aes256::new_from_slice(bytes).map_err(io::Error::other);
        let count = usize::try_from(length.div_ceil(PAGE)).map_err(io::Error::other)?;
        Ok(Self {
            file,
            cipher: Xts128::new(half(data)?, half(tweak)?),
            pages: (0..count).map(|_| AtomicU8::new(0)).collect(),
            held: AtomicU64::new(0),
            budget: budget_bytes / PAGE,
        })
    }

    /// Bytes of pages held.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed) * PAGE
    }

    fn slot(&self, page: u64) -> &AtomicU8 {
        &self.pages[usize::try_from(page).expect("a page of the device, which is in memory")]
    }

    /// Where a page's content is.
    pub(super) fn page(&self, page: u64) -> Page {
        match self.slot(page).load(Ordering::Acquire) {
            0 => Page::Base,
            1 => Page::Held,
            _ => Page::Zero,
        }
    }

    /// The longest run of pages in one state from the start of `pages`.
    pub(super) fn run(&self, pages: Range<u64>) -> (Page, Range<u64>) {
        let state = self.page(pages.start);
        let end = (pages.start + 1..pages.end).find(|&page| self.page(page) != state);
        (state, pages.start..end.unwrap_or(pages.end))
    }

    fn set(&self, page: u64, state: Page) {
        let before = self.slot(page).swap(state as u8, Ordering::AcqRel);
        if state == Page::Held && before != Page::Held as u8 {
            self.held.fetch_add(1, Ordering::Relaxed);
        } else if state != Page::Held && before == Page::Held as u8 {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The plaintext of held pages. The caller keeps writers of these pages out.
    pub(super) fn read(&self, pages: Range<u64>) -> Result<Vec<u8>, DeviceError> {
        let length =
            usize::try_from((pages.end - pages.start) * PAGE).expect("a request is at most some MiB");
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, pages.start * PAGE).map_err(|error| failed("read", error))?;
        self.cipher.decrypt_area(&mut data, PAGE_LEN, pages.start.into(), get_tweak_default);
        Ok(data)
    }

    /// Makes `data` the content of the pages from `first` on. The caller keeps readers and
    /// writers of these pages out. On an error nothing has changed but the budget's use.
    pub(super) fn write(&self, first: u64, mut data: Vec<u8>) -> Result<(), DeviceError> {
        let count = data.len() as u64 / PAGE;
        let new = (first..first + count).filter(|&page| self.page(page) != Page::Held).count() as u64;
        // two writers may both pass at the very end; each request is bounded, so is the excess
        if self.held.load(Ordering::Relaxed) + new > self.budget {
            let message = format!(
                "the instance may write {} bytes, which are used up; raise --rw-size",
                self.budget * PAGE
            );
            return Err(DeviceError::new(ErrorKind::Exhausted, message));
        }
        self.cipher.encrypt_area(&mut data, PAGE_LEN, first.into(), get_tweak_default);
        self.file.write_all_at(&data, first * PAGE).map_err(|error| failed("written", error))?;
        (first..first + count).for_each(|page| self.set(page, Page::Held));
        Ok(())
    }

    /// Makes the pages zeros and gives their space back.
    pub(super) fn discard(&self, pages: Range<u64>) -> Result<(), DeviceError> {
        if pages.is_empty() {
            return Ok(());
        }
        pages.clone().for_each(|page| self.set(page, Page::Zero));
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = (pages.end - pages.start) * PAGE;
        fallocate(&self.file, punch, pages.start * PAGE, length)
            .map_err(|error| failed("trimmed", error.into()))
    }

    #[cfg(test)]
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}
