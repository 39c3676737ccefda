//! An application as files in layers, and the changes from one version to the next.
//!
//! Invariant: a version is a pure function of the seed and the changes made; a layer without
//! changed files is the same blob in both versions, as with a build cache.

use crate::random::Random;
use anyhow::Result;
use std::collections::BTreeMap;
use std::io::Write;

/// Time of the first version; a version is a day later than the one before.
const FIRST_MTIME: u64 = 1_700_000_000;
const SITE: &str = "usr/local/lib/python3.11/site-packages";

/// A file of the application.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) mtime: u64,
}

/// A layer of the application.
#[derive(Debug, Clone)]
pub(crate) struct AppLayer {
    pub(crate) name: &'static str,
    pub(crate) files: BTreeMap<String, File>,
    pub(crate) owner: u64,
}

/// One version of an application.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) layers: Vec<AppLayer>,
    pub(crate) environment: Vec<String>,
    name: &'static str,
    version: u64,
}

/// A named change from one version to the next.
pub(crate) type Change = (&'static str, fn(&mut App));

/// Writes directories before what is in them, then the files, in path order.
pub(crate) fn write_files(
    tar: &mut tar::Builder<&mut dyn Write>,
    files: &BTreeMap<String, File>,
    owner: u64,
) -> Result<()> {
    let mut made = std::collections::BTreeSet::new();
    for (path, file) in files {
        for (at, _) in path.match_indices('/') {
            if made.insert(path[..at].to_owned()) {
                let mut header = header(tar::EntryType::Directory, 0o755, FIRST_MTIME, 0, owner);
                tar.append_data(&mut header, format!("{}/", &path[..at]), std::io::empty())?;
            }
        }
        let mut header =
            header(tar::EntryType::Regular, file.mode, file.mtime, file.data.len() as u64, owner);
        tar.append_data(&mut header, path, &file.data[..])?;
    }
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, mtime: u64, size: u64, owner: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(mtime);
    header.set_size(size);
    header
}

impl App {
    /// The first version of the application with this name: a service in Python with its
    /// packages, a program of its own, and configuration; some 30 MiB in 1,000 files.
    pub(crate) fn new(name: &'static str) -> Self {
        let layer = |name, owner| AppLayer { name, files: BTreeMap::new(), owner };
        let layers = vec![layer("packages", 0), layer("program", 0), layer("source", 1000), layer("etc", 0)];
        let mut app = Self { layers, environment: vec!["VERSION=1".into()], name, version: 1 };
        for package in 0..14 {
            app.package(package, 1);
        }
        app.put("program", "usr/local/bin/server", 0o755, |random| random.code(6 << 20));
        app.put("program", "usr/local/lib/libengine.so", 0o644, |random| random.code(1_600_000));
        app.put("source", "app/data/model.bin", 0o644, |random| random.code(4 << 20));
        for (directory, count, most) in [
            ("handlers", 60, 20_000),
            ("models", 40, 12_000),
            ("jobs", 50, 16_000),
            ("templates", 70, 9_000),
            ("static", 50, 180_000),
            ("locale", 40, 30_000),
        ] {
            for file in 0..count {
                let path = format!("app/{directory}/{directory}_{file}.{}", extension(directory));
                app.put("source", &path, 0o644, |random| {
                    let length = random.within(400..most);
                    random.text(length)
                });
            }
        }
        for file in ["app.toml", "logging.toml", "limits.toml"] {
            app.put("etc", &format!("etc/{name}/{file}"), 0o644, |random| random.text(2_000));
        }
        app.put("etc", "usr/local/bin/entrypoint.sh", 0o755, |random| random.text(900));
        app
    }

    /// Puts a file of this version, its content seeded by application, path and version.
    fn put(&mut self, layer: &str, path: &str, mode: u32, content: impl FnOnce(&mut Random) -> Vec<u8>) {
        let data = content(&mut Random::of(&format!("{}/{path}", self.name), self.version));
        let mtime = self.mtime();
        self.layer(layer).files.insert(path.into(), File { data, mode, mtime });
    }

    fn mtime(&self) -> u64 {
        FIRST_MTIME + self.version * 86_400
    }

    fn layer(&mut self, name: &str) -> &mut AppLayer {
        self.layers.iter_mut().find(|layer| layer.name == name).expect("the application's own layer")
    }

    /// Installs a package as pip does, bytecode with the sources' times included.
    fn package(&mut self, number: usize, release: u64) {
        let name = format!("package{number}");
        let mut random = Random::of(&format!("{}/{name}", self.name), 0);
        for file in 0..random.within(12..60) {
            let directory = ["", "core/", "util/", "backends/"][file % 4];
            let length = random.within(300..30_000);
            let path = format!("{SITE}/{name}/{directory}module_{file}.py");
            self.put("packages", &path, 0o644, |random| random.text(length));
            let mtime = self.mtime();
            let cached = format!("{SITE}/{name}/{directory}__pycache__/module_{file}.cpython-311.pyc");
            self.put("packages", &cached, 0o644, |random| pyc(random.code(length * 3 / 4), mtime));
        }
        if number.is_multiple_of(4) {
            let path = format!("{SITE}/{name}/_native.cpython-311-x86_64-linux-gnu.so");
            self.put("packages", &path, 0o755, |random| random.code(900_000));
        }
        for file in ["METADATA", "RECORD", "WHEEL", "INSTALLER"] {
            let path = format!("{SITE}/{name}-{release}.0.dist-info/{file}");
            self.put("packages", &path, 0o644, |random| random.text(1_800));
        }
    }

    fn remove(&mut self, layer: &str, gone: impl Fn(&str) -> bool) {
        self.layer(layer).files.retain(|path, _| !gone(path));
    }

    /// Gives the files of a directory that `pick` picks by their number new content.
    fn edit(&mut self, directory: &str, pick: impl Fn(usize) -> bool, grow: usize) {
        let below = format!("app/{directory}/");
        let source = &self.layer("source").files;
        let paths: Vec<(String, usize)> = source
            .iter()
            .filter(|(path, _)| path.starts_with(&below))
            .map(|(path, file)| (path.clone(), file.data.len()))
            .enumerate()
            .filter(|&(number, _)| pick(number))
            .map(|(_, found)| found)
            .collect();
        for (path, length) in paths {
            self.put("source", &path, 0o644, |random| random.text(length + grow));
        }
    }

    /// The next version.
    pub(crate) fn next(&self, change: fn(&mut Self)) -> Self {
        let mut next = self.clone();
        next.version += 1;
        change(&mut next);
        next
    }
}

fn extension(directory: &str) -> &'static str {
    match directory {
        "templates" => "html",
        "static" => "js",
        "locale" => "po",
        _ => "py",
    }
}

