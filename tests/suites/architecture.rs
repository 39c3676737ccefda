//! The shape of the workspace: who may use whom, under which licences, in which style.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The arrows of docs/ARCHITECTURE.md. Dev-dependencies count too.
#[test]
fn arrows_go_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("image-format", &[][..]),
        ("origin", &["image-format"]),
        ("fleet", &["image-format"]),
        ("cache", &["fleet", "image-format", "origin"]),
        ("flattener", &["fleet", "image-format", "origin"]),
        ("fuse-mount", &[]),
        ("photon", &[]),
        ("blockd", &["cache", "fleet", "fuse-mount", "image-format", "origin", "photon"]),
        (
            "tests",
            &["blockd", "cache", "flattener", "fleet", "fuse-mount", "image-format", "origin", "photon"],
        ),
    ]);
    let metadata = metadata();
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<&Value> = packages.iter().filter(|p| members.contains(p["id"].as_str().unwrap())).collect();
    assert_eq!(ours.len(), allowed.len(), "a new package is a design decision: name its arrows here");
    for package in ours {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if allowed.contains_key(used) {
                assert!(allowed[name].contains(&used), "{name} uses {used}");
            }
        }
    }
}

#[test]
fn licences_are_permissive() {
    let permissive = [
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "CC0-1.0",
        "0BSD",
        "Unlicense",
        "CDLA-Permissive-2.0",
        "MIT-0",
        "BSL-1.0",
    ];
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
        // one alternative of which every part is permissive
        let fits = licence.split(" OR ").any(|alternative| {
            alternative
                .split(" AND ")
                .map(|part| part.trim_matches(|c| "() ".contains(c)))
                .map(|part| part.split(" WITH ").next().unwrap())
                .all(|part| permissive.contains(&part))
        });
        assert!(fits, "{name}: {licence}");
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_say_what_they_are_and_leave_nothing_undone() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 80, "the walk finds the sources");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let head = text.lines().take(3).any(|line| line.starts_with("//!"));
        assert!(head, "{} does not open with a //! header", path.display());
        for mark in
            [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")]
        {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
        let is_sys = path.file_name().is_some_and(|name| name == "sys.rs");
        let is_ours = text.lines().any(|line| line.trim_start().starts_with("unsafe {"));
        assert!(is_sys || !is_ours, "{}: unsafe belongs into sys.rs", path.display());
    }
}

/// Every metric of the dashboard is one that a daemon prints.
#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let printed = read("blockd/src/api/prometheus.rs") + &read("cache/src/node/status.rs");
    let dashboard = read("docs/grafana-dashboard.json");
    serde_json::from_str::<Value>(&dashboard).unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let shown: BTreeSet<&str> =
        dashboard.split(|c: char| !is_name(c)).filter(|word| word.starts_with("lantern_")).collect();
    assert!(shown.len() > 20, "{shown:?}");
    for name in shown {
        let base = ["_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(printed.contains(&format!("\"{base}\"")), "{name} is printed nowhere");
    }
}

/// Every metric of a function that a daemon prints is in the table of metrics.
#[test]
fn the_metrics_of_functions_are_documented() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (printed, documented) = (read("blockd/src/api/prometheus.rs"), read("docs/operations.md"));
    let names = printed.split('"').filter(|word| word.starts_with("lantern_function_"));
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
}
