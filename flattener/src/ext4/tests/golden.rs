//! The bytes of layout policy 1, pinned. A change here is a new policy, not a new digest.

use super::privileged::hard_cases;
use super::support::*;
use crate::ext4::Layout;
use crate::tree::Tree;

#[test]
fn policy_1_keeps_its_bytes() {
    let layout = Layout::plan(Tree::apply(&hard_cases()).unwrap(), &identity()).unwrap();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&layout.device_length().to_le_bytes());
    let mut chunk = vec![0; 512 * 1024];
    for index in layout.occupied_chunks() {
        layout.render(index, &Pattern, &mut chunk).unwrap();
        hasher.update(&index.to_le_bytes());
        hasher.update(&chunk);
    }
    assert_eq!(Layout::POLICY, 1);
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "90014ae6d1311568a609fabf9080bad3b499e70913add2662314610b580c6b94"
    );
}