/// Bytecode: magic, flags, the source's time, its size, code.
fn pyc(code: Vec<u8>, mtime: u64) -> Vec<u8> {
    let time = u32::try_from(mtime).expect("times of this century");
    let mut out = vec![0xa7, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0];
    out.extend_from_slice(&time.to_le_bytes());
    out.extend(code);
    out
}

/// The family: every step is one version of the same application, an ordinary one each.
pub(crate) const FAMILY: [Change; 18] = [
    ("three source files edited", |app| app.edit("handlers", |n| n < 3, 0)),
    ("twenty source files edited, longer", |app| app.edit("jobs", |n| n % 5 < 2, 700)),
    ("program of 6 MiB rebuilt", |app| {
        app.put("program", "usr/local/bin/server", 0o755, |random| random.code((6 << 20) + 40_000));
    }),
    ("one package upgraded", |app| {
        app.remove("packages", |path| path.contains("/package3/") || path.contains("/package3-"));
        app.package(3, 2);
    }),
    ("thirty source files added", |app| {
        for file in 0..30 {
            let path = format!("app/reports/report_{file}.py");
            app.put("source", &path, 0o644, |random| random.text(6_000));
        }
    }),
    ("twenty files removed", |app| {
        app.remove("source", |path| path.contains("models_1") || path.contains("jobs_2"))
    }),
    ("directory renamed", |app| {
        let source = &mut app.layer("source").files;
        let renamed = |path: &str| path.replace("app/handlers/", "app/controllers/");
        *source = std::mem::take(source).into_iter().map(|(path, file)| (renamed(&path), file)).collect();
    }),
    ("configuration changed", |app| {
        app.put("etc", &format!("etc/{}/app.toml", app.name), 0o644, |random| random.text(2_100));
        app.environment.push("WORKERS=8".into());
    }),
    ("fresh checkout: times of all sources", |app| {
        let mtime = app.mtime();
        app.layer("source").files.values_mut().for_each(|file| file.mtime = mtime);
    }),
    ("layers of sources and program swapped", |app| app.layers.swap(1, 2)),
    ("small package added", |app| app.package(14, 1)),
    ("static bundle rebuilt under a new name", |app| {
        app.remove("source", |path| path.starts_with("app/static/bundle"));
        let path = format!("app/static/bundle.{:08x}.js", app.version.wrapping_mul(0x9e37_79b9));
        app.put("source", &path, 0o644, |random| random.text(2_300_000));
    }),
    ("all templates and translations edited", |app| {
        app.edit("templates", |_| true, 40);
        app.edit("locale", |_| true, 90);
    }),
    ("packages installed afresh: times, bytecode", |app| {
        let mtime = app.mtime();
        let time = u32::try_from(mtime).expect("times of this century").to_le_bytes();
        for (path, file) in &mut app.layer("packages").files {
            file.mtime = mtime;
            if path.ends_with(".pyc") {
                file.data[8..12].copy_from_slice(&time);
            }
        }
    }),
    ("owner of all sources changed", |app| app.layer("source").owner = 2000),
    ("patch layer on top of the old ones", |app| {
        app.layers.push(AppLayer { name: "patch", files: BTreeMap::new(), owner: 1000 });
        app.put("patch", "app/jobs/jobs_7.py", 0o644, |random| random.text(9_000));
        app.put("patch", "app/models/models_2.py", 0o644, |random| random.text(5_000));
        app.put("patch", "app/templates/.wh.templates_9.html", 0o644, |_| Vec::new());
    }),
    ("debugging tool added to the base's directories", |app| {
        app.layers.push(AppLayer { name: "tool", files: BTreeMap::new(), owner: 0 });
        app.put("tool", "usr/bin/bench-trace", 0o755, |random| random.code(260_000));
        app.put("tool", "usr/share/bash-completion/completions/bench-trace", 0o644, |random| {
            random.text(3_000)
        });
        for file in 0..20 {
            let path = format!("usr/share/bench-trace/profile_{file}.conf");
            app.put("tool", &path, 0o644, |random| random.text(2_000));
        }
    }),
    ("release: program, sources, a package, etc", |app| {
        app.put("program", "usr/local/bin/server", 0o755, |random| random.code(6 << 20));
        app.edit("controllers", |n| n % 3 == 0, 120);
        app.edit("static", |n| n % 4 == 0, 300);
        app.remove("packages", |path| path.contains("/package5/") || path.contains("/package5-"));
        app.package(5, 2);
        app.put("etc", &format!("etc/{}/limits.toml", app.name), 0o644, |random| random.text(2_050));
    }),
];
