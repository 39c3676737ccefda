//! The compressed side of a layer: a thread that reads the blob, digests it, decompresses
//! it and hands buffers of the archive to the parser.
//!
//! Invariants: the blob is read once; at most its promised size is accepted; when
//! [`pump`] returns `Ok`, length and digest were right and the whole archive was handed
//! over. Memory is bounded by [`IN_FLIGHT`] buffers and the decoder's window.

use super::digest::{Digest, Hasher};
use super::error::Fault;
use super::spool::to_u64;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

/// Size of one read from the blob and of one buffer of the archive. Larger gains nothing,
/// smaller costs wake-ups of the two threads.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Buffers of archive bytes between the two threads.
pub(super) const IN_FLIGHT: usize = 4;

/// Largest zstd window that is accepted, as a power of two: 128 MiB, the format's own
/// recommendation for decoders and what `zstd` itself accepts without being told.
const ZSTD_WINDOW_LOG: u32 = 27;

/// What the manifest and the config say about one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// SHA-256 of the blob as stored.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Media type. The blob's first bytes decide how it is decompressed; a media type that
    /// disagrees is logged, as registries hold many such images.
    pub media_type: String,
    /// SHA-256 of the uncompressed archive.
    pub diff_id: Digest,
}

/// How a blob is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn detect(start: &[u8]) -> Result<Self, Fault> {
        Ok(match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            // A zstd frame, or a skippable frame before the first one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => {
                return Err(Fault::Compression("bzip2"));
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(Fault::Compression("xz")),
            _ => Self::None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn of_media_type(media_type: &str) -> Option<Self> {
        if media_type.ends_with("gzip") {
            Some(Self::Gzip)
        } else if media_type.ends_with("zstd") {
            Some(Self::Zstd)
        } else if media_type.ends_with("tar") {
            Some(Self::None)
        } else {
            None
        }
    }
}

/// A blob that is digested and counted as it is read.
struct Metered<'p, R> {
    blob: R,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    read: u64,
    promised: u64,
    hasher: Hasher,
    progress: &'p (dyn Fn(u64) + Sync),
    /// What the blob itself did wrong; beats whatever the decoder makes of it.
    failed: Option<Fault>,
}

impl<R: Read> Metered<'_, R> {
    fn refill(&mut self) -> Result<(), Fault> {
        self.at = 0;
        self.filled = 0;
        let filled = loop {
            match self.blob.read(&mut self.buffer) {
                Ok(filled) => break filled,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Fault::Read { offset: self.read, source }),
            }
        };
        let read = self.read + to_u64(filled);
        if read > self.promised {
            return Err(Fault::BlobSize { want: self.promised, got: self.promised + 1 });
        }
        self.hasher.update(&self.buffer[..filled]);
        self.filled = filled;
        self.read = read;
        if filled > 0 {
            (self.progress)(to_u64(filled));
        }
        Ok(())
    }

    /// Reads what is left and compares length and digest with the promise.
    fn verify(mut self, digest: &Digest) -> Result<(), Fault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        loop {
            self.refill()?;
            if self.filled == 0 {
                break;
            }
        }
        if self.read != self.promised {
            return Err(Fault::BlobSize { want: self.promised, got: self.read });
        }
        let got = self.hasher.finish();
        if got == *digest { Ok(()) } else { Err(Fault::BlobDigest { got }) }
    }
}

impl<R: Read> BufRead for Metered<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.filled {
            if self.failed.is_some() {
                return Err(io::Error::other("the blob failed before"));
            }
            if let Err(fault) = self.refill() {
                self.failed = Some(fault);
                return Err(io::Error::other("the blob failed"));
            }
        }
        Ok(&self.buffer[self.at..self.filled])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let take = available.len().min(buf.len());
        buf[..take].copy_from_slice(&available[..take]);
        self.consume(take);
        Ok(take)
    }
}

/// The two ends that the decompressing thread holds.
pub(super) struct Pipe {
    /// Filled buffers to the parser.
    pub(super) full: SyncSender<Vec<u8>>,
    /// Buffers that the parser has done with.
    pub(super) empty: Receiver<Vec<u8>>,
}

