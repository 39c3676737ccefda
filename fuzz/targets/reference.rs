//! References: as they come, and with the input as what a tenant sealed.

#![no_main]

use fuzz::{reference_name, tenant_key};
use image_format::envelope;
use image_format::reference::{REFERENCE_LEN, Reference};
use libfuzzer_sys::fuzz_target;

const HEADER_LEN: usize = 16;

fuzz_target!(|data: &[u8]| {
    let (key, name) = (tenant_key(), reference_name());
    if let Ok(reference) = Reference::open(data, &key, &name) {
        assert_eq!(reference.seal(&key, &name), data);
    }
    // The same with an envelope that opens: the header is the input's.
    let Some((header, inner)) = data.split_at_checked(HEADER_LEN) else { return };
    let inner = &inner[..inner.len().min(REFERENCE_LEN - HEADER_LEN - envelope::OVERHEAD)];
    let associated = [header, name.to_string().as_bytes()].concat();
    let bytes = [header, &envelope::seal(&key, &associated, inner)].concat();
    if let Ok(reference) = Reference::open(&bytes, &key, &name) {
        assert_eq!(reference.seal(&key, &name), bytes);
    }
});
