//! Writes the small seeds of every target into `fuzz/seeds/`: `cargo run --example seeds`.
//! To be run again when a format changes; the files are checked in, so that fuzzing starts
//! from valid inputs without building this.

use fuzz::{reference_name, root, salt, tenant, tenant_key};
use image_format::ids::{ImageDigest, ImageId};
use image_format::manifest::{Entry, Manifest, ManifestHead};
use image_format::reference::Reference;
use image_format::root::{RootState, RootTable};
use image_format::seal::{Compression, Sealer};
use image_format::units::{CHUNK_SIZE, ChunkIndex};
use image_format::{envelope, manifest::SealedManifest};
use std::path::Path;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn write(target: &str, name: &str, bytes: &[u8]) -> Result {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(name), bytes)?)
}

fn manifest(chunks: u32) -> Result<Manifest> {
    let head = ManifestHead {
        image: ImageDigest::from_bytes([3; 32]),
        layout_policy: 1,
        chunk_size: CHUNK_SIZE,
        device_len: 64 * u64::from(CHUNK_SIZE.bytes()),
        root: root(),
        tenant: tenant(),
    };
    let mut sealer = Sealer::new(salt(), Compression::Zstd(1))?;
    let (mut entries, mut keys) = (Vec::new(), Vec::new());
    for index in 0..chunks {
        let sealed = sealer.seal(format!("chunk {index}").repeat(100).as_bytes()).ok_or("not zeros")?;
        let stored_len = u32::try_from(sealed.bytes.len())?;
        entries.push(Entry { index: ChunkIndex(index * 2), id: sealed.id, stored_len, codec: sealed.codec });
        keys.push(sealed.key);
    }
    let config = br#"{"config":{"Cmd":["/bin/sh"]}}"#.to_vec();
    Ok(Manifest::new(head, entries, keys, config)?)
}

fn image_format() -> Result {
    let key = tenant_key();
    for chunks in [0, 1, 3] {
        let manifest = manifest(chunks)?;
        let bytes = manifest.seal(&key);
        write("manifest", &format!("chunks-{chunks}"), &bytes)?;
        let clear = 256 + usize::try_from(chunks)? * 40;
        SealedManifest::decode(bytes.clone().into())?;
        let inner = envelope::open(&key, &bytes[..clear], &bytes[clear..bytes.len() - 32])?;
        let parts = [&[u8::try_from(chunks)?], &bytes[..clear], &inner];
        write("manifest_sealed", &format!("chunks-{chunks}"), &parts.concat())?;
    }

    let reference = Reference {
        image: ImageId::from_bytes([1; 32]),
        digest: ImageDigest::from_bytes([2; 32]),
        device_len: 1 << 30,
        stored_bytes: 1 << 20,
        chunk_count: 17,
    };
    write("reference", "plain", &reference.seal(&key, &reference_name()))?;

    let mut table = RootTable::initial(root());
    write("roots", "initial", &table.encode())?;
    table.add("r2".parse()?)?;
    table.advance(&root(), RootState::Retired)?;
    write("roots", "two", &table.encode())?;

    write("envelope", "sealed", &[&[2], &b"ad"[..], &envelope::seal(&key, b"ad", b"plain text")].concat())?;
    write("envelope", "empty", &[0])?;

    let digits = "ab".repeat(32);
    for (name, text) in [
        ("table", "roots/table".to_owned()),
        ("probe", "probes/p1".into()),
        ("reference", reference_name().to_string()),
        ("manifest", format!("roots/r1/manifests/local/{digits}")),
        ("profile", format!("roots/r1/profiles/local/{digits}")),
        ("chunk", format!("roots/r1/chunks/ab/{digits}")),
        ("digest", format!("sha256:{digits}")),
        ("image", "docker.io/library/python:3.12".into()),
    ] {
        write("names", name, text.as_bytes())?;
    }

    let text = b"the quick brown fox jumps over the lazy dog ".repeat(20);
    let mut sealer = Sealer::new(salt(), Compression::Zstd(1))?;
    write("chunk", "plain", &[&[0], &text[..]].concat())?;
    write("chunk", "zeros", &[0; 500])?;
    write("chunk", "sealed", &[&[1], &sealer.seal(&text).ok_or("not zeros")?.bytes[..]].concat())
}

fn main() -> Result {
    image_format()
}
