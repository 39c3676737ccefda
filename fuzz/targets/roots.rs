//! Root tables, damaged trailers repaired: what decodes is written back alike, and every
//! transition keeps it so.

#![no_main]

use fuzz::with_trailer;
use image_format::root::RootTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert!(RootTable::decode(data).is_err() || with_trailer(data).as_deref() == Some(data));
    let Some(bytes) = with_trailer(data) else { return };
    let Ok(mut table) = RootTable::decode(&bytes) else { return };
    assert_eq!(table.encode(), bytes);
    // A generation at the end of its range is not reached by counting.
    if table.generation() > u64::MAX / 2 {
        return;
    }
    for (root, state) in table.roots().to_vec() {
        let before = table.generation();
        if let Some(next) = state.next()
            && table.advance(&root, next).is_ok()
        {
            assert_eq!((table.state(&root), table.generation()), (Ok(next), before + 1));
        }
        assert!(table.add(root).is_err());
    }
    assert_eq!(RootTable::decode(&table.encode()).as_ref(), Ok(&table));
});
