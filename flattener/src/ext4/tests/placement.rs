//! Where things lie: the properties that deduplication rests on, and pinned bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::support::*;
use crate::ext4::{ChunkUse, Layout};
use crate::layer::entry::Layer;
use crate::tree::Tree;

/// Chunks that are not zero, by content, with their use.
fn chunks(layers: &[Layer], digest: u8) -> BTreeMap<[u8; 32], ChunkUse> {
    let identity = crate::ext4::FilesystemIdentity::from_digest(&[digest; 32]);
    let layout = Layout::plan(Tree::apply(layers).unwrap(), &identity).unwrap();
    let mut chunk = vec![0; 512 * 1024];
    layout
        .occupied_chunks()
        .map(|index| {
            layout.render(index, &ByContent, &mut chunk).unwrap();
            (*blake3::hash(&chunk).as_bytes(), layout.chunk_use(index))
        })
        .collect()
}

/// How many chunks of the second set are not in the first, by use.
fn new(old: &BTreeMap<[u8; 32], ChunkUse>, new: &BTreeMap<[u8; 32], ChunkUse>) -> BTreeMap<ChunkUse, usize> {
    let mut out = BTreeMap::new();
    for (_, use_) in new.iter().filter(|(hash, _)| !old.contains_key(*hash)) {
        *out.entry(*use_).or_default() += 1;
    }
    out
}

/// A package of 900 small files in 30 directories and a few large ones.
fn package(b: &mut Builder, at: &str, changed: Option<u64>) {
    b.dir(at);
    for directory in 0..30 {
        b.dir(&format!("{at}/module{directory}"));
        for number in 0..30_u64 {
            let id = directory * 30 + number;
            let grown = if changed == Some(id) { 9000 } else { 0 };
            named(b, &format!("{at}/module{directory}/file{number}.py"), 500 + id * 13 + grown, id);
        }
    }
    for number in 0..5 {
        named(b, &format!("{at}/lib{number}.so"), 200_000 + number * 700_000, 5000 + number);
    }
}

#[test]
fn a_package_gives_the_same_chunks_anywhere() {
    let mut one = Builder::default();
    package(&mut one, "usr/lib/python3/site-packages/pkg", None);
    for number in 0..700 {
        named(&mut one, &format!("etc/f{number}"), 3000, 9000 + number);
    }
    let mut base = Builder::default();
    named(&mut base, "bin/sh", 1_000_000, 8000);
    let mut two = Builder::default();
    package(&mut two, "opt/venv/pkg", None);
    let first = chunks(&[one.build()], 1);
    let second = chunks(&[base.build(), two.build()], 2);
    let data = |set: &BTreeMap<_, ChunkUse>| set.values().filter(|&&u| u == ChunkUse::Data).count();
    // all but the two chunks of bin/sh
    assert_eq!(new(&first, &second).get(&ChunkUse::Data), Some(&2), "of {}", data(&second));
}

#[test]
fn a_changed_file_disturbs_one_bin() {
    let make = |changed| {
        let mut base = Builder::default();
        package(&mut base, "pkg", changed);
        let mut app = Builder::default();
        package(&mut app, "app", None);
        chunks(&[base.build(), app.build()], 1)
    };
    let difference = new(&make(None), &make(Some(444)));
    assert!(difference[&ChunkUse::Data] <= 2, "{difference:?}");
    assert!(difference.values().sum::<usize>() <= 6, "{difference:?}");
}

#[test]
fn upper_layers_do_not_move_lower_ones() {
    let base = |b: &mut Builder| {
        package(b, "pkg", None);
        b.build()
    };
    let lower = base(&mut Builder::default());
    let mut upper = Builder::default();
    upper.whiteout("pkg/module3").whiteout("pkg/lib2.so");
    named(&mut upper, "pkg/module4/file1.py", 100, 1);
    let first = chunks(std::slice::from_ref(&lower), 1);
    let second = chunks(&[lower, upper.build()], 2);
    let difference = new(&first, &second);
    // the bin that module3 shared, the one of the replaced file, the new file
    assert!(difference[&ChunkUse::Data] <= 3, "{difference:?}");
}

#[test]
fn chunks_are_the_same_in_any_order_and_thread() {
    let mut b = Builder::default();
    package(&mut b, "pkg", None);
    b.link("slow", &"x/".repeat(100));
    let layout = Layout::plan(Tree::apply(&[b.build()]).unwrap(), &identity()).unwrap();
    let occupied: BTreeSet<u32> = layout.occupied_chunks().collect();
    assert!(occupied.iter().copied().eq(layout.occupied_chunks()), "ascending, each once");
    let render = |index| {
        let mut chunk = vec![0x55; 512 * 1024];
        layout.render(index, &ByContent, &mut chunk).unwrap();
        chunk
    };
    let forward: Vec<_> = occupied.iter().map(|&index| render(index)).collect();
    let mut backward: Vec<_> = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let ours: Vec<_> = occupied.iter().copied().rev().filter(|index| index % 2 == half).collect();
            scope.spawn(move || ours.into_iter().map(|index| (index, render(index))).collect::<Vec<_>>())
        });
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    backward.sort_by_key(|(index, _)| *index);
    assert!(forward.iter().eq(backward.iter().map(|(_, chunk)| chunk)));
    // all others are zero
    let zero = vec![0; 512 * 1024];
    for index in (0..layout.chunk_count()).filter(|index| !occupied.contains(index)) {
        assert!(render(index) == zero, "chunk {index}");
        assert_ne!(layout.chunk_use(index), ChunkUse::Data);
    }
    assert!(layout.render(layout.chunk_count(), &ByContent, &mut vec![0; 512 * 1024]).is_err());
    assert!(layout.render(0, &ByContent, &mut [0; 4096]).is_err());
}

#[test]
fn reports_name_the_chunks_of_a_path() {
    let mut b = Builder::default();
    package(&mut b, "pkg", None);
    let layout = Layout::plan(Tree::apply(&[b.build()]).unwrap(), &identity()).unwrap();
    let places: Vec<_> = layout.places().collect();
    assert_eq!(places.len(), 1 + 1 + 30 + 900 + 5);
    let library = places.iter().find(|place| place.path == b"pkg/lib4.so").unwrap();
    assert_eq!(library.chunks.len(), 6); // 3,000,000 bytes
    assert!(library.chunks.clone().all(|chunk| layout.chunk_use(chunk) == ChunkUse::Data));
}
