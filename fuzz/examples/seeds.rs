//! Writes the small seeds of every target into `fuzz/seeds/`: `cargo run --example seeds`.
//! To be run again when a format changes; the files are checked in, so that fuzzing starts
//! from valid inputs without building this.

use flate2::write::GzEncoder;
use flattener::layer::Digest;
use fleet::stripe::Code;
use fleet::wire::{ShardHeader, ShardRecord};
use fuzz::tar::Archive;
use fuzz::{reference_name, root, salt, tenant, tenant_key};
use image_format::ids::{ChunkId, ImageDigest, ImageId};
use image_format::manifest::{Entry, Manifest, ManifestHead};
use image_format::reference::Reference;
use image_format::root::{RootState, RootTable};
use image_format::seal::{Compression, Sealer};
use image_format::units::{CHUNK_SIZE, ChunkIndex};
use image_format::{envelope, manifest::SealedManifest};
use std::io::Write;
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

/// A layer with one of everything.
fn layer() -> Vec<u8> {
    let mut archive = Archive::default();
    archive
        .entry(b'5', "etc/", "", b"")
        .file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        .pax(&[("SCHILY.xattr.user.note", "x"), ("mtime", "1700000000.25"), ("path", "etc/long name")])
        .file("etc/short", &[&[0; 5000][..], b"after a hole"].concat())
        .entry(b'2', "etc/link", "passwd", b"")
        .entry(b'1', "etc/hard", "etc/passwd", b"")
        .entry(b'3', "null", "", b"")
        .entry(b'6', "fifo", "", b"")
        .entry(b'L', "././@LongLink", "", &[b'n'; 150])
        .file("cut", b"long")
        .finish()
}

/// Sparse files as PAX 0.1 and 1.0 spell them.
fn sparse() -> Vec<u8> {
    let mut map = b"2\n0\n4\n8192\n4\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"headtail");
    let mut archive = Archive::default();
    archive
        .pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "sparse"),
            ("GNU.sparse.realsize", "8196"),
        ])
        .file("GNUSparseFile.0/sparse", &map)
        .pax(&[("GNU.sparse.size", "8196"), ("GNU.sparse.map", "0,4,8192,4")])
        .file("other", b"headtail")
        .finish()
}

/// A layer that removes and replaces what [`layer`] made.
fn upper() -> Vec<u8> {
    let mut archive = Archive::default();
    archive
        .file("etc/.wh.passwd", b"")
        .file("etc/link", b"a file now")
        .entry(b'5', "var/", "", b"")
        .file("var/.wh..wh..opq", b"")
        .file("var/log/new", b"implied parent")
        .entry(b'2', "run", "var/log", b"")
        .file("run/through", b"a link")
        .finish()
}

fn layers() -> Result {
    for (name, archive) in [("everything", layer()), ("sparse", sparse()), ("upper", upper())] {
        write("layer", name, &archive)?;
        write("ext4", name, &archive)?;
        write("tree", name, &archive)?;
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive)?;
        write("layer_blob", &format!("{name}.gz"), &gzip.finish()?)?;
        write("layer_blob", &format!("{name}.zst"), &zstd::bulk::compress(&archive, 1)?)?;
    }
    for (name, length) in [("short", 400), ("middle", 1500), ("long", 3000)] {
        let mut noise = vec![0; length];
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut noise);
        write("entries", name, &noise)?;
    }
    write("tree", "two", &[&layer(), &b"NEXTLAYR"[..], &upper()].concat())?;
    let acl = [2, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0, 4, 0, 5, 0, 0, 0, 0, 0, 0x20, 0, 5, 0, 0, 0, 0, 0];
    write("tree", "acl", &acl)
}

const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$M","size":$m,"platform":{"os":"linux","architecture":"amd64"},"annotations":{"org.opencontainers.image.ref.name":"1"}}]}"#;
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$C","size":$c},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$L","size":$l}]}"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"User":"web:33","Env":["A=b"],"Entrypoint":["/bin/sh"],"Cmd":["-c"],"WorkingDir":"/x"},"rootfs":{"type":"layers","diff_ids":["$L"]}}"#;
const DOCKER: &str = r#"[{"Config":"$C","RepoTags":["app:1"],"Layers":["blobs/sha256/LAYER"]}]"#;

