//! What `docker save` writes: a tar file with `manifest.json`, image configs and layers.
//!
//! All generations are read through `manifest.json`: one directory a layer, layers that are
//! links to other layers, and OCI layouts inside. The format has no manifest digest, so a
//! canonical manifest is made from config and diff ids (`docs/image-input.md`); it does not
//! depend on how the archive stores the layers.

use super::error::SourceFault;
use super::files::{Files, Range};
use super::manifest::{Config, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, DOCUMENT_MAX};
use super::reference::RegistryRef;
use crate::layer::{Digest, LayerDescriptor};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::Read;

/// One image of the archive.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An image of the archive, resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<LayerDescriptor>,
    /// Member names by digest.
    pub(super) members: HashMap<Digest, String>,
}

/// The archive and the name wanted of it. Blocking.
#[derive(Debug, Clone)]
pub(super) struct DockerArchive {
    pub(super) files: Files,
    pub(super) image: Option<String>,
}

impl DockerArchive {
    fn choose(&self) -> Result<Item, SourceFault> {
        let bytes = self.files.read("manifest.json", DOCUMENT_MAX)?;
        let items: Vec<Item> = serde_json::from_slice(&bytes)
            .map_err(|source| SourceFault::Json { what: "manifest.json".into(), source })?;
        let held = || {
            let names: Vec<String> = items
                .iter()
                .enumerate()
                .map(|(at, item)| match item.repo_tags.as_deref() {
                    None | Some([]) => format!("@{at}"),
                    Some(tags) => tags.join(" "),
                })
                .collect();
            if names.is_empty() { "no image".into() } else { names.join(", ") }
        };
        let found = match &self.image {
            None if items.len() > 1 => return Err(SourceFault::Ambiguous(held())),
            None => items.first(),
            Some(wanted) => match wanted.strip_prefix('@') {
                Some(at) => at.parse::<usize>().ok().and_then(|at| items.get(at)),
                None => items.iter().find(|item| is_tagged(item, wanted)),
            },
        };
        let wanted = self.image.clone().unwrap_or_default();
        found.cloned().ok_or_else(|| SourceFault::NoSuchName { wanted, held: held() })
    }

    /// Finds the image and the digest of each of its layers. Layers that are compressed and
    /// not named by their digest are read once for it.
    pub(super) fn resolve(&self) -> Result<Resolved, SourceFault> {
        let item = self.choose()?;
        let config = self.files.read(&item.config, DOCUMENT_MAX)?;
        check_config_name(&item.config, &config)?;
        let diff_ids = Config::parse(&config)?.diff_ids()?;
        let names = item.layers.unwrap_or_default();
        if names.len() != diff_ids.len() {
            return Err(SourceFault::LayerCount { layers: names.len(), diff_ids: diff_ids.len() });
        }
        let mut members = HashMap::new();
        let mut layers = Vec::with_capacity(names.len());
        for (name, diff_id) in names.into_iter().zip(&diff_ids) {
            let range = self.files.open(&name)?;
            let size = range.length();
            let digest = self.layer_digest(&name, range, diff_id)?;
            let media_type = if digest == *diff_id { DOCKER_LAYER.into() } else { String::new() };
            layers.push(LayerDescriptor { digest, size, media_type, diff_id: *diff_id });
            members.insert(digest, name);
        }
        Ok(Resolved { manifest: canonical_manifest(&config, &diff_ids), config, layers, members })
    }

    /// A plain tar has its diff id as digest, which reading it will verify. A compressed
    /// layer is named by its digest in newer archives; otherwise it is digested here.
    fn layer_digest(&self, name: &str, range: Range, diff_id: &Digest) -> Result<Digest, SourceFault> {
        let fault = |source| SourceFault::File { path: format!("{}/{name}", self.files.container()), source };
        let mut start = [0; 4];
        let mut beginning = range.clone().take(4);
        let mut filled = 0;
        while filled < start.len() {
            match beginning.read(&mut start[filled..]).map_err(fault)? {
                0 => break,
                more => filled += more,
            }
        }
        if !matches!(start, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(*diff_id);
        }
        match name.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}").parse()) {
            Some(Ok(digest)) => Ok(digest),
            _ => range.digest().map_err(fault),
        }
    }
}

fn is_tagged(item: &Item, wanted: &str) -> bool {
    let canonical = |name: &str| name.parse::<RegistryRef>().ok();
    let tags = item.repo_tags.as_deref().unwrap_or_default();
    tags.iter().any(|tag| tag == wanted || canonical(tag).is_some_and(|tag| Some(tag) == canonical(wanted)))
}

/// Configs are named by their digest (`HEX.json` or `blobs/sha256/HEX`); where they are, it
/// must be right.
fn check_config_name(name: &str, bytes: &[u8]) -> Result<(), SourceFault> {
    let hex = name.strip_suffix(".json").unwrap_or(name).rsplit('/').next().unwrap_or_default();
    match format!("sha256:{hex}").parse::<Digest>() {
        Ok(want) if want != Digest::of(bytes) => Err(SourceFault::Mismatch {
            what: "the image config".into(),
            want: want.to_string(),
            got: Digest::of(bytes),
            got_size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }),
        _ => Ok(()),
    }
}

/// The manifest whose digest stands for the image: the bytes are normative.
pub(super) fn canonical_manifest(config: &[u8], diff_ids: &[Digest]) -> Vec<u8> {
    let layer = |id: &Digest| format!(r#"{{"mediaType":"{DOCKER_LAYER}","digest":"{id}"}}"#);
    let layers: Vec<String> = diff_ids.iter().map(layer).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{{"mediaType":"{DOCKER_CONFIG}","size":{},"digest":"{}"}},"layers":[{}]}}"#,
        config.len(),
        Digest::of(config),
        layers.join(",")
    )
    .into_bytes()
}
