//! The base of the images: layers of a given image, or made from this host's own `/usr`.
//!
//! Also what a distribution does to it: [`update`] replaces files package by package.

use crate::app::{File, write_files};
use crate::layout::{Blob, LayoutDir};
use crate::random::Random;
use anyhow::{Context, Result, ensure};
use flattener::oci::ImageRef;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What goes into each layer of the base made from this host: directories, most MiB.
const HOST: [(&[&str], u64); 3] = [
    (&["/var/lib/dpkg/info", "/usr/bin", "/etc/alternatives", "/usr/lib"], 260),
    (&["/usr/share"], 110),
    (&["/usr/lib/python3", "/usr/local/lib"], 130),
];
/// Files above this size are left out of a base made from this host.
const HOST_FILE_BYTES: u64 = 24 << 20;

/// The layers of the base: those of `image` (at most `layers` of them), or the host's.
pub(crate) fn base(layout: &LayoutDir, image: Option<&str>, layers: usize) -> Result<Vec<Blob>> {
    let Some(image) = image else {
        return HOST.iter().map(|(roots, most)| host_layer(layout, roots, most << 20)).collect();
    };
    let ImageRef::Layout { directory, tag } = image.parse()? else {
        anyhow::bail!("--base takes oci:DIRECTORY[:TAG], not {image}");
    };
    let mut found = layout.adopt(&directory, tag.as_deref())?;
    found.truncate(layers);
    Ok(found)
}

fn host_layer(layout: &LayoutDir, roots: &[&str], mut budget: u64) -> Result<Blob> {
    layout.layer(1, |tar| {
        tar.follow_symlinks(false);
        for root in roots {
            host_tree(tar, Path::new(root), &mut budget)?;
        }
        Ok(())
    })
}

/// Adds a directory in name order, depth first, until the budget is spent.
fn host_tree(tar: &mut tar::Builder<&mut dyn Write>, path: &Path, budget: &mut u64) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let kind = metadata.file_type();
    let inside = path.strip_prefix("/")?;
    if kind.is_dir() {
        tar.append_dir(inside, path)?;
        let mut below: Vec<_> = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        below.sort();
        return below.iter().try_for_each(|path| host_tree(tar, path, budget));
    }
    let size = if kind.is_file() { metadata.size() } else { 0 };
    if kind.is_symlink() || kind.is_file() && size <= HOST_FILE_BYTES.min(*budget) {
        *budget -= size;
        tar.append_path_with_name(path, inside)?;
    }
    Ok(())
}

/// A file of an archive as the benches need it.
pub(crate) struct Found {
    /// Path without leading or trailing `/` or `./`.
    pub(crate) path: String,
    /// Bytes of it.
    pub(crate) size: u64,
}

/// Regular files of a layer with names that are UTF-8.
pub(crate) fn files(blob: &Blob) -> Result<Vec<Found>> {
    let mut archive = tar::Archive::new(blob.archive()?);
    let mut found = Vec::new();
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type() == tar::EntryType::Regular
            && let Some(path) = clean(&entry.path_bytes())
        {
            found.push(Found { path, size: entry.size() });
        }
    }
    Ok(found)
}

fn clean(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.trim_start_matches("./").trim_matches('/');
    (!path.is_empty() && !path.contains("/.wh.") && !path.starts_with(".wh.")).then(|| path.to_owned())
}

/// Contents of the files at these paths of a layer.
pub(crate) fn contents(blob: &Blob, wanted: &HashSet<String>) -> Result<BTreeMap<String, File>> {
    let mut archive = tar::Archive::new(blob.archive()?);
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = clean(&entry.path_bytes()).filter(|path| wanted.contains(path));
        if entry.header().entry_type() == tar::EntryType::Regular
            && let Some(path) = path
        {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            let header = entry.header();
            found.insert(path, File { data, mode: header.mode()? & 0o7777, mtime: header.mtime()? });
        }
    }
    Ok(found)
}

/// Packages of a layer by its dpkg database: name, and which of its files the layer has.
/// Without one, directories of `/usr/share` and `/usr/lib` stand for packages.
pub(crate) fn packages(blob: &Blob) -> Result<Vec<(String, Vec<String>)>> {
    const INFO: &str = "var/lib/dpkg/info/";
    let all: Vec<String> = files(blob)?.into_iter().map(|file| file.path).collect();
    let all: HashSet<String> = all.into_iter().collect();
    let lists: HashSet<String> =
        all.iter().filter(|path| path.starts_with(INFO) && path.ends_with(".list")).cloned().collect();
    let lists = contents(blob, &lists)?;
    let mut packages = Vec::new();
    for (path, list) in lists {
        let name = path.trim_start_matches(INFO).trim_end_matches(".list").to_owned();
        let listed = String::from_utf8_lossy(&list.data);
        let mut owned: Vec<String> = listed
            .lines()
            .map(|line| merged_usr(line.trim_start_matches('/')))
            .filter(|p| all.contains(p))
            .collect();
        owned.extend(all.iter().filter(|path| path.starts_with(&format!("{INFO}{name}."))).cloned());
        owned.sort();
        packages.push((name, owned));
    }
    if packages.is_empty() {
        let mut by_directory: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in all {
            let parts: Vec<&str> = path.splitn(5, '/').collect();
            let depth = (parts.len() - 1).min(4);
            by_directory.entry(parts[..depth].join("/")).or_default().push(path);
        }
        packages = by_directory.into_iter().collect();
    }
    Ok(packages)
}

