//! `flattener inspect` and what `flattener export` says: reports on one image.

use anyhow::{Context, Result};
use flattener::report::human;
use image_format::manifest::Manifest;
use image_format::seal::Codec;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// What a manifest says.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    digest: String,
    image_id: String,
    tenant: String,
    root: String,
    layout_policy: u16,
    chunk_bytes: u32,
    device_bytes: u64,
    chunks: usize,
    distinct_chunks: usize,
    compressed_chunks: usize,
    stored_bytes: u64,
    config: serde_json::Value,
}

impl Inspection {
    pub(crate) fn of(manifest: &Manifest) -> Result<Self> {
        let (head, entries) = (manifest.head(), manifest.entries());
        Ok(Self {
            digest: head.image.to_string(),
            image_id: head.image_id().to_string(),
            tenant: head.tenant.to_string(),
            root: head.root.to_string(),
            layout_policy: head.layout_policy,
            chunk_bytes: head.chunk_size.bytes(),
            device_bytes: head.device_len,
            chunks: entries.len(),
            distinct_chunks: entries.iter().map(|entry| entry.id).collect::<HashSet<_>>().len(),
            compressed_chunks: entries.iter().filter(|entry| entry.codec == Codec::Zstd).count(),
            stored_bytes: manifest.stored_bytes(),
            config: serde_json::from_slice(manifest.config())
                .context("the image configuration is not JSON")?,
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "digest    {}", self.digest)?;
        writeln!(f, "image id  {}", self.image_id)?;
        writeln!(f, "tenant    {}, root {}", self.tenant, self.root)?;
        writeln!(
            f,
            "layout    policy {}, chunks of {}",
            self.layout_policy,
            human(u64::from(self.chunk_bytes))
        )?;
        writeln!(f, "device    {} bytes ({})", self.device_bytes, human(self.device_bytes))?;
        writeln!(
            f,
            "chunks    {} ({} distinct, {} compressed), {} stored",
            self.chunks,
            self.distinct_chunks,
            self.compressed_chunks,
            human(self.stored_bytes)
        )?;
        let config = serde_json::to_string_pretty(&self.config["config"]).unwrap_or_default();
        write!(f, "config    {config}")
    }
}

/// What an export wrote.
#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    pub(crate) output: PathBuf,
    pub(crate) bytes: u64,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of content", self.output.display(), human(self.bytes))
    }
}
