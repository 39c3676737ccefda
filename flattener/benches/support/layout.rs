//! OCI layouts written by the benches: blobs, images of existing and of new layers.
//!
//! One layout holds many tagged images that share blobs, as a registry does. Invariant:
//! equal layers given twice are one blob; gzip output depends on the bytes alone.

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layer blob in a layout.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// Descriptor as the manifest has it.
    pub(crate) descriptor: Value,
    /// Digest of the archive inside.
    pub(crate) diff_id: String,
    path: PathBuf,
}

impl Blob {
    /// The archive inside, decompressed.
    pub(crate) fn archive(&self) -> Result<Box<dyn Read>> {
        let file = BufReader::with_capacity(1 << 20, File::open(&self.path)?);
        let kind = self.descriptor["mediaType"].as_str().unwrap_or_default();
        Ok(match kind.rsplit(['+', '.']).next() {
            Some("gzip") => Box::new(MultiGzDecoder::new(file)),
            Some("zstd") => Box::new(zstd::Decoder::with_buffer(file)?),
            _ => Box::new(file),
        })
    }
}

/// A layout under construction.
#[derive(Debug)]
pub(crate) struct LayoutDir {
    directory: PathBuf,
    manifests: Vec<Value>,
}

/// Passes bytes on and digests them.
struct Digesting<W> {
    inner: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> Digesting<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), length: 0 }
    }

    fn digest(self) -> (W, String, u64) {
        (self.inner, format!("sha256:{}", hex::encode(self.hasher.finalize())), self.length)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(data)?;
        self.hasher.update(&data[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl LayoutDir {
    /// An empty layout.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { directory: directory.to_path_buf(), manifests: Vec::new() })
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    fn put(&self, data: &[u8]) -> Result<Value> {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(data)));
        fs::write(self.blob_path(&digest), data)?;
        Ok(json!({"digest": digest, "size": data.len()}))
    }

    /// Adds a gzip layer, whose archive `write` writes. `level` 0 stores.
    pub(crate) fn layer(
        &self,
        level: u32,
        write: impl FnOnce(&mut tar::Builder<&mut dyn Write>) -> Result<()>,
    ) -> Result<Blob> {
        let temporary = tempfile::NamedTempFile::new_in(&self.directory)?;
        let file = Digesting::new(std::io::BufWriter::with_capacity(1 << 20, temporary));
        let mut archive = Digesting::new(GzEncoder::new(file, Compression::new(level)));
        let mut tar = tar::Builder::new(&mut archive as &mut dyn Write);
        write(&mut tar)?;
        tar.into_inner()?;
        let (gzip, diff_id, _) = archive.digest();
        let (file, digest, size) = gzip.finish()?.digest();
        let path = self.blob_path(&digest);
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.persist(&path)?;
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        Ok(Blob { descriptor: json!({"mediaType": kind, "digest": digest, "size": size}), diff_id, path })
    }

    /// Takes over the layers of an image in another layout by reference to its blobs.
    pub(crate) fn adopt(&self, layout: &Path, tag: Option<&str>) -> Result<Vec<Blob>> {
        let read = |digest: &str| -> Result<Value> {
            let path = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(serde_json::from_slice(&text)?)
        };
        let index = layout.join("index.json");
        let index = fs::read(&index).with_context(|| format!("cannot read {}", index.display()))?;
        let index: Value = serde_json::from_slice(&index)?;
        let manifests = index["manifests"].as_array().context("an index without manifests")?;
        let found = manifests.iter().find(|entry| {
            tag.is_none_or(|tag| entry["annotations"]["org.opencontainers.image.ref.name"] == tag)
        });
        let found = found.with_context(|| format!("no image {tag:?} in {}", layout.display()))?;
        ensure!(found["mediaType"] != INDEX, "the base is an index; name an image of one platform");
        let manifest = read(found["digest"].as_str().unwrap_or_default())?;
        let config = read(manifest["config"]["digest"].as_str().unwrap_or_default())?;
        let layers = manifest["layers"].as_array().context("a manifest without layers")?;
        let diff_ids = config["rootfs"]["diff_ids"].as_array().context("a config without diff ids")?;
        layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| {
                let digest = layer["digest"].as_str().context("a layer without digest")?;
                let from = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
                let path = self.blob_path(digest);
                if !path.exists() {
                    fs::copy(&from, &path)?;
                }
                let diff_id = diff_id.as_str().unwrap_or_default().to_owned();
                Ok(Blob { descriptor: layer.clone(), diff_id, path })
            })
            .collect()
    }

    /// Adds an image of these layers under a tag.
    pub(crate) fn image(&mut self, tag: &str, layers: &[Blob], config: &Value) -> Result<()> {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let mut config = self.put(config.to_string().as_bytes())?;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layers: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut manifest = self.put(manifest.to_string().as_bytes())?;
        manifest["mediaType"] = MANIFEST.into();
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(manifest);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests});
        Ok(fs::write(self.directory.join("index.json"), index.to_string())?)
    }

    /// The image as the writer takes it.
    pub(crate) fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.directory.display())
    }
}
