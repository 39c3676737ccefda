//! Layouts and archives.

use super::fixture::*;
use crate::layer::Digest;
use crate::oci::docker_archive::canonical_manifest;
use crate::oci::{Image, Platform, SourceOptions};
use std::fs;
use std::path::Path;
use std::process::Command;

fn on(platform: &str) -> SourceOptions {
    SourceOptions { platform: Some(platform.parse().unwrap()), ..SourceOptions::default() }
}

fn name(transport: &str, path: &Path, rest: &str) -> String {
    format!("{transport}:{}{rest}", path.display())
}

#[tokio::test]
async fn layouts_by_tag_and_platform() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Fixture::new(dir.path());
    let plain = layout.image("amd64");
    let nested = layout.index(&["s390x", "riscv64"]);
    let outer = format!(
        r#"{{"schemaVersion":2,"manifests":[{nested},"platform":{{"os":"linux","architecture":"s390x"}}}}]}}"#
    );
    let outer = layout.blob(INDEX, outer.as_bytes());
    layout.finish(&[("plain", plain), ("multi", layout.index(&["arm64", "amd64"])), ("nested", outer)]);
    for (tag, platform, want) in [
        (":plain", "linux/amd64", "amd64"),
        (":multi", "linux/amd64", "amd64"),
        (":multi", "linux/arm64/v8", "arm64"),
        (":nested", "linux/s390x", "s390x"),
    ] {
        let (source, image) = resolve(&name("oci", dir.path(), tag), &on(platform)).await;
        check(source, &image, want).await;
    }
    for (rest, platform, want) in [
        ("", "linux/amd64", "several images, name one: plain, multi, nested"),
        (":none", "linux/amd64", "no image \"none\" in it; it holds plain, multi, nested"),
        (
            ":multi",
            "linux/ppc64le",
            "platform linux/ppc64le; choose with --platform among linux/arm64, linux/amd64",
        ),
        (":plain", "linux/arm64", "platform linux/arm64; choose with --platform among linux/amd64"),
    ] {
        let error = refusal(&name("oci", dir.path(), rest), &on(platform)).await;
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn damaged_layouts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Fixture::new(dir.path());
    let options = SourceOptions { platform: Some(Platform::host()), ..SourceOptions::default() };
    let host = Platform::host().architecture;
    let manifest = layout.image(&host);
    layout.finish(&[("x", manifest.clone())]);
    let name = name("oci", dir.path(), "");
    let (_, image) = resolve(&name, &options).await;
    let blob = |digest: &Digest| dir.path().join("blobs/sha256").join(digest.hex());
    let breakage = |path: std::path::PathBuf| {
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[10] ^= 1;
        fs::write(&path, bad).unwrap();
        move || fs::write(&path, &good).unwrap()
    };
    let config = Digest::of(&image.config);
    for (digest, want) in [(image.manifest_digest, "it is damaged"), (config, "the image config has digest")]
    {
        let mend = breakage(blob(&digest));
        let error = refusal(&name, &options).await;
        assert!(error.contains(want), "{error}");
        mend();
    }
    fs::remove_file(blob(&config)).unwrap();
    let error = refusal(&name, &options).await;
    assert!(error.contains("has no file blobs/sha256/"), "{error}");
    // An index inside itself cannot be made (it would have to know its digest), deep ones can.
    let mut deep = manifest;
    for _ in 0..6 {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{deep}}}]}}"#);
        deep = layout.blob(INDEX, index.as_bytes());
    }
    layout.finish(&[("deep", deep)]);
    let error = refusal(&name, &options).await;
    assert!(error.contains("nested more than 4 deep"), "{error}");
    for (index, want) in [
        (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), "it holds no image"),
        ("{".to_owned(), "index.json is not valid"),
        (" ".repeat(5 << 20), "longer than"),
        (
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha512:00","size":1}]}"#.to_owned(),
            "\"sha512\" is not supported",
        ),
        (
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#.to_owned(),
            "is not a digest",
        ),
    ] {
        fs::write(dir.path().join("index.json"), index).unwrap();
        let error = refusal(&name, &options).await;
        assert!(error.contains(want), "{error}");
    }
    assert!(refusal("oci:/nonexistent/lantern", &options).await.contains("has no file index.json"));
    assert!(refusal("oci-archive:/nonexistent/lantern", &options).await.contains("cannot read"));
    assert!(refusal("docker-archive:/dev/zero", &options).await.contains("not a regular file"));
}

