//! What people type to name images, platforms, digests and paths: the canonical form means
//! the same.

#![no_main]

use flattener::layer::Digest;
use flattener::layer::entry::LayerPath;
use flattener::oci::{ImageRef, Platform, RegistryRef};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(path) = LayerPath::parse(data) {
        assert_eq!(LayerPath::parse(path.as_bytes()).as_ref(), Ok(&path));
        assert!(!path.components().any(|part| matches!(part, b"" | b"." | b"..") || part.contains(&b'/')));
        let joined = path.components().collect::<Vec<_>>().join(&b'/');
        assert_eq!(joined, path.as_bytes());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<ImageRef>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    if let Ok(reference) = text.parse::<RegistryRef>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse(), Ok(platform.clone()));
        assert!(platform.accepts(&platform));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
});
