//! OCI image layouts, in a directory or a tar file: `index.json` and `blobs/sha256/`.

use super::error::SourceFault;
use super::files::{Files, Range};
use super::manifest::{self, DOCUMENT_MAX, Descriptor, Document};
use crate::layer::Digest;

/// The annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout and the name wanted of it. Cheap to clone; blocking.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) files: Files,
    pub(super) tag: Option<String>,
}

impl Layout {
    /// What the wanted name, or the only entry of the index, points to.
    pub(super) fn root(&self) -> Result<Descriptor, SourceFault> {
        let bytes = self.files.read("index.json", DOCUMENT_MAX)?;
        let Document::Index(entries) = manifest::parse(&bytes, "index.json")? else {
            return Err(SourceFault::Unsupported("index.json is not an image index".into()));
        };
        let name = |entry: &Descriptor| entry.annotations.as_ref()?.get(REF_NAME).cloned();
        let held = || {
            let names: Vec<String> = entries
                .iter()
                .map(|e| name(e).unwrap_or_else(|| format!("(unnamed {})", e.digest)))
                .collect();
            if names.is_empty() { "no image".into() } else { names.join(", ") }
        };
        let Some(wanted) = &self.tag else {
            return match &entries[..] {
                [only] => Ok(only.clone()),
                [] => Err(SourceFault::NoSuchName { wanted: String::new(), held: held() }),
                _ => Err(SourceFault::Ambiguous(held())),
            };
        };
        let mut matches = entries.iter().filter(|entry| name(entry).as_ref() == Some(wanted));
        match (matches.next(), matches.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(SourceFault::Ambiguous(held())),
            (None, _) => Err(SourceFault::NoSuchName { wanted: wanted.clone(), held: held() }),
        }
    }

    /// Reads a document; the caller verifies it.
    pub(super) fn document(&self, digest: &Digest) -> Result<Vec<u8>, SourceFault> {
        self.files.read(&name(digest), DOCUMENT_MAX)
    }

    /// Opens a blob; the caller verifies it.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Range, SourceFault> {
        self.files.open(&name(digest))
    }
}

fn name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
