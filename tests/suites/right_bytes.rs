//! Images against an independent unpacking of them (`umoci unpack`, GNU tar): the exported
//! ext4 passes `e2fsck` with nothing to say, and the tree that the kernel shows from it, and
//! through `blockd`, is equal in everything a container can see.

use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::EntryType;
use tests::compare;
use tests::image::{self, Layer};
use tests::product::{World, run, text};

/// An image of the hard cases.
struct Case {
    name: &'static str,
    layers: Vec<Vec<u8>>,
    /// Directories that no layer describes: their times are nobody's.
    free_times: &'static [&'static str],
}

fn case(name: &'static str, layers: Vec<Layer>, free_times: &'static [&'static str]) -> Case {
    Case { name, layers: layers.into_iter().map(Layer::finish).collect(), free_times }
}

fn root() -> Layer {
    Layer::new().dir("./", 0o755)
}

fn whiteouts() -> Vec<Case> {
    let lower = || {
        root()
            .dir("a", 0o755)
            .file("a/gone", "1")
            .file("a/kept", "2")
            .dir("a/tree", 0o700)
            .file("a/tree/leaf", "3")
            .dir("b", 0o755)
            .file("b/one", "4")
            .file("b/two", "5")
    };
    vec![
        case(
            "whiteouts",
            vec![lower(), Layer::new().dir("a", 0o755).whiteout("a", "gone").whiteout("a", "tree")],
            &[],
        ),
        case("opaque", vec![lower(), Layer::new().dir("b", 0o750).opaque("b").file("b/three", "6")], &[]),
        case(
            "opaque-after-its-entries",
            vec![lower(), Layer::new().dir("b", 0o750).file("b/three", "6").opaque("b")],
            &[],
        ),
        case(
            "whiteout-and-again",
            vec![
                lower(),
                Layer::new()
                    .dir("a", 0o755)
                    .whiteout("a", "tree")
                    .dir("a/tree", 0o711)
                    .file("a/tree/new", "7"),
            ],
            &[],
        ),
        case("whiteout-of-nothing", vec![lower(), Layer::new().dir("a", 0o755).whiteout("a", "never")], &[]),
        case(
            "empty-layers",
            vec![Layer::new(), lower(), Layer::new(), Layer::new().dir("c", 0o755), Layer::new()],
            &[],
        ),
    ]
}

fn links() -> Vec<Case> {
    let lower = || root().dir("a", 0o755).file("a/x", "content").hardlink("a/y", "a/x").symlink("a/s", "x");
    vec![
        case("hard-link-to-lower", vec![lower(), Layer::new().dir("b", 0o755).hardlink("b/z", "a/x")], &[]),
        case("hard-link-one-name-gone", vec![lower(), Layer::new().dir("a", 0o755).whiteout("a", "x")], &[]),
        case(
            "hard-link-across-whiteout",
            vec![
                lower(),
                Layer::new().dir("a", 0o755).hardlink("a/w", "a/y").whiteout("a", "x"),
                Layer::new().dir("a", 0o755).file("a/x", "another"),
            ],
            &[],
        ),
        case("hard-link-to-symlink", vec![lower(), Layer::new().dir("a", 0o755).hardlink("a/t", "a/s")], &[]),
        case(
            "one-of-two-names-replaced",
            vec![lower(), Layer::new().dir("a", 0o755).file("a/y", "changed here only")],
            &[],
        ),
        case(
            "file-and-directory-change-places",
            vec![
                root()
                    .dir("a", 0o755)
                    .file("a/f", "x")
                    .dir("a/d", 0o755)
                    .file("a/d/leaf", "y")
                    .symlink("a/l", "f"),
                Layer::new()
                    .dir("a", 0o755)
                    .dir("a/f", 0o755)
                    .file("a/f/in", "1")
                    .file("a/d", "2")
                    .dir("a/l", 0o700),
            ],
            &[],
        ),
        case(
            "through-symlinked-parents",
            vec![root().dir("usr", 0o755).dir("usr/lib", 0o755).symlink("lib", "usr/lib").file("lib/x", "1")],
            // a file was put there after the directory's own entry
            &["usr/lib"],
        ),
        case(
            "absolute-symlinked-parents",
            vec![
                root().dir("usr", 0o755).dir("usr/bin", 0o755).symlink("bin", "/usr/bin"),
                Layer::new().file("bin/y", "2"),
            ],
            &["usr/bin"],
        ),
        case(
            "duplicates",
            vec![root().file("x", "first").file("x", "second, longer").dir("d", 0o700).dir("d", 0o755)],
            &[],
        ),
        case(
            "children-first",
            vec![Layer::new().file("p/q/r", "deep").dir("p/q", 0o710).dir("p", 0o701).dir("./", 0o755)],
            &[],
        ),
        case("no-parents", vec![root().file("a/b/c", "x")], &["", "a", "a/b"]),
    ]
}

fn names() -> Vec<Case> {
    let long = |n: usize, c: char| std::iter::repeat_n(c, n).collect::<String>();
    let deep: Vec<String> = (0..60).map(|n| format!("level-{n}-{}", long(20, 'd'))).collect();
    let mut layer = root();
    for n in 1..=deep.len() {
        layer = layer.dir(&deep[..n].join("/"), 0o755);
    }
    let deepest = layer.file(&format!("{}/leaf", deep.join("/")), "bottom");
    let pax_name = format!("{}/{}", long(120, 'p'), long(255, 'q'));
    vec![
        case("deep", vec![deepest], &[]),
        case(
            "long-names",
            vec![
                root()
                    .file(&long(255, 'g'), "gnu")
                    .pax(&[("path", long(120, 'p').as_bytes())])
                    .dir("cut", 0o755)
                    .pax(&[("path", pax_name.as_bytes()), ("mtime", b"1600000001.123456789")])
                    .file("cut", "pax")
                    .pax(&[("linkpath", long(300, 't').as_bytes())])
                    .symlink("link", "cut")
                    .symlink("gnulink", &long(1000, 'u')),
            ],
            &[],
        ),
        case(
            "names-of-any-bytes",
            vec![
                root()
                    .entry(EntryType::Regular, b"\xff\xfe\x80name", b"", 0o644, b"x")
                    .entry(EntryType::Symlink, b"sym\xc3", b"\xf0\x28\x8c target", 0o777, b"")
                    .file("new\nline", "x")
                    .file(" space ", "x")
                    .file("..two", "x")
                    .file("back\\slash", "x"),
            ],
            &[],
        ),
    ]
}

fn attributes() -> Vec<Case> {
    let capability = *b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let large = vec![b'v'; 2000];
    let many: Vec<(String, Vec<u8>)> =
        (0..40).map(|n| (format!("SCHILY.xattr.user.name{n}"), format!("value {n}").into_bytes())).collect();
    let mut many: Vec<(&str, &[u8])> = many.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    many.push(("SCHILY.xattr.user.large", &large));
    vec![
        case(
            "xattrs",
            vec![
                root()
                    .pax(&[("SCHILY.xattr.security.capability", &capability)])
                    .program("ping", "cap_net_raw")
                    .pax(&many)
                    .file("many", "x")
                    .pax(&[("SCHILY.xattr.user.on", b"directory"), ("SCHILY.xattr.user.bin", b"a\0b\nc=d")])
                    .dir("d", 0o755)
                    .pax(&[("SCHILY.xattr.trusted.t", b"kept")])
                    .file("trusted", "x"),
            ],
            &[],
        ),
        case(
            "modes-and-devices",
            vec![
                root()
                    .dir("tmp", 0o1777)
                    .entry(EntryType::Regular, b"su", b"", 0o4755, b"x")
                    .entry(EntryType::Regular, b"sg", b"", 0o2755, b"x")
                    .dir("sgd", 0o2775)
                    .entry(EntryType::Regular, b"none", b"", 0, b"secret")
                    .entry(EntryType::Fifo, b"pipe", b"", 0o600, b"")
                    .dir("dev", 0o755)
                    .device("dev/null", 1, 3)
                    .device("dev/zero-zero", 0, 0)
                    .device("dev/large", 4095, 1_048_575),
            ],
            &[],
        ),
        case(
            "times",
            vec![
                root()
                    .pax(&[("mtime", b"1700000000.987654321")])
                    .file("nanoseconds", "x")
                    .pax(&[("mtime", b"4000000000.5")])
                    .file("after-2038", "x")
                    .pax(&[("mtime", b"0")])
                    .file("epoch", "x")
                    .pax(&[("mtime", b"1700000000.25")])
                    .symlink("link", "nowhere"),
            ],
            &[],
        ),
    ]
}

/// What GNU tar makes of sparse files, in each of its formats.
fn sparse() -> Vec<Case> {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("holes")).unwrap();
    file.write_all_at(&[7; 5000], 0).unwrap();
    file.write_all_at(&[9; 70_000], 40 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    std::fs::write(dir.path().join("after"), "still in step").unwrap();
    [
        ("sparse-gnu", "--format=gnu", "1.0"),
        ("sparse-pax-0.0", "--format=pax", "0.0"),
        ("sparse-pax-0.1", "--format=pax", "0.1"),
        ("sparse-pax-1.0", "--format=pax", "1.0"),
    ]
    .into_iter()
    .map(|(name, format, version)| {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sparse", format, "--sparse-version", version, "--directory"]);
        let output = tar.arg(dir.path()).args(["holes", "after"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        Case { name, layers: vec![output.stdout], free_times: &[""] }
    })
    .collect()
}

/// Mounts a plain ext4 file read-only until dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(file: &Path, at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-o", "ro,loop,noload"]).arg(file).arg(&at));
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn checked_export(world: &World, name: &str) -> PathBuf {
    let file = world.export(name);
    let output = Command::new("e2fsck").args(["-f", "-n"]).arg(&file).output().unwrap();
    let said = text(&output);
    // the version, five passes and the summary: anything else is a complaint
    assert!(output.status.success() && said.lines().count() == 7, "{name}: {said}");
    file
}

fn check(world: &World, case: &Case) {
    let name = case.name;
    let layout = world.path(name);
    image::layout(&layout, &case.layers, &json!({}));
    world.push(&layout, name);
    let exported = checked_export(world, name);
    let bundle = world.path(&format!("{name}.umoci"));
    let theirs = bundle.join("rootfs");
    if name == "sparse-gnu" {
        // umoci has not heard of entries of type S
        std::fs::create_dir_all(&theirs).unwrap();
        std::fs::write(world.path("layer.tar"), &case.layers[0]).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--preserve-permissions", "--numeric-owner", "--file"]);
        run(tar.arg(world.path("layer.tar")).arg("--directory").arg(&theirs));
    } else {
        let image = format!("{}:latest", layout.display());
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    }
    let mounted = Mounted::new(&exported, world.path(&format!("{name}.mnt")));
    let differences = compare::trees(&mounted.0, &theirs, case.free_times);
    assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    drop(mounted);
    std::fs::remove_file(exported).unwrap();
    std::fs::remove_dir_all(bundle).unwrap();
}

fn check_all(cases: &[Case]) {
    if !tests::privileged() {
        return;
    }
    let world = World::new();
    for case in cases {
        check(&world, case);
    }
}

#[test]
fn privileged_whiteouts_are_applied() {
    check_all(&whiteouts());
}

#[test]
fn privileged_links_and_replacements_are_right() {
    check_all(&links());
}

#[test]
fn privileged_names_are_kept() {
    check_all(&names());
}

#[test]
fn privileged_attributes_are_kept() {
    check_all(&attributes());
}

#[test]
fn privileged_sparse_files_are_right() {
    check_all(&sparse());
}

#[test]
fn privileged_a_hundred_thousand_files_in_one_directory() {
    let mut layer = root().dir("many", 0o755);
    for n in 0..100_000 {
        layer = layer.file(&format!("many/file number {n}"), if n % 1000 == 0 { "x" } else { "" });
    }
    check_all(&[case("many", vec![layer], &[])]);
}

/// Five gibibytes with three islands of data, against GNU tar's own reading of the archive.
#[test]
fn privileged_a_sparse_file_of_five_gibibytes() {
    if !tests::privileged() {
        return;
    }
    let world = World::new();
    let dir = world.path("files");
    std::fs::create_dir(&dir).unwrap();
    let length = 5_u64 << 30;
    let islands = [0, (3 << 30) + 12_345, length - 5000];
    let mut open = std::fs::File::options();
    let file = open.read(true).write(true).create(true).truncate(true).open(dir.join("huge")).unwrap();
    file.set_len(length).unwrap();
    for at in islands {
        file.write_all_at(&[0xA5; 4000], at).unwrap();
    }
    let tar = Command::new("tar")
        .args(["-c", "--sparse", "--format=pax", "-C"])
        .arg(&dir)
        .arg("huge")
        .output()
        .unwrap();
    assert!(tar.status.success());
    image::layout(&world.path("image"), &[tar.stdout], &json!({}));
    let pushed = world.push(&world.path("image"), "huge");
    assert!(pushed["chunks"].as_u64().unwrap() < 40, "holes cost nothing: {pushed}");
    let exported = checked_export(&world, "huge");
    let mounted = Mounted::new(&exported, world.path("mnt"));
    let ours = std::fs::File::open(mounted.0.join("huge")).unwrap();
    assert_eq!(ours.metadata().unwrap().len(), length);
    let (mut a, mut b) = (vec![0; 16384], vec![0; 16384]);
    for at in islands.into_iter().chain([8192, 1 << 30, 4 << 30]) {
        let read = ours.read_at(&mut a, at.saturating_sub(3000)).unwrap();
        assert_eq!(read, file.read_at(&mut b, at.saturating_sub(3000)).unwrap());
        assert!(a[..read] == b[..read], "at {at}");
    }
}

/// An image of somebody's choice, such as the demo's: `LANTERN_TEST_IMAGE=DIRECTORY:TAG`.
#[test]
fn privileged_a_given_image_is_right() {
    let Ok(image) = std::env::var("LANTERN_TEST_IMAGE") else {
        eprintln!("SKIPPED: LANTERN_TEST_IMAGE is not set");
        return;
    };
    if !tests::privileged() {
        return;
    }
    let world = World::new();
    let output = world.flattener(&["push", &format!("oci:{image}"), "--name", "given", "--quiet"]);
    assert!(output.status.success(), "{}", text(&output));
    let exported = checked_export(&world, "given");
    let bundle = world.path("bundle");
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    let mounted = Mounted::new(&exported, world.path("mnt"));
    let differences = compare::trees(&mounted.0, &bundle.join("rootfs"), &[]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    drop(mounted);
    let at = world.path("lazy");
    std::fs::create_dir(&at).unwrap();
    let daemon = world.daemon();
    let output = world.blockd(&["mount", "given", at.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    let differences = compare::trees(&at, &bundle.join("rootfs"), &[]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    drop(daemon);
    assert!(world.residue().is_empty());
}
