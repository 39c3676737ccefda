//! Users of an image: `/etc/passwd` and `/etc/group` as an image may hold them. The input is
//! the user asked for, passwd and group, separated by zero bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use photon::sandbox::Identity;
use std::fs;
use std::sync::LazyLock;
use tempfile::TempDir;

static ROOT: LazyLock<TempDir> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("etc")).expect("a directory");
    root
});

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let user = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    for name in ["passwd", "group"] {
        let text = parts.next().unwrap_or_default();
        fs::write(ROOT.path().join("etc").join(name), text).expect("room on disk");
    }
    let Ok(identity) = Identity::find(ROOT.path(), &user) else { return };
    assert!(identity.groups.len() <= 1024);
    assert!(identity.home.is_none_or(|home| home.starts_with('/')));
    if let Ok(uid) = user.parse::<u32>() {
        assert_eq!(identity.uid, uid);
    }
});
