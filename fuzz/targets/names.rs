//! Names in text: objects, images, ids, digests, labels. What is accepted prints as the
//! very text it was read from.

#![no_main]

use image_format::ids::{ChunkId, ImageDigest, ImageId, RootId, TenantId};
use image_format::names::{ImageName, ObjectName};
use libfuzzer_sys::fuzz_target;
use std::fmt::Display;
use std::str::FromStr;

fn one_spelling<T: FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    one_spelling::<ObjectName>(text);
    one_spelling::<ImageName>(text);
    one_spelling::<ChunkId>(text);
    one_spelling::<ImageId>(text);
    one_spelling::<ImageDigest>(text);
    one_spelling::<RootId>(text);
    one_spelling::<TenantId>(text);
    if let Ok(object) = text.parse::<ObjectName>() {
        // No name leaves its folder, whatever file system or store it lands in.
        assert!(!text.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > 255));
        assert_eq!(object.to_string().parse().as_ref(), Ok(&object));
    }
    if let Ok(object) = ObjectName::reference(&fuzz::root(), &fuzz::tenant(), text) {
        assert_eq!(object.to_string().parse().as_ref(), Ok(&object));
    }
});
