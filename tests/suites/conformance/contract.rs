//! The checks themselves, on any store.

use bytes::Bytes;
use image_format::ids::{ChunkId, RootId};
use image_format::names::ObjectName;
use origin::store::{ErrorKind, Origin, Page, PutOutcome};
use std::sync::Arc;

fn root() -> RootId {
    "r1".parse().unwrap()
}

fn chunk(data: &[u8]) -> ObjectName {
    ObjectName::chunk(&root(), ChunkId::of(data))
}

/// The whole contract.
pub(crate) async fn check(store: Arc<dyn Origin>) {
    reads_and_writes(&*store, PutOutcome::Existed).await;
    listings(&*store).await;
    swaps(&*store).await;
    races(&store).await;
}

/// What holds also where calls are repeated: a repeated write may find its own first try.
pub(crate) async fn check_repeatable(store: Arc<dyn Origin>) {
    reads_and_writes(&*store, PutOutcome::Existed).await;
    listings(&*store).await;
}

async fn reads_and_writes(store: &dyn Origin, again: PutOutcome) {
    let data = Bytes::from((0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
    let name = chunk(&data);
    assert_eq!(store.get(&name, 200_000).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.get_range(&name, 0..10).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.head(&name).await.unwrap(), None);
    store.delete(&name).await.unwrap();
    assert_eq!(store.put_if_absent(&name, data.clone()).await.unwrap(), PutOutcome::Created);
    assert_eq!(store.put_if_absent(&name, data.clone()).await.unwrap(), again);
    assert!(store.get(&name, data.len()).await.unwrap() == data);
    assert_eq!(store.get(&name, data.len() - 1).await.unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(store.head(&name).await.unwrap().unwrap().size, 100_000);
    for (from, to) in [(0, 1), (99_999, 100_000), (0, 100_000), (4096, 8192), (7, 7)] {
        let part = store.get_range(&name, from..to).await.unwrap();
        let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        assert!(part == data[from..to], "{from}..{to}");
    }
    for range in [0..100_001, 99_999..100_001, 100_000..100_001, 200_000..200_001] {
        let error = store.get_range(&name, range.clone()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{range:?}: {error}");
    }
    assert_eq!(
        store.put(&name, data.clone()).await.unwrap_err().kind,
        ErrorKind::Invalid,
        "chunks never change"
    );
    let mutable = ObjectName::RootTable;
    for text in ["one", "", "a longer one"] {
        store.put(&mutable, Bytes::from(text)).await.unwrap();
        assert_eq!(store.get(&mutable, 100).await.unwrap(), text);
    }
    store.delete(&mutable).await.unwrap();
    assert_eq!(store.get(&mutable, 100).await.unwrap_err().kind, ErrorKind::NotFound);
    store.delete(&name).await.unwrap();
    assert_eq!(store.head(&name).await.unwrap(), None);
}

async fn listings(store: &dyn Origin) {
    let prefix = ObjectName::chunks_prefix(&root());
    assert!(store.list(&prefix, None).await.unwrap().objects.is_empty());
    let mut names = Vec::new();
    for n in 0..Page::MAX + 37 {
        let data = Bytes::from(format!("object {n}"));
        names.push(chunk(&data).to_string());
        store.put_if_absent(&chunk(&data), data).await.unwrap();
    }
    store.put(&ObjectName::RootTable, Bytes::from_static(b"not in the listing")).await.unwrap();
    names.sort();
    let (mut listed, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(&prefix, from.as_ref()).await.unwrap();
        assert!(page.objects.len() <= Page::MAX);
        listed.extend(page.objects.iter().map(|object| object.name.to_string()));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(listed, names, "all, once, in order");
    let one = names[0].parse().unwrap();
    store.delete(&one).await.unwrap();
    assert_eq!(store.list(&prefix, None).await.unwrap().objects[0].name.to_string(), names[1]);
}

/// Compare-and-swap is true, or refused without any effect.
async fn swaps(store: &dyn Origin) {
    let name = ObjectName::RootTable;
    store.delete(&name).await.unwrap();
    let swap = store.compare_and_swap(&name, None, Bytes::from_static(b"1")).await;
    if !store.abilities().await.unwrap().compare_and_swap {
        assert_eq!(swap.unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(store.head(&name).await.unwrap(), None, "nothing was written");
        eprintln!("{}: no compare-and-swap", store.describe());
        return;
    }
    let first = swap.unwrap().unwrap();
    assert_eq!(store.compare_and_swap(&name, None, Bytes::from_static(b"x")).await.unwrap(), None);
    let (data, version) = store.get_versioned(&name, 10).await.unwrap();
    assert_eq!((&data[..], &version), (&b"1"[..], &first));
    let second =
        store.compare_and_swap(&name, Some(&first), Bytes::from_static(b"2")).await.unwrap().unwrap();
    assert_ne!(first, second);
    assert_eq!(store.compare_and_swap(&name, Some(&first), Bytes::from_static(b"3")).await.unwrap(), None);
    assert_eq!(store.get(&name, 10).await.unwrap(), "2");
    store.delete(&name).await.unwrap();
    assert_eq!(store.compare_and_swap(&name, Some(&second), Bytes::from_static(b"4")).await.unwrap(), None);
}

/// Racing writers of one name: the object is whole afterwards, and where the store says so
/// exactly one has won.
async fn races(store: &Arc<dyn Origin>) {
    let abilities = store.abilities().await.unwrap();
    for round in 0..5_u8 {
        let data = Bytes::from(vec![round; 300_000]);
        let name = chunk(&data);
        let writers = (0..8).map(|_| {
            let (store, name, data) = (Arc::clone(store), name.clone(), data.clone());
            tokio::spawn(async move { store.put_if_absent(&name, data).await.unwrap() })
        });
        let outcomes = futures_util::future::join_all(writers).await;
        let created =
            outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == PutOutcome::Created);
        let created = created.count();
        assert!(created >= 1);
        assert!(created == 1 || !abilities.conditional_put, "{created} winners");
        assert!(store.get(&name, 300_000).await.unwrap() == data);
    }
}