#[tokio::test]
async fn archives_made_by_skopeo() {
    let dir = tempfile::tempdir().unwrap();
    let layout_dir = dir.path().join("layout");
    let layout = Fixture::new(&layout_dir);
    layout.finish(&[("x", layout.image("amd64"))]);
    let from = name("oci", &layout_dir, ":x");
    let (_, original) = resolve(&from, &on("linux/amd64")).await;
    let oci = dir.path().join("oci.tar");
    let docker = dir.path().join("docker.tar");
    skopeo(&["copy", &from, &name("oci-archive", &oci, ":tag")]);
    skopeo(&["copy", &from, &name("docker-archive", &docker, ":host.io/app:v1")]);
    for file in [&oci, &docker] {
        let status = Command::new("gzip").arg("-k").arg(file).status().unwrap();
        assert!(status.success());
    }
    let ids = |image: &Image| image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
    let mut docker_digests = Vec::new();
    for name in [
        name("oci-archive", &oci, ""),
        name("oci-archive", &oci, ":tag"),
        name("oci-archive", &dir.path().join("oci.tar.gz"), ":tag"),
        name("docker-archive", &oci, ":tag"),
        name("docker-archive", &docker, ""),
        name("docker-archive", &docker, ":host.io/app:v1"),
        name("docker-archive", &docker, ":@0"),
        name("docker-archive", &dir.path().join("docker.tar.gz"), ""),
    ] {
        let (source, image) = resolve(&name, &on("linux/amd64")).await;
        assert_eq!(ids(&image), ids(&original), "{name}");
        if name.contains("docker.tar") {
            assert_eq!(image.manifest, canonical_manifest(&image.config, &ids(&image)));
            docker_digests.push(image.manifest_digest);
        } else {
            assert_eq!(image.manifest_digest, original.manifest_digest, "{name}");
        }
        check(source, &image, "amd64").await;
    }
    docker_digests.dedup();
    assert_eq!(docker_digests.len(), 1, "however it is stored, it is one image");
    let error = refusal(&name("docker-archive", &docker, ":other"), &on("linux/amd64")).await;
    assert!(error.contains("holds host.io/app:v1"), "{error}");
    let error = refusal(&name("docker-archive", &docker, ":@1"), &on("linux/amd64")).await;
    assert!(error.contains("no image \"@1\""), "{error}");
}

/// Packs members into a tar file, links included.
fn pack(dir: &Path, members: &[(&str, Result<&[u8], &str>)]) -> std::path::PathBuf {
    let tree = tempfile::tempdir_in(dir).unwrap();
    for (name, contents) in members {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match contents {
            Ok(bytes) => fs::write(path, bytes).unwrap(),
            Err(target) => std::os::unix::fs::symlink(target, path).unwrap(),
        }
    }
    let file = dir.join("packed.tar");
    let status =
        Command::new("tar").arg("-C").arg(tree.path()).arg("-cf").arg(&file).arg(".").status().unwrap();
    assert!(status.success());
    file
}

/// The parts of Docker archives: two layers, plain and compressed, and their config.
struct Parts {
    lower: Vec<u8>,
    upper: Vec<u8>,
    lower_gz: Vec<u8>,
    upper_gz: Vec<u8>,
    config: String,
}

impl Parts {
    fn new() -> Self {
        let lower = archive("lower", &b"lower ".repeat(30_000));
        let upper = archive("upper", b"amd64");
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        };
        let (lower_gz, upper_gz) = (gzip(&lower), gzip(&upper));
        let ids = format!(r#""{}","{}""#, Digest::of(&lower), Digest::of(&upper));
        let rootfs = format!(r#"{{"type":"layers","diff_ids":[{ids}]}}"#);
        let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs}}}"#);
        Self { lower, upper, lower_gz, upper_gz, config }
    }

    fn config_name(&self) -> String {
        format!("{}.json", Digest::of(self.config.as_bytes()).hex())
    }
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}

