//! What one layer of an image says: its entries and where the bytes of its files wait.
//!
//! A layer blob is read once, front to back: decompressed, digested, parsed. Metadata
//! becomes [`entry::LayerEntry`] values in tar order; file contents go to a [`Spool`] (one
//! unlinked temporary file per layer), from which chunks are rendered later in any order.
//!
//! ```text
//! blob ─▶ [thread: digest, decompress] ─▶ 4 buffers ─▶ [caller: digest, parse] ─▶ entries, spool
//! ```
//!
//! Invariant: when [`read_layer`] returns `Ok`, the blob had the promised length and digest
//! and the archive inside the promised diff id. Layers are independent and may be read in
//! parallel; they share one [`Budget`].

mod archive;
mod blob;
mod digest;
pub mod entry;
mod error;
mod header;
mod limits;
mod members;
mod pax;
mod reader;
mod sparse;
mod spool;
#[cfg(test)]
mod tests;
mod whiteout;
mod xattr;

pub use blob::LayerDescriptor;
pub(crate) use blob::inflate_if_compressed;
pub use digest::{Digest, DigestError, Hasher};
pub use error::{Fault, LayerError};
pub use limits::{Budget, Limits};
pub(crate) use members::{Member, members};
pub use spool::{HOLE_BYTES, Spool};

use archive::Archive;
use entry::{Layer, LayerIndex};
use error::Located;
use origin::store::ErrorKind;
use reader::Reader;
use spool::SpoolWriter;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

/// Characters of an entry's name in an error.
const NAME_IN_ERROR: usize = 200;

/// Reads one layer. Blocks; uses a second thread for decompression while it runs.
///
/// `blob` yields the compressed layer from its first byte, `work_dir` is where the spool's
/// unlinked file lives, `progress` is told how many compressed bytes each read brought.
///
/// # Errors
/// [`LayerError`] names layer, entry and reason: [`ErrorKind::Unavailable`] when `blob`
/// failed, [`ErrorKind::Corrupt`] for wrong digests and damaged streams or archives,
/// [`ErrorKind::Invalid`] for what no image may contain, [`ErrorKind::Exhausted`] for
/// limits and a full disk.
pub fn read_layer(
    index: LayerIndex,
    descriptor: &LayerDescriptor,
    blob: impl Read + Send,
    budget: &Budget,
    work_dir: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Layer, Spool), LayerError> {
    let abandoned = AtomicBool::new(false);
    let (full_sender, full) = sync_channel(blob::IN_FLIGHT);
    let (empty, empty_receiver) = sync_channel(blob::IN_FLIGHT);
    let pipe = blob::Pipe { full: full_sender, empty: empty_receiver };
    let error = |entry: Option<Vec<u8>>, fault| LayerError {
        layer: index,
        digest: descriptor.digest,
        entry: entry.map(|name| name.escape_ascii().to_string().chars().take(NAME_IN_ERROR).collect()),
        fault: Box::new(fault),
    };
    std::thread::scope(|scope| {
        let pump = std::thread::Builder::new()
            .name(format!("layer-{}", index.0))
            .spawn_scoped(scope, || blob::pump(blob, descriptor, pipe, &abandoned, progress))
            .map_err(|_| error(None, Fault::Thread))?;
        let mut archive = Archive::new(full, empty, budget);
        let parsed = parse(&mut archive, descriptor, budget, work_dir);
        if let Err((_, fault)) = &parsed
            && fault.kind() != ErrorKind::Corrupt
        {
            abandoned.store(true, Ordering::Relaxed);
        }
        // Hangs up, so that the pump never waits for us.
        drop(archive);
        let pumped = pump.join().map_err(|_| error(None, Fault::Thread))?;
        pumped.map_err(|fault| error(None, fault))?;
        parsed.map_err(|(entry, fault)| error(entry, fault))
    })
}

fn parse<'a>(
    archive: &mut Archive<'a>,
    descriptor: &LayerDescriptor,
    budget: &'a Budget,
    work_dir: &Path,
) -> Located<(Layer, Spool)> {
    let unnamed = |fault| (None, fault);
    let mut writer = SpoolWriter::create(work_dir, budget).map_err(unnamed)?;
    let layer = Reader::new(archive, &mut writer, budget).read()?;
    let got = archive.finish().map_err(unnamed)?;
    if got != descriptor.diff_id {
        return Err(unnamed(Fault::DiffId { want: descriptor.diff_id, got }));
    }
    Ok((layer, writer.finish().map_err(unnamed)?))
}
