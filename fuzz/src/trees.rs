//! What every tree must be, whatever layers made it.

use flattener::tree::{NodeKind, Tree};

/// Asserts that every name leads to a live node and that every node has the names it counts.
///
/// # Panics
/// If it is not so.
pub fn check(tree: &Tree) {
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
    for (_, id) in tree.entries() {
        assert_eq!(tree.node(id).names, names[id.index()], "names are counted");
    }
}