/// dpkg lists `/bin/sh` where the archive has `usr/bin/sh`.
fn merged_usr(path: &str) -> String {
    let moved = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|top| path.starts_with(top));
    if moved { format!("usr/{path}") } else { path.to_owned() }
}

/// Picks packages, in an order that depends on the seed alone, until they have `count`
/// files; of the last one only as many as are missing. No package of more than half.
pub(crate) fn pick(
    packages: &[(String, Vec<String>)],
    count: usize,
    seed: u64,
) -> (Vec<String>, BTreeSet<String>) {
    let mut order: Vec<(u64, &(String, Vec<String>))> = packages
        .iter()
        .filter(|(_, files)| !files.is_empty() && files.len() <= count / 2)
        .map(|package| (Random::of(&package.0, seed).next(), package))
        .collect();
    order.sort_by_key(|(hash, _)| *hash);
    let (mut names, mut paths) = (Vec::new(), BTreeSet::new());
    for (_, (name, files)) in order {
        if paths.len() == count {
            break;
        }
        names.push(name.clone());
        let missing = count - paths.len();
        paths.extend(files.iter().take(missing).cloned());
    }
    (names, paths)
}

/// The layer with the files at `paths` replaced: other content, another size (up to 3 %
/// more or less), a later time. Everything else stays as it is, byte by byte.
pub(crate) fn update(layout: &LayoutDir, blob: &Blob, paths: &BTreeSet<String>) -> Result<Blob> {
    let mut archive = tar::Archive::new(blob.archive()?);
    let mut replaced = 0;
    let updated = layout.layer(1, |tar| {
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = clean(&entry.path_bytes()).filter(|path| paths.contains(path));
            let path = path.filter(|_| entry.header().entry_type() == tar::EntryType::Regular);
            replaced += usize::from(path.is_some());
            copy_entry(tar, &mut entry, path.as_deref())?;
        }
        Ok(())
    })?;
    ensure!(replaced == paths.len(), "replaced {replaced} of {} files", paths.len());
    Ok(updated)
}

fn copy_entry(
    tar: &mut tar::Builder<&mut dyn Write>,
    entry: &mut tar::Entry<'_, Box<dyn Read>>,
    replace: Option<&str>,
) -> Result<()> {
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for record in extensions {
            let record = record?;
            let key = record.key().context("a PAX key that is not UTF-8")?;
            if !(replace.is_some() && key.ends_with("time")) {
                records.push((key.to_owned(), record.value_bytes().to_vec()));
            }
        }
    }
    let has = |key: &str, records: &[(String, Vec<u8>)]| records.iter().any(|(found, _)| found == key);
    let mut header = entry.header().clone();
    let path = entry.path_bytes().into_owned();
    if path.len() > 100 && !has("path", &records) {
        records.push(("path".into(), path));
    }
    if let Some(link) = entry.link_name_bytes().filter(|link| link.len() > 100)
        && !has("linkpath", &records)
    {
        records.push(("linkpath".into(), link.into_owned()));
    }
    if !records.is_empty() {
        tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
    }
    let Some(path) = replace else {
        header.set_cksum();
        return Ok(tar.append(&header, entry)?);
    };
    let mut old = Vec::new();
    entry.read_to_end(&mut old)?;
    let new = revise(path, &old);
    header.set_size(new.len() as u64);
    header.set_mtime(header.mtime()? + 86_400 * 30);
    header.set_cksum();
    Ok(tar.append(&header, &new[..])?)
}

/// A new release of a file: every 64th byte differs, and the length by up to 3 %.
fn revise(path: &str, old: &[u8]) -> Vec<u8> {
    let mut random = Random::of(path, 2);
    let most = old.len() / 33 + 2;
    let longer = random.within(0..2) == 0;
    let by = random.within(1..most.max(2));
    let mut new = old.to_vec();
    if longer || old.len() <= by {
        new.extend(random.text(by));
    } else {
        new.truncate(old.len() - by);
    }
    for byte in new.iter_mut().step_by(64) {
        *byte ^= 0x15;
    }
    new
}

/// A layer of these files.
pub(crate) fn layer_of(layout: &LayoutDir, files: &BTreeMap<String, File>, owner: u64) -> Result<Blob> {
    layout.layer(1, |tar| write_files(tar, files, owner))
}
