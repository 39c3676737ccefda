//! What a push did, for people and for programs.

use crate::pipeline::Tally;
use image_format::ids::{ImageDigest, ImageId};
use image_format::names::ImageName;
use serde::Serialize;
use std::fmt;

/// Seconds spent in each stage of a push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StageSeconds {
    /// Finding the image and asking the store about it.
    pub resolve: f64,
    /// Fetching, checking, inflating and parsing the layers.
    pub layers: f64,
    /// Applying layers and placing files.
    pub layout: f64,
    /// Rendering, sealing and storing chunks.
    pub store: f64,
    /// Writing the manifest and the reference.
    pub commit: f64,
}

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The image was flattened and stored.
    Stored,
    /// The store had the image under this name already; nothing was written.
    UpToDate,
    /// The store had the image; only the name was moved.
    Renamed,
}

/// The report of one push.
#[derive(Debug, Clone, Serialize)]
pub struct PushReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Name under which the image can be run.
    #[serde(serialize_with = "as_text")]
    pub name: ImageName,
    /// Digest of the OCI image.
    #[serde(serialize_with = "as_text")]
    pub digest: ImageDigest,
    /// Id of its manifest.
    #[serde(serialize_with = "as_text")]
    pub image_id: ImageId,
    /// Where it is.
    pub store: String,
    /// Number of layers read.
    pub layers: usize,
    /// Compressed bytes of the layers read.
    pub layer_bytes: u64,
    /// Files, directories and other objects in the image.
    pub inodes: u64,
    /// Length of the device in bytes.
    pub device_bytes: u64,
    /// Chunks new and shared.
    #[serde(flatten)]
    pub tally: Tally,
    /// Time by stage.
    pub seconds: StageSeconds,
}

fn as_text<T: fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Bytes for people: `17.3 MiB`.
#[must_use]
pub fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

impl fmt::Display for PushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::UpToDate => {
                return write!(f, "{} is up to date in {} ({})", self.name, self.store, self.digest);
            }
            Outcome::Renamed => {
                return write!(
                    f,
                    "{} now means {}, which {} had already",
                    self.name, self.digest, self.store
                );
            }
            Outcome::Stored => {}
        }
        let Tally {
            chunks,
            new_chunks,
            new_bytes,
            shared_chunks,
            shared_bytes,
            repeated_chunks,
            payload_bytes,
            primed_chunks,
        } = self.tally;
        writeln!(f, "pushed {} to {}", self.name, self.store)?;
        writeln!(f, "  image   {}", self.digest)?;
        writeln!(
            f,
            "  read    {} layers, {}; {} inodes, {} of content",
            self.layers,
            human(self.layer_bytes),
            self.inodes,
            human(payload_bytes)
        )?;
        writeln!(
            f,
            "  chunks  {chunks}: {new_chunks} new ({}), {shared_chunks} shared ({}), {repeated_chunks} repeated; {:.1} % new",
            human(new_bytes),
            human(shared_bytes),
            percent(new_chunks, new_chunks + shared_chunks),
        )?;
        if primed_chunks > 0 {
            writeln!(f, "  primed  {primed_chunks} chunks in the remote cache")?;
        }
        let StageSeconds { resolve, layers, layout, store, commit } = self.seconds;
        write!(
            f,
            "  time    {:.2} s: resolve {resolve:.2}, layers {layers:.2}, layout {layout:.2}, store {store:.2}, commit {commit:.2}",
            resolve + layers + layout + store + commit
        )
    }
}
