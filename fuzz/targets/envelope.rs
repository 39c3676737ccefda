//! Envelopes: no input opens but what the key sealed, and what it sealed opens.

#![no_main]

use fuzz::tenant_key;
use image_format::envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&split, rest)) = data.split_first() else { return };
    let (associated, bytes) = rest.split_at(usize::from(split).min(rest.len()));
    let key = tenant_key();
    if let Ok(plain) = envelope::open(&key, associated, bytes) {
        assert_eq!(envelope::seal(&key, associated, &plain), bytes, "one sealed form only");
    }
    let mut sealed = envelope::seal(&key, associated, bytes);
    assert_eq!(sealed.len(), bytes.len() + envelope::OVERHEAD);
    assert_eq!(envelope::open(&key, associated, &sealed).expect("just sealed").as_slice(), bytes);
    let at = usize::from(split) % sealed.len();
    sealed[at] ^= 1;
    assert!(envelope::open(&key, associated, &sealed).is_err());
});
