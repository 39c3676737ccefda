//! Pushing: the same bytes every time, nothing twice, nothing lost, nothing wrong unnoticed.

use flattener::layer::Limits;
use flattener::oci::{self, ImageRef, SourceOptions};
use flattener::pipeline::StoreSettings;
use flattener::progress::Progress;
use flattener::push::{self, PushSettings};
use image_format::ids::{RootId, TenantId};
use image_format::seal::{Compression, Salt};
use origin::catalog::Catalog;
use origin::counting::Counting;
use origin::intercept::Intercepted;
use origin::keyring::Keyring;
use origin::memory::MemoryStore;
use serde_json::json;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tests::image::{self, Layer};
use tests::product::{World, text};

/// Bytes that do not compress and differ from file to file.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) | 1 << 40;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn base() -> Layer {
    let mut layer = Layer::new().dir("usr", 0o755).dir("usr/lib", 0o755).dir("etc", 0o755);
    for n in 0..200_u32 {
        layer = layer.file(&format!("usr/lib/lib{n}.so"), noise(n, 1000 + 400 * n as usize));
    }
    layer.file("usr/lib/large", noise(999, 3 << 20)).file("etc/conf", "a = 1\n")
}

fn app(version: u32) -> Layer {
    Layer::new().dir("app", 0o755).file("app/main", noise(5000 + version, 200_000)).whiteout("etc", "conf")
}

fn sample(world: &World, name: &str, version: u32) -> PathBuf {
    let directory = world.path(name);
    image::layout(&directory, &[base().finish(), app(version).finish()], &json!({"Cmd": ["/app/main"]}));
    directory
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let (one, two) = (World::new(), World::new());
    let layout = sample(&one, "image", 1);
    one.push(&layout, "x");
    std::fs::copy(one.path("keyring.toml"), two.path("keyring.toml")).unwrap();
    std::fs::create_dir(two.path("elsewhere")).unwrap();
    let image = format!("oci:{}:latest", layout.display());
    let mut command = two.command("flattener");
    command.args(["push", &image, "--name", "x", "--threads", "1", "--uploads", "1"]);
    command.env("TMPDIR", two.path("elsewhere")).env("TZ", "Asia/Tokyo").env("LC_ALL", "tr_TR.UTF-8");
    let output = std::process::Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let (a, b) = (one.objects(), two.objects());
    assert!(a.len() > 20);
    assert!(a == b, "stores differ");
}

#[test]
fn a_known_image_is_not_pushed_again_and_a_new_version_shares() {
    let world = World::new();
    let layout = sample(&world, "v1", 1);
    let first = world.push(&layout, "x");
    assert_eq!(first["outcome"], "stored");
    let before = world.objects();
    assert_eq!(world.push(&layout, "x")["outcome"], "up_to_date");
    assert!(world.objects() == before, "nothing was written");
    assert_eq!(world.push(&layout, "y")["outcome"], "renamed");

    let second = world.push(&sample(&world, "v2", 2), "x");
    let (new, all) = (second["new_chunks"].as_u64().unwrap(), second["chunks"].as_u64().unwrap());
    // its own 200 KB file, the inode and directory chunks, the superblock
    assert!(new <= 5, "{new} of {all} chunks are new");
    let list = world.flattener(&["ls", "--json"]);
    let names: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(names.as_array().unwrap().len(), 2);
    let diff = world.flattener(&["diff", "y", "x", "--json"]);
    let diff: serde_json::Value = serde_json::from_slice(&diff.stdout).unwrap();
    assert_eq!(diff["only_b_chunks"].as_u64().unwrap(), new);
}

#[test]
fn a_large_file_gives_the_same_chunks_in_unrelated_images() {
    let world = World::new();
    let model = noise(77, 2 << 20);
    let one = Layer::new().file("a/model.bin", &model).file("a/x", "x");
    let other = base().file("opt/other/name", &model);
    for (name, layer) in [("one", one), ("other", other)] {
        let directory = world.path(name);
        image::layout(&directory, &[layer.finish()], &json!({}));
        world.push(&directory, name);
    }
    let diff = world.flattener(&["diff", "one", "other", "--chunks-only", "--json"]);
    let diff: serde_json::Value = serde_json::from_slice(&diff.stdout).unwrap();
    assert_eq!(diff["shared_chunks"], 4, "{diff}");
}

