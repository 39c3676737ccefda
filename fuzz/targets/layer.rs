//! Uncompressed layer archives: entries come out as promised, or an error does; never more
//! memory or disk than the limits.

#![no_main]

use flattener::layer::{Budget, Digest};
use fuzz::{layers, tar};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let read = |bytes: &[u8]| {
        let read = layers::read(0, bytes, Digest::of(bytes), &Budget::new(layers::limits()));
        read.ok().map(|(layer, spool)| {
            layers::check(&layer, &spool);
            layer.entries
        })
    };
    let fixed = tar::with_checksums(data);
    let entries = read(&fixed);
    // Without the repair for the checks of headers; with none needed, to the same effect.
    let again = read(data);
    assert!(fixed != data || entries == again);
});