fn manifest_json(config: &str, layers: [&str; 2]) -> String {
    let layers = layers.join(r#"",""#);
    format!(r#"[{{"Config":"{config}","RepoTags":["app:1"],"Layers":["{layers}"]}}]"#)
}

#[tokio::test]
async fn docker_archives_of_every_age() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::new();
    let config = Ok(parts.config.as_bytes());
    let config_name = parts.config_name();
    let (lower_blob, upper_blob, config_blob) =
        (blob_name(&parts.lower_gz), blob_name(&parts.upper_gz), blob_name(parts.config.as_bytes()));
    let old = manifest_json(&config_name, ["one/layer.tar", "two/layer.tar"]);
    let new = manifest_json(&config_blob, [&lower_blob, &upper_blob]);
    let odd = manifest_json("config.json", ["a.tar.gz", "two/layer.tar"]);
    let mut digests = Vec::new();
    for (case, members) in [
        (
            "one directory a layer, one of them a link",
            vec![
                ("manifest.json", Ok(old.as_bytes())),
                (config_name.as_str(), config),
                ("one/layer.tar", Ok(parts.lower.as_slice())),
                ("two/layer.tar", Err("../three/layer.tar")),
                ("three/layer.tar", Ok(parts.upper.as_slice())),
            ],
        ),
        (
            "a layout inside, compressed layers",
            vec![
                ("manifest.json", Ok(new.as_bytes())),
                (config_blob.as_str(), config),
                (lower_blob.as_str(), Ok(parts.lower_gz.as_slice())),
                (upper_blob.as_str(), Ok(parts.upper_gz.as_slice())),
            ],
        ),
        (
            "a compressed layer without a digest",
            vec![
                ("manifest.json", Ok(odd.as_bytes())),
                ("config.json", config),
                ("a.tar.gz", Ok(parts.lower_gz.as_slice())),
                ("two/layer.tar", Ok(parts.upper.as_slice())),
            ],
        ),
    ] {
        let file = pack(dir.path(), &members);
        let (source, image) = resolve(&name("docker-archive", &file, ":app:1"), &on("linux/amd64")).await;
        check(source, &image, "amd64").await;
        digests.push((image.manifest_digest, case));
    }
    assert!(digests.iter().all(|(digest, _)| *digest == digests[0].0), "{digests:?}");
}

#[tokio::test]
async fn damaged_docker_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::new();
    let config = Ok(parts.config.as_bytes());
    let config_name = parts.config_name();
    let old = manifest_json(&config_name, ["one/layer.tar", "two/layer.tar"]);
    let odd = manifest_json("config.json", ["a.tar.gz", "two/layer.tar"]);
    let (old, odd) = (("manifest.json", Ok(old.as_bytes())), ("manifest.json", Ok(odd.as_bytes())));
    let wrong_config = (config_name.as_str(), Ok(&b"{}"[..]));
    let config = ("config.json", config);
    for (members, want) in [
        (vec![("x", Ok(&b""[..]))], "has no file manifest.json"),
        (vec![old], "has no file"),
        (vec![old, wrong_config], "it is damaged"),
        (vec![odd, config, ("a.tar.gz", Err("b")), ("b", Err("a.tar.gz"))], "has no file a.tar.gz"),
        (vec![odd, config, ("a.tar.gz", Err("/../../../../../etc/passwd"))], "has no file a.tar.gz"),
    ] {
        let file = pack(dir.path(), &members);
        let error = refusal(&name("docker-archive", &file, ""), &on("linux/amd64")).await;
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn the_canonical_manifest_is_pinned() {
    let manifest = canonical_manifest(b"{}", &[Digest::of(b"a"), Digest::of(b"b")]);
    assert_eq!(
        Digest::of(&manifest).to_string(),
        "sha256:3074641e067e6710618b17b691ba33500b1ae93bfb3cb2e6ae6e412495775952",
        "{}",
        String::from_utf8_lossy(&manifest)
    );
}
