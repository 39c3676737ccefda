//! Layers applied to one tree: up to four archives, one after the other in the input.

#![no_main]

use flattener::tree::{Acl, NodeKind, Tree};
use fuzz::layers;
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
        check(&tree);
        if rest.is_empty() {
            return;
        }
    }
});

/// Every name leads to a live node, every live node has the names it counts.
fn check(tree: &Tree) {
    let mut names = vec![0_u32; tree.node_count()];
    for (path, id) in tree.entries() {
        let node = tree.node(id);
        assert!(node.is_live(), "{}", path.escape_ascii());
        names[id.index()] += 1;
        match &node.kind {
            NodeKind::Directory(_) => assert_eq!(names[id.index()], 1, "a directory has one name"),
            NodeKind::Symlink(target) => assert!((1..=4095).contains(&target.len())),
            _ => {}
        }
        assert!(path.split(|&byte| byte == b'/').all(|part| part.len() <= 255 && part != b".."));
        assert!(!path.contains(&0) && node.mode <= 0o7777);
    }
    let counted = (0..tree.node_count()).zip(&names).filter(|(_, names)| **names > 0).count();
    let live: u32 = names.iter().sum();
    assert!(counted <= live as usize);
    for (_, id) in tree.entries() {
        assert_eq!(tree.node(id).names, names[id.index()], "names are counted");
    }
}