#[test]
fn a_killed_push_leaves_nothing_wrong() {
    let calm = World::new();
    let layout = sample(&calm, "image", 1);
    calm.push(&layout, "x");
    let wanted = calm.objects();

    let world = World::new();
    std::fs::copy(calm.path("keyring.toml"), world.path("keyring.toml")).unwrap();
    let image = format!("oci:{}:latest", layout.display());
    for millis in [5, 15, 30, 50, 75, 100, 150] {
        let mut push = world.command("flattener");
        push.args(["push", &image, "--name", "x", "--quiet"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = push.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        let _ = child.kill();
        child.wait().unwrap();
        // whatever is visible is right
        let named = world.path("store/roots/r1/refs/local/x").exists();
        let verified = world.flattener(&["verify", "x", "--quiet"]);
        assert_eq!(verified.status.success(), named, "{}", text(&verified));
    }
    world.push(&layout, "x");
    assert!(world.objects() == wanted, "the store is as if nothing had happened");
}

#[test]
fn any_damage_is_detected_and_named() {
    let world = World::new();
    world.push(&sample(&world, "image", 1), "x");
    let store = world.path("store");
    for (name, content) in world.objects() {
        let kind = name.components().nth(2).map(|part| part.as_os_str().to_string_lossy().into_owned());
        let Some(kind) = kind else { continue };
        let path = store.join(&name);
        let at = content.len() / 2;
        let mut damaged = content.clone();
        damaged[at] ^= 1;
        for bytes in [&damaged[..], &content[..at], &[][..]] {
            std::fs::write(&path, bytes).unwrap();
            let output = world.flattener(&["verify", "x", "--quiet"]);
            let code = output.status.code().unwrap();
            assert_eq!(code, if kind == "chunks" { 1 } else { 4 }, "{}: {}", name.display(), text(&output));
            let id = name.file_name().unwrap().to_str().unwrap();
            assert!(text(&output).contains(id), "{id} is not named: {}", text(&output));
        }
        std::fs::write(&path, &content).unwrap();
    }
    let chunk = world.objects().into_iter().find(|(name, _)| name.starts_with("roots/r1/chunks")).unwrap().0;
    std::fs::remove_file(store.join(chunk)).unwrap();
    assert_eq!(world.flattener(&["verify", "x", "--quiet"]).status.code(), Some(1));
    assert_eq!(world.flattener(&["export", "x", "--quiet", "-o", "/nonexistent/x"]).status.code(), Some(5));
}

#[test]
fn another_tenants_image_does_not_open() {
    let world = World::new();
    world.push(&sample(&world, "image", 1), "x");
    std::fs::remove_file(world.path("keyring.toml")).unwrap();
    assert_eq!(world.flattener(&["inspect", "x"]).status.code(), Some(6), "no key, no image");
    let other = World::new();
    other.push(&sample(&other, "image", 2), "y");
    std::fs::copy(other.path("keyring.toml"), world.path("keyring.toml")).unwrap();
    assert_eq!(world.flattener(&["inspect", "x"]).status.code(), Some(4), "another key opens nothing");
}

/// Each hostile image with a word of the reason it must be refused for.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("climbs", Layer::new().file("../../etc/passwd", "x").finish(), "root"),
        ("climbs-inside", Layer::new().dir("a", 0o755).file("a/../../x", "x").finish(), "root"),
        ("link-to-nothing", Layer::new().hardlink("a", "nowhere").finish(), "nowhere"),
        (
            "looping-parents",
            Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").finish(),
            "link",
        ),
        ("bare-whiteout", Layer::new().dir("etc", 0o755).file("etc/.wh.", "").finish(), "whiteout"),
        ("whiteout-of-dots", Layer::new().dir("etc", 0o755).file("etc/.wh...", "").finish(), "whiteout"),
        ("cut", base().finish()[..100_000].to_vec(), "layer"),
        ("no-archive", noise(1, 10_000), "layer"),
    ]
}

