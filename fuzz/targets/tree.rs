//! Layers applied to one tree: up to four archives, one after the other in the input.

#![no_main]

use flattener::tree::{Acl, Tree};
use fuzz::{layers, trees};
use libfuzzer_sys::fuzz_target;

/// Between two archives.
const SEPARATOR: &[u8] = b"NEXTLAYR";

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(acl)) = Acl::parse(data) {
        assert!(acl.mode() <= 0o777 && acl.entries.len() * 8 + 4 == data.len());
    }
    let mut rest = data;
    let mut tree = Tree::new();
    for index in 0..4 {
        let cut = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let archive = &rest[..cut.unwrap_or(rest.len())];
        rest = cut.map_or(&[][..], |cut| &rest[cut + SEPARATOR.len()..]);
        let Some((layer, _spool)) = layers::read_archive(index, archive) else { return };
        if tree.apply_layer(&layer).is_err() {
            return;
        }
        trees::check(&tree);
        if rest.is_empty() {
            return;
        }
    }
});
