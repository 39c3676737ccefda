//! The JSON documents of an image behind their digests. The input is `index.json`, Docker's
//! `manifest.json`, a manifest, a config and a layer, separated by zero bytes; in them `$M`
//! and `$m`, `$C` and `$c`, `$L` and `$l` stand for digest and size of the later ones.

#![no_main]

use flattener::layer::Digest;
use fuzz::files::MemoryFile;
use fuzz::images::{self, Kind};
use fuzz::tar::Archive;
use libfuzzer_sys::fuzz_target;
use photon::image_config::ImageConfig;
use std::sync::LazyLock;

static FILE: LazyLock<MemoryFile> = LazyLock::new(|| MemoryFile::new().expect("a file in memory"));

/// The text with `$` and a letter replaced by what stands for it.
fn replace(text: &[u8], values: &[(u8, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let value = tail.first().and_then(|letter| values.iter().find(|(name, _)| name == letter));
        match value.filter(|_| byte == b'$') {
            Some((_, value)) => {
                out.extend_from_slice(value.as_bytes());
                rest = &tail[1..];
            }
            None => out.push(byte),
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(5, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (index, docker, manifest, config, layer) = (part(), part(), part(), part(), part());

    let mut archive = Archive::default();
    let mut values = Vec::new();
    let mut blob = |text: &[u8], values: &mut Vec<(u8, String)>, letter: u8| {
        let bytes = replace(text, values);
        let digest = Digest::of(&bytes);
        archive.file(&format!("blobs/sha256/{}", digest.hex()), &bytes);
        values.push((letter, digest.to_string()));
        values.push((letter.to_ascii_lowercase(), bytes.len().to_string()));
    };
    blob(layer, &mut values, b'L');
    blob(config, &mut values, b'C');
    blob(manifest, &mut values, b'M');
    archive.file("index.json", &replace(index, &values));
    let layout_only = docker.is_empty();
    if !layout_only {
        let name = values.iter().find(|(name, _)| *name == b'C').map(|(_, digest)| digest.clone());
        let name = name.unwrap_or_default().replace("sha256:", "blobs/sha256/");
        archive.file("manifest.json", &replace(docker, &[(b'C', name)]));
    }
    FILE.fill(&archive.finish()).expect("room in memory");
    let first = images::read(&FILE, Kind::Layout);
    let second = images::read(&FILE, Kind::Docker);
    if layout_only {
        let digest = |image: &Option<flattener::oci::Image>| image.as_ref().map(|i| i.manifest_digest);
        assert_eq!(digest(&first), digest(&second), "read for what it is");
    }
    for image in [first, second].into_iter().flatten() {
        let _ = ImageConfig::parse(&image.config);
    }
});
