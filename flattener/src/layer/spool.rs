//! Where file contents wait between the one pass over a layer and the rendering of chunks.
//!
//! Invariants: a spool is one unlinked temporary file, so nothing is left behind whatever
//! happens; it is written once, front to back, then only read, from any thread. What is a
//! hole depends on a file's bytes alone: every aligned block of 4 KiB that is all zeros is
//! one, whether the archive spelled it out or left it out, so equal files have equal segments.

use super::entry::{FileContent, Segment};
use super::error::Fault;
use super::limits::Budget;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Unit of holes: the block size of the image's file system.
pub const HOLE_BYTES: usize = 4096;

/// Big enough that small files share a write; longer runs bypass it.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// File contents of one layer, read by offset.
#[derive(Debug)]
pub struct Spool {
    file: File,
    length: u64,
}

impl Spool {
    /// Fills `buf` with the bytes from `offset` on. May be called from many threads.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end of the spool; whatever the disk says.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Bytes in the spool.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
}

/// A spool being written.
#[derive(Debug)]
pub(super) struct SpoolWriter<'a> {
    file: BufWriter<File>,
    length: u64,
    budget: &'a Budget,
}

impl<'a> SpoolWriter<'a> {
    pub(super) fn create(work_dir: &Path, budget: &'a Budget) -> Result<Self, Fault> {
        let file = tempfile::tempfile_in(work_dir).map_err(Fault::Spool)?;
        Ok(Self { file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file), length: 0, budget })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<u64, Fault> {
        let length = to_u64(bytes.len());
        self.budget.spool(length)?;
        self.file.write_all(bytes).map_err(Fault::Spool)?;
        let at = self.length;
        self.length += length;
        Ok(at)
    }

    pub(super) fn finish(self) -> Result<Spool, Fault> {
        let file = self.file.into_inner().map_err(|error| Fault::Spool(error.into_error()))?;
        Ok(Spool { file, length: self.length })
    }
}

/// The contents of one file on their way into the spool: data and holes in file order.
#[derive(Debug)]
pub(super) struct ContentWriter<'s, 'a> {
    spool: &'s mut SpoolWriter<'a>,
    segments: Vec<Segment>,
    /// Bytes of the file that are settled; a multiple of [`HOLE_BYTES`].
    settled: u64,
    /// The block that is not complete yet.
    stage: [u8; HOLE_BYTES],
    staged: usize,
}

impl<'s, 'a> ContentWriter<'s, 'a> {
    pub(super) fn new(spool: &'s mut SpoolWriter<'a>) -> Self {
        Self { spool, segments: Vec::new(), settled: 0, stage: [0; HOLE_BYTES], staged: 0 }
    }

    /// The next bytes of the file.
    pub(super) fn data(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        if self.staged > 0 {
            let take = bytes.len().min(HOLE_BYTES - self.staged);
            self.stage[self.staged..self.staged + take].copy_from_slice(&bytes[..take]);
            self.staged += take;
            bytes = &bytes[take..];
            self.settle_full_stage()?;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % HOLE_BYTES);
        self.settle(whole)?;
        if !rest.is_empty() {
            self.stage[..rest.len()].copy_from_slice(rest);
            self.staged = rest.len();
        }
        Ok(())
    }

    /// The next `length` bytes of the file are zeros that the archive left out. The caller
    /// has bounded the file's size.
    pub(super) fn hole(&mut self, mut length: u64) -> Result<(), Fault> {
        if self.staged > 0 {
            let take = usize::try_from(length).unwrap_or(HOLE_BYTES).min(HOLE_BYTES - self.staged);
            self.stage[self.staged..self.staged + take].fill(0);
            self.staged += take;
            length -= to_u64(take);
            self.settle_full_stage()?;
        }
        let rest = length % to_u64(HOLE_BYTES);
        self.settled += length - rest;
        if rest > 0 {
            self.staged = usize::try_from(rest).expect("less than one block");
            self.stage[..self.staged].fill(0);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<FileContent, Fault> {
        let size = self.settled + to_u64(self.staged);
        let (stage, staged) = (self.stage, self.staged);
        self.settle(&stage[..staged])?;
        self.segments.shrink_to_fit();
        Ok(FileContent { size, segments: self.segments })
    }

    fn settle_full_stage(&mut self) -> Result<(), Fault> {
        if self.staged == HOLE_BYTES {
            self.staged = 0;
            let stage = self.stage;
            self.settle(&stage)?;
        }
        Ok(())
    }

    /// Settles whole blocks (the last call may bring a part of one): runs of blocks with
    /// data are appended to the spool, zero blocks are passed over.
    fn settle(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut run = 0..0;
        for block in bytes.chunks(HOLE_BYTES) {
            if block == &ZEROS[..block.len()] {
                self.append(&bytes[run.clone()], block.len())?;
                run = run.end + block.len()..run.end + block.len();
            } else {
                run.end += block.len();
            }
        }
        self.append(&bytes[run], 0)
    }

    /// Appends a run of data and passes over `zeros` bytes after it.
    fn append(&mut self, bytes: &[u8], zeros: usize) -> Result<(), Fault> {
        let length = to_u64(bytes.len());
        if length > 0 {
            let spool_offset = self.spool.append(bytes)?;
            match self.segments.last_mut() {
                // The spool is contiguous within a file, so only the file side can gap.
                Some(last) if last.file_offset + last.length == self.settled => last.length += length,
                _ => {
                    self.spool.budget.segment()?;
                    self.segments.push(Segment { file_offset: self.settled, spool_offset, length });
                }
            }
        }
        self.settled += length + to_u64(zeros);
        Ok(())
    }
}

/// Buffer lengths as file lengths.
pub(super) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a buffer is shorter than 2^64 bytes")
}
