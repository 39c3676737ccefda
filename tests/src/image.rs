//! OCI images made in code, as layouts on disk.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// One layer under construction.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

/// A time with the sub-second part of entries that carry one.
pub const MTIME: u64 = 1_600_000_000;

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self { tar: Builder::new(Vec::new()) }
    }

    /// An entry of any kind with raw name and link target.
    #[must_use]
    pub fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(100);
        header.set_mtime(MTIME);
        header.set_size(data.len() as u64);
        self.long(b'L', path);
        self.long(b'K', link);
        let old = header.as_old_mut();
        let name = &path[..path.len().min(100)];
        old.name[..name.len()].copy_from_slice(name);
        let link = &link[..link.len().min(100)];
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.tar.append(&header, data).unwrap();
        self
    }

    /// A GNU long-name header, where the value needs one.
    fn long(&mut self, kind: u8, value: &[u8]) {
        if value.len() <= 100 {
            return;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.set_size(value.len() as u64 + 1);
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_cksum();
        let data = [value, b"\0"].concat();
        self.tar.append(&header, &data[..]).unwrap();
    }

    /// A PAX header for the next entry.
    #[must_use]
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.tar.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", mode, b"")
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", 0o644, data.as_ref())
    }

    /// An executable file.
    #[must_use]
    pub fn program(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", 0o755, data.as_ref())
    }

    /// All that is in a directory of this host, links as links, at the root.
    #[must_use]
    pub fn tree(mut self, directory: &Path) -> Self {
        self.tar.follow_symlinks(false);
        self.tar.append_dir_all("", directory).unwrap();
        self
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// A character device.
    #[must_use]
    pub fn device(mut self, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_mode(0o600);
        header.set_mtime(MTIME);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_path(path).unwrap();
        header.set_cksum();
        self.tar.append(&header, &b""[..]).unwrap();
        self
    }

    /// Removes a path of lower layers.
    #[must_use]
    pub fn whiteout(self, directory: &str, name: &str) -> Self {
        let slash = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{slash}.wh.{name}"), "")
    }

    /// Removes everything that lower layers put into a directory.
    #[must_use]
    pub fn opaque(self, directory: &str) -> Self {
        self.file(&format!("{directory}/.wh..wh..opq"), "")
    }

    /// The finished archive.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

fn sha256(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

fn blob(layout: &Path, data: &[u8]) -> serde_json::Value {
    let digest = sha256(data);
    let directory = layout.join("blobs/sha256");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(&digest[7..]), data).unwrap();
    json!({"digest": digest, "size": data.len()})
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Writes a layout of one image, tagged `latest`, with these uncompressed layers and this
/// `config` section.
pub fn layout(directory: &Path, layers: &[Vec<u8>], config: &serde_json::Value) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let mut config = blob(directory, config.to_string().as_bytes());
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let layers: Vec<serde_json::Value> = layers
        .iter()
        .map(|layer| {
            let mut descriptor = blob(directory, &gzip(layer));
            descriptor["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
            descriptor
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers,
    });
    let mut manifest = blob(directory, manifest.to_string().as_bytes());
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
}
