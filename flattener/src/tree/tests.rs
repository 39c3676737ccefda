//! Tree semantics, case by case, as `umoci unpack` has them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ext4::tests::support::{Builder, metadata, path};
use crate::layer::entry::{EntryKind, Metadata, Timestamp};

/// Paths with a letter for the kind, one per line; links with their targets.
fn show(tree: &Tree) -> String {
    let mut out = String::new();
    for (path, id) in tree.entries().skip(1) {
        let kind = match &tree.node(id).kind {
            NodeKind::Directory(_) => "/".to_owned(),
            NodeKind::Symlink(target) => format!("@{}", target.escape_ascii()),
            NodeKind::File(content) => format!("={}", content.size),
            _ => "!".to_owned(),
        };
        out.push_str(&format!("{}{kind} ", path.escape_ascii()));
    }
    out.trim_end().to_owned()
}

fn tree(layers: &mut [Builder]) -> Tree {
    let layers: Vec<_> = layers.iter_mut().map(Builder::build).collect();
    Tree::apply(&layers).unwrap()
}

fn layer(make: impl FnOnce(&mut Builder)) -> Builder {
    let mut builder = Builder::default();
    make(&mut builder);
    builder
}

fn fails(make: impl FnOnce(&mut Builder)) -> String {
    Tree::apply(&[layer(make).build()]).unwrap_err().to_string()
}

#[test]
fn whiteouts_touch_lower_layers_only() {
    for whiteout_first in [false, true] {
        let base = layer(|b| {
            b.dir("d").file("d/old", 1).dir("d/sub").file("d/sub/old", 1).file("f", 1).file("g", 1);
        });
        let upper = layer(|b| {
            if whiteout_first {
                b.whiteout("d").whiteout("f");
            }
            b.file("d/new", 2).file("f", 2);
            if !whiteout_first {
                b.whiteout("d").whiteout("f");
            }
            b.whiteout("g").whiteout("not/there").whiteout("f/below/a/file");
        });
        assert_eq!(show(&tree(&mut [base, upper])), "d/ d/new=2 f=2", "{whiteout_first}");
    }
}

#[test]
fn opaque_whiteouts_empty_what_lies_below() {
    let base = layer(|b| {
        b.dir("d").file("d/a", 1).dir("d/sub").file("d/sub/a", 1).link("l", "d");
    });
    let upper = layer(|b| {
        b.file("d/sub/b", 2).opaque("l").file("d/c", 3).opaque("nowhere");
    });
    assert_eq!(show(&tree(&mut [base, upper])), "d/ d/c=3 d/sub/ d/sub/b=2 l@d");
}

#[test]
fn a_whiteout_does_not_spare_a_lower_name_of_a_linked_file() {
    let base = layer(|b| {
        b.file("old", 4);
    });
    let upper = layer(|b| {
        b.hard("new", "old").whiteout("old");
    });
    let tree = tree(&mut [base, upper]);
    assert_eq!(show(&tree), "new=4");
    assert_eq!(tree.node(tree.lookup(&path("new")).unwrap()).names, 1);
}

#[test]
fn kinds_replace_each_other() {
    let base = layer(|b| {
        b.dir("d").file("d/f", 1).file("f", 1).link("l", "d").dir("keep").file("keep/f", 1);
    });
    let upper = layer(|b| {
        b.file("d", 2).dir("f").file("f/x", 1).dir("l").dir("keep").file("twice", 1).file("twice", 2);
    });
    assert_eq!(show(&tree(&mut [base, upper])), "d=2 f/ f/x=1 keep/ keep/f=1 l/ twice=2");
}