#[test]
fn hostile_layers_are_refused_with_a_reason_and_commit_nothing() {
    for (name, layer, reason) in hostile() {
        let world = World::new();
        let directory = world.path("image");
        image::layout(&directory, &[layer], &json!({}));
        let image = format!("oci:{}:latest", directory.display());
        let output = world.flattener(&["push", &image, "--name", "x"]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(4), "{name}: {said}");
        assert!(said.to_lowercase().contains(reason), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert_eq!(
            world.flattener(&["inspect", "x"]).status.code(),
            Some(3),
            "{name}: nothing was committed"
        );
    }
}

#[test]
fn damaged_layouts_and_bombs_are_refused() {
    let world = World::new();
    let directory = sample(&world, "image", 1);
    let image = format!("oci:{}:latest", directory.display());
    for (flag, value) in [
        ("--max-entries", "10"),
        ("--max-uncompressed-bytes", "100000"),
        ("--max-spool-bytes", "100000"),
        ("--max-file-bytes", "1000"),
    ] {
        let output = world.flattener(&["push", &image, "--name", "x", flag, value]);
        assert_eq!(output.status.code(), Some(7), "{flag}: {}", text(&output));
        assert!(text(&output).contains(&flag[2..]), "the error says what to raise: {}", text(&output));
    }
    let blobs: Vec<PathBuf> = std::fs::read_dir(directory.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for blob in blobs {
        let content = std::fs::read(&blob).unwrap();
        let mut damaged = content.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for bytes in [&damaged[..], &content[..middle]] {
            std::fs::write(&blob, bytes).unwrap();
            let output = world.flattener(&["push", &image, "--name", "x"]);
            assert_eq!(output.status.code(), Some(4), "{}: {}", blob.display(), text(&output));
        }
        std::fs::write(&blob, content).unwrap();
    }
    for index in ["", "{", "[]", "{\"manifests\":3}"] {
        std::fs::write(directory.join("index.json"), index).unwrap();
        let output = world.flattener(&["push", &image, "--name", "x"]);
        assert!(
            !output.status.success() && !text(&output).contains("panicked"),
            "{index}: {}",
            text(&output)
        );
    }
}

/// What pushes ask of the store, counted at the seam.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_digest_costs_one_request() {
    let world = World::new();
    let layout = sample(&world, "image", 1);
    let counted = Intercepted::new(Arc::new(MemoryStore::new()), Counting::default());
    let root: RootId = "r1".parse().unwrap();
    let tenant: TenantId = "local".parse().unwrap();
    let keyring = Keyring::new(world.path("keyring.toml"));
    keyring.ensure_tenant(&tenant).unwrap();
    let catalog = Catalog::new(Arc::new(counted.clone()), Arc::new(keyring), root.clone(), tenant);
    let settings = PushSettings {
        store: StoreSettings {
            threads: 2,
            uploads: 4,
            salt: Salt::derive(&root, &[7; 32]),
            compression: Compression::Zstd(1),
            root,
            prime: None,
        },
        limits: Limits::default(),
        work_dir: std::env::temp_dir(),
    };
    let reference: ImageRef = format!("oci:{}:latest", layout.display()).parse().unwrap();
    let name = "x".parse().unwrap();
    for known in [false, true] {
        let source = Arc::new(oci::open(&reference, &SourceOptions::default()).await.unwrap());
        push::push(source, &name, &catalog, &settings, &Progress::new(true)).await.unwrap();
        let counts = counted.interceptor().take();
        let calls: u64 = counts.values().map(|counted| counted.calls).sum();
        if known {
            assert_eq!((calls, counts["get"].calls), (1, 1), "{counts:?}");
        } else {
            assert!(counts["put_if_absent"].calls > 20, "{counts:?}");
        }
    }
}
