//! Images for the targets: opening one from the bytes of an archive and reading all of it.

use crate::files::MemoryFile;
use flattener::layer::Digest;
use flattener::oci::{Image, ImageRef, SourceOptions, open};
use std::io::Read;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime without drivers"));

/// Which kind of archive the bytes are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `oci-archive:`.
    Layout,
    /// `docker-archive:`.
    Docker,
}

/// Opens the archive in `file`, finds its one image and reads the blobs of its layers.
///
/// # Panics
/// If what was found contradicts itself.
#[must_use]
pub fn read(file: &MemoryFile, kind: Kind) -> Option<Image> {
    let reference = match kind {
        Kind::Layout => ImageRef::LayoutArchive { file: file.path(), tag: None },
        Kind::Docker => ImageRef::DockerArchive { file: file.path(), image: None },
    };
    let options = SourceOptions { archive_bytes: 8 << 20, ..SourceOptions::default() };
    let source = RUNTIME.block_on(open(&reference, &options)).ok()?;
    let resolved = RUNTIME.block_on(source.resolve());
    let digest = RUNTIME.block_on(source.digest());
    let Ok(image) = resolved else { return None };
    assert_eq!(digest.ok(), Some(image.manifest_digest));
    assert_eq!(Digest::of(&image.manifest), image.manifest_digest);
    for layer in &image.layers {
        if let Ok(mut blob) = source.blob(layer) {
            std::io::copy(&mut (&mut blob).take(1 << 20), &mut std::io::sink()).expect("a file in memory");
        }
    }
    Some(image)
}
