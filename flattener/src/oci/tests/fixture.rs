//! An OCI layout with two small layers, for any number of platforms.

use crate::layer::entry::{EntryKind, Layer, LayerIndex};
use crate::layer::{Budget, Digest, Limits, read_layer};
use crate::oci::{Image, ImageSource, SourceOptions, open};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A tar archive with one file.
pub(super) fn archive(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, text) in [
        (100, "0000644\0".to_owned()),
        (108, "0000000\0".to_owned()),
        (116, "0000000\0".to_owned()),
        (124, format!("{:011o}\0", contents.len())),
        (136, "00000000000\0".to_owned()),
        (148, "        ".to_owned()),
        (156, "0".to_owned()),
        (257, "ustar\x0000".to_owned()),
    ] {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = [&block[..], contents].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// A layout in the making.
pub(super) struct Fixture<'d>(pub(super) &'d Path);

impl Fixture<'_> {
    pub(super) fn new(directory: &Path) -> Fixture<'_> {
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Fixture(directory)
    }

    /// Stores a blob; its descriptor without the closing brace.
    pub(super) fn blob(&self, media_type: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        fs::write(self.0.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}"#, bytes.len())
    }

    /// Stores an image of two layers; the descriptor of its manifest, open.
    pub(super) fn image(&self, architecture: &str) -> String {
        let lower = archive("lower", &b"lower ".repeat(30_000));
        let upper = archive("upper", architecture.as_bytes());
        let gzip = |bytes: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).unwrap();
            gzip.finish().unwrap()
        };
        let media_type = format!("{LAYER}+gzip");
        let lower_blob = self.blob(&media_type, &gzip(&lower));
        let upper_blob = self.blob(&media_type, &gzip(&upper));
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
            Digest::of(&lower),
            Digest::of(&upper)
        );
        let config = self.blob(CONFIG, config.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config}}},"layers":[{lower_blob}}},{upper_blob}}}]}}"#
        );
        self.blob(MANIFEST, manifest.as_bytes())
    }

    /// Stores an index of images for these architectures; its descriptor, open.
    pub(super) fn index(&self, architectures: &[&str]) -> String {
        let entry = |architecture: &&str| {
            let image = self.image(architecture);
            format!(r#"{image},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#)
        };
        let entries: Vec<String> = architectures.iter().map(entry).collect();
        let index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
        self.blob(INDEX, index.as_bytes())
    }

    /// Writes `index.json` with these open descriptors under these names.
    pub(super) fn finish(&self, images: &[(&str, String)]) {
        let entry = |(name, descriptor): &(&str, String)| {
            let annotations = format!(r#""annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
            format!("{descriptor},{annotations}}}")
        };
        let entries: Vec<String> = images.iter().map(entry).collect();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        fs::write(self.0.join("index.json"), index).unwrap();
    }
}

/// Opens and resolves.
pub(super) async fn resolve(name: &str, options: &SourceOptions) -> (ImageSource, Image) {
    let source = open(&name.parse().unwrap(), options).await.unwrap();
    let image = source.resolve().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(source.digest().await.unwrap(), image.manifest_digest);
    assert_eq!(Digest::of(&image.manifest), image.manifest_digest);
    (source, image)
}

/// The error of opening or resolving, with its causes.
pub(super) async fn refusal(name: &str, options: &SourceOptions) -> String {
    let error = match open(&name.parse().unwrap(), options).await {
        Ok(source) => source.resolve().await.unwrap_err(),
        Err(error) => error,
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Reads all layers as a push would, on a thread that may block.
pub(super) async fn layers(source: ImageSource, image: &Image) -> Vec<Layer> {
    let descriptors = image.layers.clone();
    let read = move || {
        let budget = Budget::new(Limits::default());
        let read = |(index, descriptor): (u32, _)| {
            let blob = source.blob(descriptor).unwrap();
            let dir = std::env::temp_dir();
            read_layer(LayerIndex(index), descriptor, blob, &budget, &dir, &|_| ()).map(|(layer, _)| layer)
        };
        let layers: Result<Vec<Layer>, _> = (0..).zip(&descriptors).map(read).collect();
        layers.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Checks that the image is the fixture's for `architecture`.
pub(super) async fn check(source: ImageSource, image: &Image, architecture: &str) {
    assert_eq!(image.platform, format!("linux/{architecture}"));
    let layers = layers(source, image).await;
    let files: Vec<(String, u64)> = layers
        .iter()
        .flat_map(|layer| &layer.entries)
        .map(|entry| match &entry.kind {
            EntryKind::File(content) => (entry.path.to_string(), content.size),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(files, [("/lower".into(), 180_000), ("/upper".into(), architecture.len() as u64)]);
}

/// Runs skopeo.
pub(super) fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output();
    let output = output.expect("the tests need the Debian package skopeo");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
