//! Two file trees, compared in everything a container can see.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is seen of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    device: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// First path, in order, of the other names of the same file.
    same_as: Option<PathBuf>,
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 * 1024];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

fn digest(path: &Path) -> Vec<u8> {
    let mut file = fs::File::open(path).unwrap();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).unwrap();
        if length == 0 {
            return hasher.finalize().to_vec();
        }
        hasher.update(&buffer[..length]);
    }
}

fn look(path: &Path, name: &Path, first: &mut HashMap<u64, PathBuf>) -> Seen {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let (kind, content) = if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_symlink() {
        ("symlink", fs::read_link(path).unwrap().into_os_string().into_vec())
    } else if kind.is_file() {
        // a sparse file of gigabytes is compared by size and allocation elsewhere
        ("file", if metadata.len() < 1 << 30 { digest(path) } else { Vec::new() })
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else if kind.is_char_device() {
        ("char device", Vec::new())
    } else {
        ("block device", Vec::new())
    };
    let linked = kind != "directory" && metadata.nlink() > 1;
    let same_as = linked.then(|| first.entry(metadata.ino()).or_insert_with(|| name.to_path_buf()).clone());
    Seen {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if kind == "directory" { 0 } else { metadata.len() },
        device: metadata.rdev(),
        content,
        xattrs: xattrs(path),
        same_as,
    }
}

fn walk(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut first = HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(name) = pending.pop() {
        let path = root.join(&name);
        let here = look(&path, &name, &mut first);
        if here.kind == "directory" {
            let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
            pending.extend(names.into_iter().map(|child| name.join(child)));
        }
        seen.insert(name, here);
    }
    seen
}

/// What differs between two trees, one line each. `free_times` are paths whose times the
/// formats leave open (directories that no layer mentions).
#[must_use]
pub fn trees(ours: &Path, theirs: &Path, free_times: &[&str]) -> Vec<String> {
    let (mut ours, mut theirs) = (walk(ours), walk(theirs));
    for path in free_times {
        for tree in [&mut ours, &mut theirs] {
            if let Some(seen) = tree.get_mut(Path::new(path)) {
                seen.mtime = (0, 0);
            }
        }
    }
    let mut differences = Vec::new();
    for (path, a) in &ours {
        match theirs.get(path) {
            None => differences.push(format!("{}: only in ours", path.display())),
            Some(b) if a != b => differences.push(format!("{}: ours {a:?}, theirs {b:?}", path.display())),
            Some(_) => {}
        }
    }
    for path in theirs.keys().filter(|path| !ours.contains_key(*path)) {
        differences.push(format!("{}: only in theirs", path.display()));
    }
    differences
}
