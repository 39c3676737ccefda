//! Layer blobs as stored: the compression is found by the first bytes, and what comes out
//! stays within the limits however small the blob is.

#![no_main]

use flattener::layer::{Budget, Digest, Fault};
use fuzz::layers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let budget = || Budget::new(layers::limits());
    let Err(error) = layers::read(0, data, Digest::of(data), &budget()) else { return };
    // A compressed layer has another diff id than its blob: the error says which.
    let Fault::DiffId { got, .. } = *error.fault else { return };
    let (layer, spool) = layers::read(0, data, got, &budget()).expect("the diff id is right now");
    layers::check(&layer, &spool);
});