fn images() -> Result {
    let text = b"layer";
    let layer_hex = Digest::of(text).hex();
    let docker = DOCKER.replace("LAYER", &layer_hex);
    let documents = |docker: &str| [INDEX, docker, MANIFEST, CONFIG, "layer"].join("\0");
    write("image_documents", "layout", documents("").as_bytes())?;
    write("image_documents", "docker", documents(&docker).as_bytes())?;
    write("image_config", "full", CONFIG.as_bytes())?;
    write("image_config", "nulls", br#"{"config":{"Env":null,"Cmd":null}}"#)?;

    // The same as archives, with the digests in place.
    let size = text.len().to_string();
    let config = CONFIG.replace("$L", &format!("sha256:{layer_hex}"));
    let config_hex = Digest::of(config.as_bytes()).hex();
    let manifest = MANIFEST.replace("$C", &format!("sha256:{config_hex}"));
    let manifest = manifest.replace("$c", &config.len().to_string());
    let manifest = manifest.replace("$L", &format!("sha256:{layer_hex}")).replace("$l", &size);
    let manifest_hex = Digest::of(manifest.as_bytes()).hex();
    let index = INDEX.replace("$M", &format!("sha256:{manifest_hex}"));
    let index = index.replace("$m", &manifest.len().to_string());
    let blob = |hex: &str| format!("blobs/sha256/{hex}");
    let mut archive = Archive::default();
    archive.file(&blob(&layer_hex), text).file(&blob(&config_hex), config.as_bytes());
    archive.file(&blob(&manifest_hex), manifest.as_bytes()).file("index.json", index.as_bytes());
    write("image_archive", "layout.tar", &archive.finish())?;
    let old = r#"[{"Config":"config.json","Layers":["a/layer.tar"]}]"#;
    archive.file("config.json", config.as_bytes()).file("b/layer.tar", text);
    archive.entry(b'2', "a/layer.tar", "../b/layer.tar", b"").file("manifest.json", old.as_bytes());
    write("image_archive", "docker.tar", &archive.finish())?;

    for (name, text) in [
        ("short", "ubuntu:22.04".to_owned()),
        ("full", format!("docker://localhost:5000/a/b:1@sha256:{layer_hex}")),
        ("layout", "oci:/a/dir:tag".into()),
        ("archive", "docker-archive:f.tar:ubuntu:22.04".into()),
        ("platform", "linux/arm/v7".into()),
        ("path", "./a//b/../c".into()),
    ] {
        write("image_names", name, text.as_bytes())?;
    }
    Ok(())
}

fn hosts() -> Result {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n";
    let group = "root:x:0:\nweb:x:33:\nlogs:x:40:web,root\n";
    for (name, user) in [("name", "web"), ("numbers", "33:40"), ("group", "web:logs")] {
        write("identity", name, [user, passwd, group].join("\0").as_bytes())?;
    }
    let digits = "ab".repeat(32);
    for (name, text) in [
        ("size", "1.5G".to_owned()),
        ("bind", "type=bind,source=/a,target=/b,readonly".into()),
        ("tmpfs", "type=tmpfs,target=/b".into()),
        (
            "keyring",
            format!("version = 1\n[tenants]\nlocal = \"{digits}\"\n[domains]\nteam = \"{digits}\"\n"),
        ),
        (
            "file",
            "[store]\nurl = \"s3://b/p\"\n[worker]\nssd_cache_bytes = 4096\npolicy = \"lru-k\"\n".into(),
        ),
    ] {
        write("settings", name, text.as_bytes())?;
    }
    Ok(())
}

/// A chunk of so many bytes as its shards, and lists of nodes.
fn remote_cache() -> Result {
    for (name, code, length) in [
        ("published", Code::PUBLISHED, 1000),
        ("two-parities", Code::new(3, 2)?, 700),
        ("copies", Code::new(1, 1)?, 10),
    ] {
        let chunk: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
        let id = ChunkId::of(&chunk);
        let shards = code.encode(&chunk.clone().into());
        for (index, payload) in (0..code.width()).zip(shards) {
            let header = ShardHeader { index, data: code.data(), parity: code.parity(), stored_len: length };
            let record = ShardRecord { header, payload }.to_bytes(&id);
            if index == 0 || index + 1 == code.width() {
                write("shard_record", &format!("{name}-{index}"), &[id.as_bytes(), &record[..]].concat())?;
            }
        }
        // the first data shard is lost, in the order that the target reads it
        let head = [code.data(), code.parity(), 1, 0, 0, 0];
        write("stripe", name, &[&head, &chunk[..]].concat())?;
    }
    for (name, text) in [
        ("one", "[[node]]\naddress = \"127.0.0.1:7400\"\n"),
        (
            "two",
            "[[node]]\nname = \"a\"\naddress = \"10.0.0.1:7400\"\nzone = \"z1\"\nweight = 2\n\n\
             [[node]]\nname = \"b\"\naddress = \"[::1]:7400\"\nzone = \"z2\"\n",
        ),
        (
            "inline",
            "node = [{ address = 'cache-0.cache:7400' }, { address = 'cache-1.cache:7400', weight = 100 }]",
        ),
    ] {
        write("members", name, text.as_bytes())?;
    }
    Ok(())
}

fn main() -> Result {
    image_format()?;
    layers()?;
    images()?;
    hosts()?;
    remote_cache()
}
