//! The five claims on deduplication, each measured on images built for it.

use crate::app::{App, FAMILY, File};
use crate::base::{self, Found};
use crate::layout::{Blob, LayoutDir};
use crate::measure::{Bench, Blame, ByUse, Pushed, pieces};
use crate::random::Random;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Bytes of a chunk.
const CHUNK: u64 = 512 << 10;
/// Files that a base update replaces.
const REPLACED: usize = 400;

/// One measured figure, with its limit if something is promised of it.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// A part of one.
    pub(crate) part: f64,
    /// `At most` or `at least` this.
    pub(crate) limit: Option<Limit>,
    /// Chunks of the image, and what the counted ones are for.
    pub(crate) chunks: usize,
    /// What the counted chunks are for.
    pub(crate) by_use: ByUse,
    /// Why there are so many new data chunks, where that is known.
    pub(crate) blame: Vec<Blame>,
}

/// What is promised of a figure.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// No more than this part.
    AtMost(f64),
    /// No less than this part.
    AtLeast(f64),
}

impl Figure {
    fn new(what: impl Into<String>, part: f64, limit: Option<Limit>) -> Self {
        Self { what: what.into(), part, limit, chunks: 0, by_use: ByUse::new(), blame: Vec::new() }
    }

    fn unique(what: impl Into<String>, new: &Pushed, old: &Pushed, limit: Option<Limit>) -> Self {
        let (part, by_use) = new.unique(old);
        Self { what: what.into(), part, limit, chunks: new.count(), by_use, blame: Vec::new() }
    }

    /// Says why, by the files that were changed.
    fn because(mut self, new: &Pushed, old: &Pushed, changed: &BTreeSet<String>) -> Self {
        self.blame = new.blame(old, changed);
        self
    }

    /// Whether what is promised is true.
    pub(crate) fn is_met(&self) -> bool {
        self.limit.is_none_or(|limit| match limit {
            Limit::AtMost(most) => self.part <= most,
            Limit::AtLeast(least) => self.part >= least,
        })
    }
}

/// Everything the claims need: where images are built, where they are pushed, the base.
pub(crate) struct Setting {
    pub(crate) layout: LayoutDir,
    pub(crate) bench: Bench,
    pub(crate) base: Vec<Blob>,
}

impl Setting {
    /// Builds and pushes base and application.
    async fn with_app(&mut self, tag: &str, base: &[Blob], app: &App) -> Result<Pushed> {
        let mut layers = base.to_vec();
        for layer in &app.layers {
            layers.push(base::layer_of(&self.layout, &layer.files, layer.owner)?);
        }
        let config = json!({"Env": app.environment, "Cmd": ["/usr/local/bin/server"]});
        self.push(tag, &layers, &config).await
    }

    async fn push(&mut self, tag: &str, layers: &[Blob], config: &serde_json::Value) -> Result<Pushed> {
        self.layout.image(tag, layers, config)?;
        let pushed = self.bench.push(&self.layout.reference(tag)).await;
        pushed.with_context(|| format!("image {tag} could not be pushed"))
    }
}

/// Claim 1: each version of an application against the one before.
pub(crate) async fn family(setting: &mut Setting, steps: usize) -> Result<Vec<Figure>> {
    let base = setting.base.clone();
    let mut app = App::new("shop");
    let mut old = setting.with_app("shop-1", &base, &app).await?;
    let mut figures = Vec::new();
    for (number, (what, change)) in FAMILY.iter().take(steps).enumerate() {
        app = app.next(*change);
        let new = setting.with_app(&format!("shop-{}", number + 2), &base, &app).await?;
        figures.push(Figure::unique(*what, &new, &old, None));
        old = new;
    }
    let mut parts: Vec<f64> = figures.iter().map(|figure| figure.part).collect();
    parts.sort_by(f64::total_cmp);
    let middle = parts.len() / 2;
    let median = if parts.len().is_multiple_of(2) {
        f64::midpoint(parts[middle - 1], parts[middle])
    } else {
        parts[middle]
    };
    let mean = parts.iter().sum::<f64>() / parts.len() as f64;
    figures.push(Figure::new("median of the family", median, Some(Limit::AtMost(0.025))));
    figures.push(Figure::new("mean of the family", mean, Some(Limit::AtMost(0.043))));
    Ok(figures)
}

