//! Random trees of everything at once: whatever applies must be an image without a fault.

use proptest::prelude::*;

use super::support::*;
use crate::layer::entry::{EntryKind, Layer, LayerPath, Metadata, Timestamp};
use crate::tree::Tree;

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let value = prop::collection::vec(any::<u8>(), 0..200);
    let xattrs = prop::collection::btree_map("(user|trusted|security)\\.[a-z]{1,20}", value, 0..4);
    (0..0o10000_u16, any::<u32>(), any::<i32>(), 0..1_000_000_000_u32, xattrs).prop_map(
        |(mode, uid, seconds, nanoseconds, xattrs)| Metadata {
            mode,
            uid,
            gid: uid.rotate_left(7),
            mtime: Timestamp { seconds: i64::from(seconds.max(0)), nanoseconds },
            xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
        },
    )
}

fn any_path() -> impl Strategy<Value = LayerPath> {
    let name = prop_oneof![
        4 => prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec(), b"d".to_vec()]),
        1 => prop::collection::vec(1..=255_u8, 1..255),
    ];
    prop::collection::vec(name, 1..4)
        .prop_filter_map("not a path", |names| LayerPath::parse(&names.join(&b'/')).ok())
        .prop_filter("the root", |path| !path.as_bytes().is_empty())
}

/// Up to 6 data ranges in a file of up to 2 MiB.
fn any_ranges() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
    let cuts = prop::collection::btree_set(0..2_000_000_u64, 0..12);
    (cuts, any::<bool>()).prop_map(|(cuts, dense)| {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let size = cuts.last().copied().unwrap_or(0);
        if dense && size > 0 {
            return (size, vec![(0, size)]);
        }
        (size, cuts.chunks_exact(2).map(|pair| (pair[0], pair[1] - pair[0])).collect())
    })
}

fn any_layer() -> impl Strategy<Value = Layer> {
    let entry = (any_path(), any_path(), 0..14_u8, any_ranges(), any_metadata());
    prop::collection::vec(entry, 0..30).prop_map(|entries| {
        let mut builder = Builder::default();
        for (path, other, kind, (size, ranges), metadata) in entries {
            let kind = match kind {
                0..5 => EntryKind::File(builder.content(size, &ranges)),
                5..8 => EntryKind::Directory,
                8 => EntryKind::Symlink(other.as_bytes().to_vec()),
                9 => EntryKind::CharDevice { major: 5, minor: 900 },
                10 => EntryKind::Whiteout,
                11..13 => EntryKind::Hardlink(other),
                _ => EntryKind::OpaqueWhiteout,
            };
            builder.push(path, kind, metadata);
        }
        builder.build()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_is_a_faultless_image(layers in prop::collection::vec(any_layer(), 1..4)) {
        // what the tree refuses is left out
        let mut applied: Vec<Layer> = Vec::new();
        for layer in layers {
            let mut kept = Layer::default();
            for entry in layer.entries {
                kept.entries.push(entry);
                let all: Vec<Layer> = applied.iter().chain([&kept]).cloned().collect();
                if Tree::apply(&all).is_err() {
                    kept.entries.pop();
                }
            }
            applied.push(kept);
        }
        Image::new(&applied).verify();
    }
}