/// Reads `blob` to its end into the pipe. When the parser hangs up early, the rest of the
/// blob is still digested, so that a damaged blob is told from a well-made bad archive,
/// unless the parser has set `abandoned`.
pub(super) fn pump(
    blob: impl Read,
    descriptor: &LayerDescriptor,
    pipe: Pipe,
    abandoned: &AtomicBool,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), Fault> {
    let mut metered = Metered {
        blob,
        buffer: vec![0; BUFFER_BYTES],
        at: 0,
        filled: 0,
        read: 0,
        promised: descriptor.size,
        hasher: Hasher::new(),
        progress,
        failed: None,
    };
    let decoded = decode(&mut metered, descriptor, pipe);
    if abandoned.load(Ordering::Relaxed) {
        return Ok(());
    }
    metered.verify(&descriptor.digest)?;
    decoded
}

fn decode<R: Read>(blob: &mut Metered<'_, R>, descriptor: &LayerDescriptor, pipe: Pipe) -> Result<(), Fault> {
    // An error here is kept in `failed` and comes out of `verify`.
    let start = blob.fill_buf().unwrap_or_default();
    let compression = Compression::detect(start)?;
    if Compression::of_media_type(&descriptor.media_type).is_some_and(|said| said != compression) {
        tracing::debug!(
            digest = %descriptor.digest,
            media_type = descriptor.media_type,
            found = compression.name(),
            "layer is compressed otherwise than its media type says"
        );
    }
    let failed = |offset, source| Fault::Decompress { format: compression.name(), offset, source };
    match compression {
        Compression::None => transfer(blob, pipe, failed),
        Compression::Gzip => transfer(&mut flate2::bufread::MultiGzDecoder::new(blob), pipe, failed),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(blob).map_err(|source| failed(0, source))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|source| failed(0, source))?;
            transfer(&mut decoder, pipe, failed)
        }
    }
}

fn transfer(
    archive: &mut dyn Read,
    pipe: Pipe,
    failed: impl Fn(u64, io::Error) -> Fault,
) -> Result<(), Fault> {
    let mut offset = 0;
    loop {
        let mut buffer = pipe.empty.try_recv().unwrap_or_else(|_| vec![0; BUFFER_BYTES]);
        buffer.resize(BUFFER_BYTES, 0);
        let mut filled = 0;
        while filled < BUFFER_BYTES {
            match archive.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(offset + to_u64(filled), error)),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        offset += to_u64(filled);
        buffer.truncate(filled);
        if pipe.full.send(buffer).is_err() {
            // The parser has its own fault to report.
            return Ok(());
        }
    }
}

/// What a file decompresses to, as an unlinked file in `work_dir` of at most `limit` bytes;
/// `None` when it is not compressed. For image archives, which people like to compress.
pub(crate) fn inflate_if_compressed(file: &File, work_dir: &Path, limit: u64) -> Result<Option<File>, Fault> {
    let unread = |source| Fault::Read { offset: 0, source };
    let mut start = [0; 8];
    let filled = file.read_at(&mut start, 0).map_err(unread)?;
    let compression = Compression::detect(&start[..filled])?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, file.try_clone().map_err(unread)?);
    input.rewind().map_err(unread)?;
    let format = compression.name();
    let mut output = tempfile::tempfile_in(work_dir).map_err(Fault::Spool)?;
    let mut archive: Box<dyn Read> = match compression {
        Compression::None => return Ok(None),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let failed = |source| Fault::Decompress { format, offset: 0, source };
            let mut decoder = zstd::Decoder::with_buffer(input).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    loop {
        let filled = match archive.read(&mut buffer) {
            Ok(0) => return Ok(Some(output)),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Fault::Decompress { format, offset, source }),
        };
        offset += to_u64(filled);
        if offset > limit {
            return Err(Fault::Limit { what: "bytes of image archive", limit, setting: "max-spool-bytes" });
        }
        output.write_all(&buffer[..filled]).map_err(Fault::Spool)?;
    }
}
