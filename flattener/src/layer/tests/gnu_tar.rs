//! Archives of the real GNU tar, in every format it has, compared with the files.

use super::support::*;
use crate::layer::entry::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(root.join("dir/plain"), b"plain").unwrap();
    fs::write(root.join("dir/empty"), b"").unwrap();
    fs::write(root.join("dir").join("n".repeat(200)), b"long name").unwrap();
    std::os::unix::fs::symlink("t".repeat(180), root.join("dir/link")).unwrap();
    // Two hundred holes: more than one continuation block of an old GNU sparse map.
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for at in 0..200_u64 {
        sparse.write_all_at(&[b'x'; 5000], at * 65536 + 100).unwrap();
    }
    sparse.set_len(200 * 65536 + 12345).unwrap();
    let all_hole = fs::File::create(root.join("hole")).unwrap();
    all_hole.set_len(1 << 20).unwrap();
}

fn tar(root: &Path, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new("tar").arg("-C").arg(root).args(arguments).args(["-cf", "-", "."]).output().unwrap();
    std::io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "tar {arguments:?}");
    output.stdout
}

fn compare(root: &Path, archive: &[u8], case: &str, nanoseconds: bool) {
    let (layer, spool) = read(archive).unwrap_or_else(|error| panic!("{case}: {error}"));
    let mut seen = BTreeMap::new();
    for entry in &layer.entries {
        let name = std::str::from_utf8(entry.path.as_bytes()).unwrap();
        let file = root.join(name);
        let there = fs::symlink_metadata(&file).unwrap();
        match &entry.kind {
            EntryKind::File(content) => {
                assert!(contents(&spool, content) == fs::read(&file).unwrap(), "{case}: {name}");
            }
            EntryKind::Directory => assert!(there.is_dir()),
            EntryKind::Symlink(target) => {
                assert_eq!(fs::read_link(&file).unwrap().as_os_str().as_encoded_bytes(), target);
            }
            other => panic!("{case}: {name} {other:?}"),
        }
        assert_eq!(u32::from(entry.metadata.mode), there.mode() & 0o7777, "{case}: {name}");
        assert_eq!((entry.metadata.uid, entry.metadata.gid), (there.uid(), there.gid()), "{case}: {name}");
        assert_eq!(entry.metadata.mtime.seconds, there.mtime(), "{case}: {name}");
        if nanoseconds {
            assert_eq!(i64::from(entry.metadata.mtime.nanoseconds), there.mtime_nsec(), "{case}: {name}");
        }
        seen.insert(name.to_owned(), ());
    }
    assert_eq!(seen.len(), 9, "{case}: {seen:?}");
}

#[test]
fn every_format_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    make_tree(dir.path());
    for (arguments, nanoseconds) in [
        (&["--format=gnu"][..], false),
        (&["--format=gnu", "--sparse"], false),
        (&["--format=posix"], true),
        (&["--format=posix", "--sparse", "--sparse-version=0.0"], true),
        (&["--format=posix", "--sparse", "--sparse-version=0.1"], true),
        (&["--format=posix", "--sparse", "--sparse-version=1.0"], true),
    ] {
        let archive = tar(dir.path(), arguments);
        compare(dir.path(), &archive, &format!("{arguments:?}"), nanoseconds);
    }
}
