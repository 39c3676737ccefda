//! A blob of a registry as a blocking reader: a task fetches, resumes after a break where it
//! was, and hands the pieces over through a bounded channel.
//!
//! Invariants: bytes come in order and once; at most [`PIECES`] pieces wait; dropping the
//! reader ends the task at its next piece. What arrives is not verified here.

use super::error::SourceFault;
use super::http;
use super::registry::{Object, Registry};
use crate::layer::Digest;
use bytes::Bytes;
use origin::store::ErrorKind;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use std::io::{self, Read};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Pieces (of some 8 to 64 KiB, as the socket gives them) between the task and the reader.
const PIECES: usize = 32;

/// Resumptions of one blob, however far each got. A server that always breaks off soon is
/// not worth more.
const RESUMES_MAX: u32 = 64;

/// The reading end. Blocks; must not be read on a thread of the reactor.
#[derive(Debug)]
pub(super) struct Download {
    pieces: mpsc::Receiver<Result<Bytes, SourceFault>>,
    current: Bytes,
}

impl Download {
    /// Starts fetching `size` bytes of a blob on the runtime.
    pub(super) fn start(runtime: &Handle, registry: &Registry, digest: Digest, size: u64) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let registry = registry.clone();
        runtime.spawn(async move {
            if let Err(fault) = fetch(&registry, &digest, size, &sender).await {
                // A reader that is gone does not want to know.
                let _ = sender.send(Err(fault.into())).await;
            }
        });
        Self { pieces, current: Bytes::new() }
    }
}

impl Read for Download {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(fault)) => return Err(io::Error::new(io_kind(fault.kind()), fault)),
                None => return Ok(0),
            }
        }
        let take = self.current.len().min(buf.len());
        buf[..take].copy_from_slice(&self.current.split_to(take));
        Ok(take)
    }
}

/// The kind that [`crate::layer::Fault`] turns back into ours.
fn io_kind(kind: ErrorKind) -> io::ErrorKind {
    match kind {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::Denied => io::ErrorKind::PermissionDenied,
        ErrorKind::Corrupt => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    }
}

async fn fetch(
    registry: &Registry,
    digest: &Digest,
    size: u64,
    pieces: &mpsc::Sender<Result<Bytes, SourceFault>>,
) -> Result<(), http::Fault> {
    let mut at = 0;
    let (mut fruitless, mut resumes) = (0, 0);
    loop {
        let before = at;
        let fault = match stream(registry, digest, size, &mut at, pieces).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        fruitless = if at > before { 0 } else { fruitless + 1 };
        resumes += 1;
        if !fault.passes() || fruitless > registry.retries() || resumes > RESUMES_MAX {
            return Err(fault);
        }
        registry.pause(&fault, fruitless).await;
    }
}

/// Streams from byte `at` on, which it advances. `Ok` at the end of the blob or when the
/// reader is gone. A longer blob is cut one byte past its size, which the reader's
/// verification will notice.
async fn stream(
    registry: &Registry,
    digest: &Digest,
    size: u64,
    at: &mut u64,
    pieces: &mpsc::Sender<Result<Bytes, SourceFault>>,
) -> Result<(), http::Fault> {
    if *at >= size && *at > 0 {
        return Ok(());
    }
    let object = Object::Blob(digest, *at);
    let mut response = registry.get(object).await?;
    let mut skip = skipped(&response, *at, registry.host())?;
    loop {
        let chunk = response.chunk().await;
        let Some(mut piece) = chunk.map_err(|error| http::network(registry.host(), &object, error))? else {
            break;
        };
        let drop = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
        piece = piece.slice(drop..);
        skip -= u64::try_from(drop).unwrap_or(skip);
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        *at = at.saturating_add(length);
        if !piece.is_empty() && pieces.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
        if *at > size {
            return Ok(());
        }
    }
    if *at < size {
        // Without a content length, a cut connection looks like an end.
        let source = Box::new(io::Error::from(io::ErrorKind::UnexpectedEof));
        let (host, what) = (registry.host().to_owned(), object.to_string());
        return Err(SourceFault::Network { host, what, source }.into());
    }
    Ok(())
}

/// Bytes at the beginning of the answer that are there already.
fn skipped(response: &Response, at: u64, host: &str) -> Result<u64, SourceFault> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(at);
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    if start == Some(at) {
        Ok(0)
    } else {
        Err(SourceFault::Protocol { host: host.into(), reason: "it answered with another range than asked" })
    }
}