/// Claim 2: another application on the same base: what is new beyond its own bytes.
pub(crate) async fn two_applications(setting: &mut Setting) -> Result<Vec<Figure>> {
    let base = setting.base.clone();
    let first = setting.with_app("first", &base, &App::new("shop")).await?;
    let second = setting.with_app("second", &base, &App::new("billing")).await?;
    let own = second.data_of_layers(base.len());
    let mut by_use = ByUse::new();
    let beyond: Vec<u32> = second.lacking(&first).filter(|index| !own.contains(index)).collect();
    beyond.iter().for_each(|&index| *by_use.entry(second.use_of(index)).or_default() += 1);
    let all = second.unique(&first).0;
    let part = beyond.len() as f64 / second.count() as f64;
    let limit = Some(Limit::AtMost(0.03));
    let what = "another application on the base, beyond its own bytes".into();
    Ok(vec![
        Figure { what, part, limit, chunks: second.count(), by_use, blame: Vec::new() },
        Figure::new("  its own bytes included", all, None),
    ])
}

/// Claim 3: the base is updated below an application that stays as it is.
pub(crate) async fn base_update(setting: &mut Setting) -> Result<Vec<Figure>> {
    let (base, app) = (setting.base.clone(), App::new("shop"));
    let old = setting.with_app("before", &base, &app).await?;
    let packages = base::packages(&base[0])?;
    let limit = Some(Limit::AtMost(0.08));
    let mut figures = Vec::new();
    for seed in 1..=3 {
        let (names, paths) = base::pick(&packages, REPLACED, seed);
        let mut updated = base.clone();
        updated[0] = base::update(&setting.layout, &base[0], &paths)?;
        let new = setting.with_app(&format!("after-{seed}"), &updated, &app).await?;
        let what = format!("base rebuilt, {} files of {} packages replaced", paths.len(), names.len());
        figures.push(Figure::unique(what, &new, &old, limit).because(&new, &old, &paths));
        if seed == 1 {
            let wanted: HashSet<String> = paths.iter().cloned().collect();
            let found = base::contents(&updated[0], &wanted)?;
            let mut layers = base.clone();
            layers.push(base::layer_of(&setting.layout, &found, 0)?);
            let new = setting.with_app("upgraded", &layers, &app).await?;
            figures.push(
                Figure::unique("  the same as a layer between base and application", &new, &old, limit)
                    .because(&new, &old, &paths),
            );
        }
    }
    let scattered = scatter(&base[0])?;
    let mut updated = base.clone();
    updated[0] = base::update(&setting.layout, &base[0], &scattered)?;
    let new = setting.with_app("scattered", &updated, &app).await?;
    let what = format!("  {} files from anywhere, which no update does", scattered.len());
    figures.push(Figure::unique(what, &new, &old, None).because(&new, &old, &scattered));
    Ok(figures)
}

fn scatter(blob: &Blob) -> Result<BTreeSet<String>> {
    let mut files: Vec<(u64, String)> = base::files(blob)?
        .into_iter()
        .filter(|file| file.size > 0)
        .map(|file| (Random::of(&file.path, 3).next(), file.path))
        .collect();
    files.sort();
    Ok(files.into_iter().take(REPLACED).map(|(_, path)| path).collect())
}

/// Claim 4: a large file, in two images that have nothing else in common.
pub(crate) async fn large_files(setting: &mut Setting) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let sizes = [512 << 10, (512 << 10) + 1, 700_000, (3 << 20) + 123, 16 << 20];
    let file = |size: usize, mode, mtime| File { data: Random::new(size as u64).code(size), mode, mtime };
    let mut alone: BTreeMap<String, File> = BTreeMap::new();
    let mut beside = App::new("unrelated");
    for size in sizes {
        alone.insert(format!("data/f{size}"), file(size, 0o600, 1));
        let path = format!("srv/www/{}/download.bin", size / 3);
        beside.layers[2].files.insert(path, file(size, 0o644, 1_650_000_000));
    }
    let first = base::layer_of(&setting.layout, &alone, 55)?;
    let first = setting.push("alone", &[first], &json!({})).await?;
    let base = setting.base.clone();
    let second = setting.with_app("beside", &base, &beside).await?;
    for size in sizes {
        let range = first.file(&format!("data/f{size}"))?;
        let count = range.len();
        let shared = range.filter(|index| second.has(&first.chunks[index])).count();
        let part = shared as f64 / count as f64;
        let what = format!("a file of {size} bytes, chunks it has in an unrelated image");
        figures.push(Figure { chunks: count, ..Figure::new(what, part, Some(Limit::AtLeast(1.0))) });
    }
    Ok(figures)
}

/// A package to be installed in two images.
struct Package {
    name: String,
    files: BTreeMap<String, File>,
    /// Prefix that an installer may choose, for Python packages.
    prefix: Option<String>,
}

