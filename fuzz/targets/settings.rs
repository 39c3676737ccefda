//! Settings of a host: the settings file, the keyring, sizes and mounts on command lines.
//! Written by administrators, not by enemies; but errors must be errors.

#![no_main]

use blockd::config::{ConfigFile, WorkerArgs};
use cache::size::size;
use fuzz::files::MemoryFile;
use libfuzzer_sys::fuzz_target;
use origin::keyring::Keyring;
use origin::settings::{StoreArgs, read_config};
use photon::sandbox::Mount;
use std::sync::LazyLock;

static FILE: LazyLock<MemoryFile> = LazyLock::new(|| {
    let file = MemoryFile::new().expect("a file in memory");
    file.make_private().expect("a file of our own");
    file
});

fuzz_target!(|data: &[u8]| {
    FILE.fill(data).expect("room in memory");
    let _ = Keyring::new(FILE.path()).domain_secret("team");
    if let Ok(file) = read_config::<ConfigFile>(Some(&FILE.path())) {
        let store = StoreArgs { store: Some("file:///store".into()), ..StoreArgs::default() };
        let _ = WorkerArgs::default().resolve(store, file);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(bytes) = size(text) {
        assert_eq!(size(&bytes.to_string()), Ok(bytes));
    }
    if let Ok(mount) = text.parse::<Mount>() {
        assert!(mount.target.is_absolute());
    }
});
