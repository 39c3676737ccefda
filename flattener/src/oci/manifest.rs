//! Manifests, indexes and configs: the few fields that flattening needs, from OCI and
//! Docker schema 2 documents alike.
//!
//! Pure. Unknown fields are ignored, as the specifications demand.

use super::error::SourceFault;
use super::platform::Platform;
use crate::layer::{Digest, LayerDescriptor};
use serde::Deserialize;
use std::collections::HashMap;

/// Longest manifest, index or config in bytes; what registries and engines agree on.
pub(super) const DOCUMENT_MAX: u64 = 4 << 20;

/// Most layers. Engines stop at 127 or below; each of ours costs a thread and a file.
const LAYERS_MAX: usize = 512;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(super) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// What is asked of a registry, and what of it is understood.
pub(super) const ACCEPT: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// A pointer from one document to another or to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: Option<HashMap<String, String>>,
}

impl Descriptor {
    /// The digest, or why it cannot be checked.
    pub(super) fn digest(&self, what: &str) -> Result<Digest, SourceFault> {
        self.digest.parse().map_err(|source| SourceFault::Digest { what: what.into(), source })
    }
}

/// Either kind of document under an image's name.
#[derive(Debug, Clone)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// An image for one platform.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// Parses what a name or descriptor points to. The document's own media type decides, then
/// its shape; `what` names it in errors.
pub(super) fn parse(bytes: &[u8], what: &str) -> Result<Document, SourceFault> {
    let json = |source| SourceFault::Json { what: what.into(), source };
    let unsupported = |text: &str| Err(SourceFault::Unsupported(format!("{what} {text}")));
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(json)?;
    if envelope.schema_version == 1 {
        return unsupported(
            "is a Docker schema 1 manifest, which has no checkable config; pull and push the image with a current engine",
        );
    }
    match envelope.media_type.as_deref() {
        None | Some(OCI_INDEX | DOCKER_LIST | OCI_MANIFEST | DOCKER_MANIFEST) => {}
        Some(other) => {
            return unsupported(&format!("has media type {:?}, which is no image", shorten(other)));
        }
    }
    match (envelope.manifests, envelope.config, envelope.layers) {
        (Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (None, Some(config), Some(layers)) if layers.len() <= LAYERS_MAX => {
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        (None, Some(_), Some(layers)) => {
            unsupported(&format!("has {} layers; at most {LAYERS_MAX} are accepted", layers.len()))
        }
        _ => unsupported("is neither an image index nor an image manifest"),
    }
}

/// Whether a descriptor points to an index.
pub(super) fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// What the image config says about the file system.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    #[serde(flatten)]
    platform: Option<Platform>,
    rootfs: RootFs,
}

#[derive(Debug, Clone, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

impl Config {
    /// Parses an image config.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SourceFault> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|source| SourceFault::Json { what: "the image config".into(), source })?;
        if config.rootfs.kind != "layers" {
            return Err(SourceFault::Unsupported(format!(
                "the image config's root file system is of type {:?}; only \"layers\" exists",
                shorten(&config.rootfs.kind)
            )));
        }
        Ok(config)
    }

    /// The platform it names, where it does.
    pub(super) fn platform(&self) -> Option<Platform> {
        self.platform.clone().map(Platform::normalised)
    }

    /// Digests of the uncompressed layers, from the bottom.
    pub(super) fn diff_ids(&self) -> Result<Vec<Digest>, SourceFault> {
        let ids = self.rootfs.diff_ids.as_deref().unwrap_or_default();
        let digest = |id: &String| {
            id.parse().map_err(|source| SourceFault::Digest { what: "the image config".into(), source })
        };
        ids.iter().map(digest).collect()
    }
}

impl Manifest {
    /// The layers from the bottom, joined with the config's diff ids.
    pub(super) fn layers(&self, diff_ids: &[Digest]) -> Result<Vec<LayerDescriptor>, SourceFault> {
        if self.layers.len() != diff_ids.len() {
            return Err(SourceFault::LayerCount { layers: self.layers.len(), diff_ids: diff_ids.len() });
        }
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
            check_layer_type(&layer.media_type)?;
            Ok(LayerDescriptor {
                digest: layer.digest("the manifest")?,
                size: layer.size,
                media_type: layer.media_type.clone(),
                diff_id: *diff_id,
            })
        };
        self.layers.iter().zip(diff_ids).map(layer).collect()
    }
}

fn check_layer_type(media_type: &str) -> Result<(), SourceFault> {
    let refuse = |reason: &str| {
        Err(SourceFault::Unsupported(format!("a layer of media type {:?} {reason}", shorten(media_type))))
    };
    if media_type.contains("foreign") || media_type.contains("nondistributable") {
        return refuse("is not kept in the image (a foreign layer); it cannot be flattened");
    }
    if media_type.contains("encrypted") {
        return refuse("is encrypted; decrypt the image first");
    }
    let known = ["application/vnd.oci.image.layer.v1.tar", DOCKER_LAYER];
    match known.iter().find_map(|known| media_type.strip_prefix(known)) {
        Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd") => Ok(()),
        _ => refuse("is not known to hold files"),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str) -> String {
        let digest = Digest::of(b"");
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":7}}"#)
    }

    #[test]
    fn documents_are_told_apart() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
        let config = descriptor(DOCKER_CONFIG);
        for (text, want) in [
            (format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#), "manifest"),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{config}]}}"#), "index"),
            (format!(r#"{{"schemaVersion":1,"fsLayers":[],"config":{config}}}"#), "schema 1"),
            (format!(r#"{{"schemaVersion":2,"mediaType":"text/x","manifests":[{config}]}}"#), "text/x"),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config},"layers":[]}}"#),
                "is neither an image index",
            ),
            (r#"{"schemaVersion":2}"#.into(), "is neither an image index"),
            ("[]".into(), "not valid"),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
                    vec![layer.clone(); 513].join(",")
                ),
                "513 layers",
            ),
        ] {
            let got = match parse(text.as_bytes(), "x") {
                Ok(Document::Manifest(_)) => "manifest".into(),
                Ok(Document::Index(_)) => "index".into(),
                Err(fault) => fault.to_string(),
            };
            assert!(got.contains(want), "{got} for {text}");
        }
    }

    #[test]
    fn layers_are_joined_with_diff_ids_or_refused() {
        let manifest = |media_type: &str| Manifest {
            config: serde_json::from_str(&descriptor(DOCKER_CONFIG)).unwrap(),
            layers: vec![serde_json::from_str(&descriptor(media_type)).unwrap()],
        };
        let id = [Digest::of(b"x")];
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            assert_eq!(manifest(good).layers(&id).unwrap()[0].diff_id, id[0], "{good}");
        }
        for bad in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.in-toto+json",
            "",
        ] {
            assert!(manifest(bad).layers(&id).is_err(), "{bad}");
        }
        assert!(manifest("application/vnd.oci.image.layer.v1.tar").layers(&[]).is_err());
    }

    #[test]
    fn configs() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"x":1}}"#
        );
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(config.platform().unwrap().to_string(), "linux/amd64");
        assert_eq!(config.diff_ids().unwrap(), [digest]);
        assert!(Config::parse(br#"{"rootfs":{"type":"x"}}"#).is_err());
        assert!(Config::parse(b"{}").is_err());
        let bare = Config::parse(br#"{"rootfs":{"type":"layers","diff_ids":null}}"#).unwrap();
        assert!(bare.platform().is_none() && bare.diff_ids().unwrap().is_empty());
    }
}