/// Claim 5: the same package in different layers of different images, with other neighbours,
/// times and owners; Python packages below another prefix as well.
pub(crate) async fn packages(setting: &mut Setting, most: usize) -> Result<Vec<Figure>> {
    let mut found = Vec::new();
    for blob in setting.base.clone() {
        found.extend(candidates(&blob)?);
    }
    found.sort_by(|a, b| b.files.len().cmp(&a.files.len()).then_with(|| a.name.cmp(&b.name)));
    let (python, debian): (Vec<_>, Vec<_>) = found.into_iter().partition(|package| package.prefix.is_some());
    let chosen: Vec<Package> = python.into_iter().take(most).chain(debian.into_iter().take(most)).collect();
    let mut figures = Vec::new();
    let base = setting.base.clone();
    for (number, package) in chosen.iter().enumerate() {
        let (one, other) = (&chosen[(number + 1) % chosen.len()], &chosen[(number + 2) % chosen.len()]);
        let first = merged(&[(package, "usr/local/lib/python3.11/site-packages/"), (one, "")], 0);
        let second = merged(&[(package, "opt/venv/lib/python3.12/site-packages/"), (other, "")], 7_000);
        let app = App::new("neighbour");
        let below = base::layer_of(&setting.layout, &app.layers[2].files, 1000)?;
        let first = base::layer_of(&setting.layout, &first, 0)?;
        let second = base::layer_of(&setting.layout, &second, 1000)?;
        let first = setting.push(&format!("one-{number}"), &[below, first], &json!({})).await?;
        let mut layers = base.clone();
        layers.push(second);
        let second = setting.push(&format!("two-{number}"), &layers, &json!({})).await?;
        figures.push(shared_bytes(package, &first, &second)?);
    }
    Ok(figures)
}

fn merged(parts: &[(&Package, &str)], later: u64) -> BTreeMap<String, File> {
    let mut files = BTreeMap::new();
    for (package, prefix) in parts {
        for (path, file) in &package.files {
            let mut file = file.clone();
            file.mtime += later;
            files.insert(relocated(package, path, prefix), file);
        }
    }
    files
}

fn relocated(package: &Package, path: &str, prefix: &str) -> String {
    match &package.prefix {
        Some(old) if !prefix.is_empty() => format!("{prefix}{}", path.trim_start_matches(old.as_str())),
        _ => path.to_owned(),
    }
}

fn shared_bytes(package: &Package, first: &Pushed, second: &Pushed) -> Result<Figure> {
    let places: BTreeMap<Vec<u8>, std::ops::Range<u32>> =
        first.places().map(|place| (place.path, place.chunks)).collect();
    let (mut all, mut shared) = (0, 0);
    for (path, file) in &package.files {
        let path = relocated(package, path, "usr/local/lib/python3.11/site-packages/");
        let Some(range) = places.get(path.as_bytes()) else { continue };
        for (index, here) in pieces(range.clone(), file.data.len() as u64) {
            all += here;
            let same = first.chunks.get(&index).is_none_or(|id| second.has(id));
            shared += if same { here } else { 0 };
        }
    }
    let kind = if package.prefix.is_some() { "Python" } else { "Debian" };
    let what = format!(
        "{kind} package {}: {} files, {:.1} MiB",
        package.name,
        package.files.len(),
        all as f64 / f64::from(1 << 20)
    );
    Ok(Figure::new(what, shared as f64 / all.max(1) as f64, Some(Limit::AtLeast(0.8))))
}

/// Packages of a layer with at least 40 files and a chunk of bytes.
fn candidates(blob: &Blob) -> Result<Vec<Package>> {
    let all = base::files(blob)?;
    let size: BTreeMap<&str, u64> = all.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let mut groups: Vec<(String, Vec<String>, Option<String>)> = python_packages(&all);
    groups.extend(base::packages(blob)?.into_iter().map(|(name, files)| (name, files, None)));
    let mut found = Vec::new();
    for (name, files, prefix) in groups {
        let bytes: u64 = files.iter().filter_map(|path| size.get(path.as_str())).sum();
        if files.len() >= 40 && (CHUNK..48 * CHUNK * 2).contains(&bytes) {
            let files = base::contents(blob, &files.into_iter().collect())?;
            found.push(Package { name, files, prefix });
        }
    }
    Ok(found)
}

fn python_packages(all: &[Found]) -> Vec<(String, Vec<String>, Option<String>)> {
    let mut groups: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for file in all {
        for marker in ["dist-packages/", "site-packages/"] {
            let Some(at) = file.path.find(marker) else { continue };
            let (prefix, rest) = file.path.split_at(at + marker.len());
            if let Some((name, _)) = rest.split_once('/') {
                groups.entry((prefix.into(), name.into())).or_default().push(file.path.clone());
            }
        }
    }
    groups.into_iter().map(|((prefix, name), files)| (name, files, Some(prefix))).collect()
}