#[test]
fn parents_resolve_inside_the_root() {
    let base = layer(|b| {
        b.dir("real").link("abs", "/real").link("rel", "x/../real").link("up", "../../../real");
        b.link("dangling", "made/on/demand").link("chain", "abs");
    });
    let upper = layer(|b| {
        b.file("abs/a", 1).file("rel/b", 1).file("up/c", 1).file("dangling/d", 1).file("chain/e", 1);
    });
    let tree = tree(&mut [base, upper]);
    for made in ["real/a", "real/b", "real/c", "made/on/demand/d", "real/e"] {
        assert!(tree.lookup(&path(made)).is_some(), "{made} in {}", show(&tree));
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let loops = fails(|b| {
        b.link("a", "b").link("b", "a").file("a/x", 1);
    });
    assert_eq!(loops, "layer 0: entry /a/x: more than 40 symbolic links on the way; the archive loops");
    assert!(
        fails(|b| {
            b.file("f", 1).file("f/x", 1);
        })
        .contains("its parent /f is not a directory")
    );
    assert!(
        fails(|b| {
            b.hard("h", "none");
        })
        .contains("hard link to /none, which does not exist")
    );
    assert!(
        fails(|b| {
            b.dir("d").hard("h", "d");
        })
        .contains("which is a directory")
    );
    assert!(
        fails(|b| {
            b.file("f", 1).hard("f", "f");
        })
        .contains("hard link to itself")
    );
    assert!(
        fails(|b| {
            b.dir("d").file("d/f", 1).hard("d", "d/f");
        })
        .contains("does not exist")
    );
    assert!(
        fails(|b| {
            b.link("l", "");
        })
        .contains("empty target")
    );
    assert!(
        fails(|b| {
            b.link("l", &"x".repeat(4096));
        })
        .contains("4096 bytes")
    );
    assert!(
        fails(|b| {
            b.file("", 1);
        })
        .contains("root must be a directory")
    );
    let implied = fails(|b| {
        for number in 0..9 {
            b.file(&format!("{number}/{}f", "d/".repeat(8000)), 1);
        }
    });
    assert!(implied.contains("too many directories on the way"), "{}", &implied[16_000..]);
    let steps = fails(|b| {
        b.link("l", &"d/../".repeat(800));
        for number in 0..50_000 {
            b.file(&format!("l/{number}"), 1);
        }
    });
    assert!(steps.contains("too long on average"), "{steps}");
    let long = fails(|b| {
        b.link("l", &"x".repeat(300)).file("l/f", 1);
    });
    assert!(long.contains("component of 300 bytes"), "{long}");
}

#[test]
fn metadata_is_that_of_the_last_entry() {
    let at = |seconds| Metadata {
        mode: 0o711,
        uid: 5,
        mtime: Timestamp { seconds, nanoseconds: 0 },
        xattrs: vec![(b"user.k".to_vec(), seconds.to_string().into_bytes())],
        ..Metadata::default()
    };
    let base = layer(|b| {
        b.push(path("d"), EntryKind::Directory, at(1)).file("d/f", 1).file("implied/f", 1);
    });
    let upper = layer(|b| {
        b.file("d/g", 1).whiteout("d/f").push(path(""), EntryKind::Directory, at(3));
    });
    let tree = tree(&mut [base, upper]);
    let node = |p: &str| tree.node(tree.lookup(&path(p)).unwrap());
    // new children do not touch a directory's own time
    assert_eq!((node("d").mtime.seconds, node("d").mode), (1, 0o711));
    assert_eq!(node("").mtime.seconds, 3);
    assert_eq!(node("d").xattrs(), [(b"user.k".to_vec(), b"1".to_vec())]);
    let implied = node("implied");
    assert_eq!((implied.mode, implied.uid, implied.mtime), (0o755, 0, Timestamp::default()));
}

#[test]
fn the_highest_depth_does_not_recurse() {
    let deep = "d/".repeat(8000);
    let mut lower = layer(|b| {
        b.file(&format!("{deep}f"), 1);
    });
    let mut upper = layer(|b| {
        b.whiteout("d").push(path("x"), EntryKind::Fifo, metadata(0o600));
    });
    let tree = Tree::apply(&[lower.build(), upper.build()]).unwrap();
    assert_eq!(show(&tree), "x!");
}

/// The algorithm of umoci over a map of paths: slow and obvious. Links and symbolic links
/// in parents are left out; the cases above have them.
#[derive(Default)]
struct Model {
    /// Path to size, `None` for directories.
    paths: BTreeMap<Vec<u8>, Option<u64>>,
    upper: BTreeSet<Vec<u8>>,
}

impl Model {
    fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.paths.retain(|p, _| p != path && !p.starts_with(&below));
    }

    /// Whether the layer can be applied.
    fn apply(&mut self, layer: &Layer) -> bool {
        self.upper.clear();
        layer.entries.iter().all(|entry| {
            let path = entry.path.as_bytes().to_vec();
            match &entry.kind {
                EntryKind::Whiteout => self.white_out(&path, false),
                EntryKind::OpaqueWhiteout => self.white_out(&path, true),
                kind => return self.create(&path, kind),
            }
            true
        })
    }

    fn white_out(&mut self, path: &[u8], opaque: bool) {
        let below = [path, b"/"].concat();
        let all: Vec<_> =
            self.paths.keys().filter(|p| *p == path || p.starts_with(&below)).cloned().collect();
        for p in all {
            let spared = opaque && p == path;
            if !spared && !self.upper.contains(&p) {
                self.remove(&p);
            }
        }
    }

    fn create(&mut self, path: &[u8], kind: &EntryKind) -> bool {
        let ends: Vec<_> = (0..path.len()).filter(|&at| path[at] == b'/').collect();
        for &end in &ends {
            if self.paths.entry(path[..end].to_vec()).or_insert(None).is_some() {
                return false;
            }
        }
        let size = match kind {
            EntryKind::File(content) => Some(content.size),
            _ => None,
        };
        if size.is_some() || !matches!(self.paths.get(path), Some(None)) {
            self.remove(path);
        }
        self.paths.insert(path.to_vec(), size);
        self.upper.insert(path.to_vec());
        self.upper.extend(ends.iter().map(|&end| path[..end].to_vec()));
        true
    }
}

fn any_layer() -> impl Strategy<Value = Layer> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let entry = (prop::collection::vec(name, 1..4), 0..8_u8, 1..4_u64);
    prop::collection::vec(entry, 0..12).prop_map(|entries| {
        let mut builder = Builder::default();
        for (names, kind, size) in entries {
            let at = names.join("/");
            match kind {
                0..3 => builder.file(&at, size),
                3..5 => builder.dir(&at),
                5..7 => builder.whiteout(&at),
                _ => builder.opaque(&at),
            };
        }
        builder.build()
    })
}

proptest! {
    #[test]
    fn trees_are_what_the_model_says(layers in prop::collection::vec(any_layer(), 1..4)) {
        let mut model = Model::default();
        let possible = layers.iter().all(|layer| model.apply(layer));
        let tree = Tree::apply(&layers);
        prop_assert_eq!(possible, tree.is_ok());
        if let Ok(tree) = tree {
            let got: BTreeMap<_, _> = tree
                .entries()
                .skip(1)
                .map(|(path, id)| match &tree.node(id).kind {
                    NodeKind::File(content) => (path, Some(content.size)),
                    _ => (path, None),
                })
                .collect();
            prop_assert_eq!(got, model.paths);
        }
    }
}
