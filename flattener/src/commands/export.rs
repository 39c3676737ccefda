//! `flattener export`: a whole image as a plain, sparse ext4 file.
//!
//! Invariant: the output name holds a whole image or does not exist: the file is written
//! beside it and renamed at the end.

use crate::fetch::{self, FetchError};
use crate::progress::{Progress, Unit};
use futures_util::StreamExt;
use image_format::manifest::Manifest;
use origin::store::Origin;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an export stopped; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A chunk could not be had.
    #[error("the image could not be read")]
    Fetch(#[from] FetchError),
    /// The file could not be written.
    #[error("{path} could not be written")]
    Io {
        /// The output.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the image to `output`, replacing a file of that name. Returns the bytes of
/// content written; the rest of the file is holes. Not cancel-safe: a `.partial` file may
/// stay behind.
///
/// # Errors
/// [`ExportError`] for the first chunk that cannot be had or written.
pub async fn export(
    origin: Arc<dyn Origin>,
    manifest: Arc<Manifest>,
    output: &Path,
    progress: &Progress,
) -> Result<u64, ExportError> {
    let failed = |source| ExportError::Io { path: output.to_path_buf(), source };
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = Arc::new(File::create(&partial).map_err(failed)?);
    let written = write_chunks(origin, manifest, Arc::clone(&file), output, progress).await;
    let finished = written.and_then(|bytes| {
        file.sync_all().and_then(|()| std::fs::rename(&partial, output)).map_err(failed)?;
        Ok(bytes)
    });
    if finished.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    finished
}

async fn write_chunks(
    origin: Arc<dyn Origin>,
    manifest: Arc<Manifest>,
    file: Arc<File>,
    output: &Path,
    progress: &Progress,
) -> Result<u64, ExportError> {
    let failed = |source| ExportError::Io { path: output.to_path_buf(), source };
    file.set_len(manifest.head().device_len).map_err(failed)?;
    let stage = progress.stage("export", Unit::Bytes, manifest.stored_bytes());
    let size = manifest.head().chunk_size.bytes();
    let positions = (0..manifest.entries().len()).collect();
    let of = Arc::clone(&manifest);
    let write = move |position: usize, plain: &image_format::chunk::PlainChunk| {
        let offset = u64::from(of.entries()[position].index.0) * u64::from(size);
        let [held, _zeros] = plain.slices(0..size);
        file.write_all_at(&held, offset).map(|()| held.len() as u64)
    };
    let mut total = 0;
    let mut chunks = std::pin::pin!(fetch::each(origin, Arc::clone(&manifest), positions, write));
    while let Some((position, outcome)) = chunks.next().await {
        total += outcome?.map_err(failed)?;
        stage.add(u64::from(manifest.entries()[position].stored_len));
    }
    stage.finish();
    Ok(total)
}
