//! The read path over a store in memory: who is asked, what is served, what is repaired.

use super::*;
use crate::ssd::{Contents, SsdSettings, SsdTier};
use image_format::chunk::VerifiedChunk;
use image_format::ids::RootId;
use image_format::manifest::{Entry, ManifestHead};
use image_format::names::ObjectName;
use image_format::seal::{Compression, Salt, Sealer};
use image_format::units::CHUNK_SIZE;
use origin::memory::MemoryStore;
use std::sync::atomic::Ordering;

const CHUNKS: u32 = 40;

fn root() -> RootId {
    "r1".parse().unwrap()
}

/// The plaintext of the test image's chunk at an index: even ones are stored, odd ones zero.
fn content(index: u32) -> Vec<u8> {
    let mut plain = vec![0; 1000];
    plain[..4].copy_from_slice(&index.to_le_bytes());
    plain[999] = 1;
    plain
}

struct Fixture {
    store: MemoryStore,
    manifest: Arc<Manifest>,
}

impl Fixture {
    fn new() -> Self {
        let store = MemoryStore::new();
        let mut sealer = Sealer::new(Salt::derive(&root(), &[0; 32]), Compression::Off).unwrap();
        let (mut entries, mut keys) = (Vec::new(), Vec::new());
        for index in (0..CHUNKS).step_by(2) {
            let sealed = sealer.seal(&content(index)).unwrap();
            store.overwrite(&ObjectName::chunk(&root(), sealed.id), sealed.bytes.clone());
            let stored_len = u32::try_from(sealed.bytes.len()).unwrap();
            entries.push(Entry { index: ChunkIndex(index), id: sealed.id, stored_len, codec: sealed.codec });
            keys.push(sealed.key);
        }
        let head = ManifestHead {
            image: ImageDigest::from_bytes([1; 32]),
            layout_policy: 1,
            chunk_size: CHUNK_SIZE,
            device_len: u64::from(CHUNKS) * u64::from(CHUNK_SIZE.bytes()),
            root: root(),
            tenant: "t".parse().unwrap(),
        };
        Self { store, manifest: Arc::new(Manifest::new(head, entries, keys, vec![]).unwrap()) }
    }

    fn id(&self, index: u32) -> ChunkId {
        let position = self.manifest.position(ChunkIndex(index)).unwrap();
        self.manifest.entries()[position].id
    }

    fn path(&self, settings: ReadPathSettings, tiers: Vec<Arc<dyn ChunkTier>>) -> ReadPath {
        ReadPath::new(settings, Arc::new(self.store.clone()), tiers)
    }
}

fn lazy() -> ReadPathSettings {
    let window = WindowSettings { first: 0, ..WindowSettings::default() };
    ReadPathSettings { window, chunk_deadline_ms: 1000, ..ReadPathSettings::default() }
}

fn assert_is(plain: &PlainChunk, index: u32) {
    let [head, _] = plain.slices(0..1000);
    assert_eq!(head, content(index));
}

fn ssd(dir: &std::path::Path) -> Arc<SsdTier> {
    let settings = SsdSettings {
        directory: dir.to_path_buf(),
        capacity_bytes: 1 << 20,
        headroom_bytes: 0,
        policy: PolicyKind::default(),
        contents: Contents::Chunks,
    };
    Arc::new(SsdTier::open(settings).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_readers_fetch_once() {
    let fixture = Fixture::new();
    let path = fixture.path(lazy(), vec![]);
    let reader = path.open_image(Arc::clone(&fixture.manifest));
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.read(ChunkIndex(4)).await })
        })
        .collect();
    for task in readers {
        assert_is(&task.await.unwrap().unwrap(), 4);
    }
    assert_eq!(path.metrics().sources[3].hits, 1);
    assert_eq!(reader.stats().from_origin.chunks, 1);
    assert_eq!(reader.recorded(), vec![ChunkIndex(4)]);
}

#[tokio::test]
async fn zero_chunks_need_nobody() {
    let fixture = Fixture::new();
    let reader = fixture.path(lazy(), vec![]).open_image(Arc::clone(&fixture.manifest));
    let plain = reader.try_read(ChunkIndex(5)).unwrap();
    assert_eq!(plain.held_len(), 0);
    assert!(reader.try_read(ChunkIndex(4)).is_none(), "not in memory yet");
}

#[tokio::test]
async fn misses_are_filled_back_and_found_after_a_restart() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    {
        let tier = ssd(dir.path());
        let path = fixture.path(lazy(), vec![tier.clone()]);
        let reader = path.open_image(Arc::clone(&fixture.manifest));
        reader.read(ChunkIndex(2)).await.unwrap();
        path.settle().await;
        tier.settle().await;
        assert_eq!(tier.usage().chunks, 1);
    }
    fixture.store.names().iter().for_each(|name| {
        fixture.store.overwrite(&name.parse().unwrap(), vec![0; 3]);
    });
    let path = fixture.path(lazy(), vec![ssd(dir.path())]);
    let reader = path.open_image(Arc::clone(&fixture.manifest));
    assert_is(&reader.read(ChunkIndex(2)).await.unwrap(), 2);
    assert_eq!(reader.stats().from_ssd.chunks, 1);
}

#[tokio::test]
async fn a_corrupt_ssd_copy_is_repaired_from_the_origin() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let tier = ssd(dir.path());
    let id = fixture.id(6);
    let bytes =
        origin::store::Origin::get(&fixture.store, &ObjectName::chunk(&root(), id), 1 << 20).await.unwrap();
    let verified = image_format::chunk::SealedChunk::new(bytes.clone()).verify(&id).unwrap();
    for at in [0, 500, 999] {
        tier.put(VerifiedChunk::clone(&verified)).await.unwrap();
        tier.settle().await;
        let name = id.to_string();
        let file = dir.path().join(&name[..2]).join(&name);
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).unwrap();

        let path = fixture.path(lazy(), vec![tier.clone()]);
        let reader = path.open_image(Arc::clone(&fixture.manifest));
        assert_is(&reader.read(ChunkIndex(6)).await.unwrap(), 6);
        path.settle().await;
        tier.settle().await;
        let metrics = path.metrics();
        assert_eq!((metrics.sources[1].corrupt, metrics.sources[3].hits), (1, 1));
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "the right bytes are back");
    }
}

#[tokio::test]
async fn wrong_bytes_from_the_origin_are_never_served() {
    let fixture = Fixture::new();
    let name = ObjectName::chunk(&root(), fixture.id(8));
    for damaged in [vec![], vec![9; 1000], vec![9; 2000]] {
        fixture.store.overwrite(&name, damaged);
        let reader = fixture.path(lazy(), vec![]).open_image(Arc::clone(&fixture.manifest));
        let error = reader.read(ChunkIndex(8)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&fixture.id(8).to_string()));
    }
    origin::store::Origin::delete(&fixture.store, &name).await.unwrap();
    let reader = fixture.path(lazy(), vec![]).open_image(Arc::clone(&fixture.manifest));
    assert_eq!(reader.read(ChunkIndex(8)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn another_manifests_chunk_is_not_readable_by_naming_it() {
    let fixture = Fixture::new();
    let path = fixture.path(lazy(), vec![]);
    path.open_image(Arc::clone(&fixture.manifest)).read(ChunkIndex(0)).await.unwrap();
    let thief_keys = fixture.manifest.entries().iter().map(|_| ChunkKey::from_bytes([0; 32])).collect();
    let head = fixture.manifest.head().clone();
    let thief = Manifest::new(head, fixture.manifest.entries().to_vec(), thief_keys, vec![]).unwrap();
    let stolen = path.open_image(Arc::new(thief)).read(ChunkIndex(0)).await.unwrap();
    let [head, _] = stolen.slices(0..1000);
    assert_ne!(head, content(0));
}

#[tokio::test]
async fn the_window_fetches_neighbours_and_counts_them() {
    let fixture = Fixture::new();
    let settings = ReadPathSettings { chunk_deadline_ms: 1000, ..ReadPathSettings::default() };
    let path = fixture.path(settings, vec![]);
    let reader = path.open_image(Arc::clone(&fixture.manifest));
    reader.read(ChunkIndex(0)).await.unwrap();
    let ahead = || path.0.memory.usage().chunks;
    for _ in 0..100 {
        if ahead() == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ahead(), 5);
    let stats = reader.stats();
    assert_eq!((stats.demanded.chunks, stats.prefetched.chunks, stats.prefetched_unused.chunks), (1, 4, 4));
    reader.read(ChunkIndex(2)).await.unwrap();
    assert_eq!(path.metrics().sources[0].hits, 1, "a prefetched chunk is a memory hit");
}

/// An origin that is down for a while, or for ever.
#[derive(Debug)]
struct Down {
    store: MemoryStore,
    up: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Origin for Down {
    fn describe(&self) -> String {
        "down:".into()
    }
    async fn get(&self, name: &ObjectName, limit: usize) -> origin::store::Result<bytes::Bytes> {
        if self.up.load(Ordering::Relaxed) {
            return self.store.get(name, limit).await;
        }
        Err(origin::store::OriginError {
            kind: ErrorKind::Unavailable,
            operation: "get",
            object: name.to_string(),
            store: self.describe(),
            message: "connection refused".into(),
            source: None,
        })
    }
    async fn get_range(
        &self,
        n: &ObjectName,
        r: std::ops::Range<u64>,
    ) -> origin::store::Result<bytes::Bytes> {
        self.store.get_range(n, r).await
    }
    async fn head(&self, n: &ObjectName) -> origin::store::Result<Option<origin::store::ObjectInfo>> {
        self.store.head(n).await
    }
    async fn put_if_absent(
        &self,
        n: &ObjectName,
        d: bytes::Bytes,
    ) -> origin::store::Result<origin::store::PutOutcome> {
        self.store.put_if_absent(n, d).await
    }
    async fn put(&self, n: &ObjectName, d: bytes::Bytes) -> origin::store::Result<()> {
        self.store.put(n, d).await
    }
    async fn get_versioned(
        &self,
        n: &ObjectName,
        limit: usize,
    ) -> origin::store::Result<(bytes::Bytes, origin::store::Version)> {
        self.store.get_versioned(n, limit).await
    }
    async fn compare_and_swap(
        &self,
        n: &ObjectName,
        e: Option<&origin::store::Version>,
        d: bytes::Bytes,
    ) -> origin::store::Result<Option<origin::store::Version>> {
        self.store.compare_and_swap(n, e, d).await
    }
    async fn list(
        &self,
        p: &str,
        f: Option<&origin::store::PageToken>,
    ) -> origin::store::Result<origin::store::Page> {
        self.store.list(p, f).await
    }
    async fn delete(&self, n: &ObjectName) -> origin::store::Result<()> {
        self.store.delete(n).await
    }
    async fn abilities(&self) -> origin::store::Result<origin::store::Abilities> {
        self.store.abilities().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_down_is_waited_for_until_the_deadline() {
    let fixture = Fixture::new();
    let down = Arc::new(Down { store: fixture.store.clone(), up: false.into() });
    let settings = ReadPathSettings { chunk_deadline_ms: 5000, ..lazy() };
    let path = ReadPath::new(settings, down.clone(), vec![]);
    let reader = path.open_image(Arc::clone(&fixture.manifest));
    let asked = tokio::time::Instant::now();
    let error = reader.read(ChunkIndex(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connection refused"), "{error}");
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(5000) && waited < Duration::from_millis(5100), "{waited:?}");

    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.read(ChunkIndex(0)).await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    down.up.store(true, Ordering::Relaxed);
    assert_is(&waiting.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_end_the_fetch() {
    let fixture = Fixture::new();
    let path = fixture.path(lazy(), vec![]);
    let reader = path.open_image(Arc::clone(&fixture.manifest));
    {
        let read = reader.read(ChunkIndex(10));
        tokio::select! { biased; _ = read => {}, () = std::future::ready(()) => {} }
    }
    for _ in 0..100 {
        if reader.try_read(ChunkIndex(10)).is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the chunk never landed");
}

/// Hits are answered on threads of the FUSE session, which know no runtime; they prefetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_outside_the_runtime_may_cause_prefetch() {
    let fixture = Fixture::new();
    let path = fixture.path(ReadPathSettings::default(), vec![]);
    let reader = path.open_image(Arc::clone(&fixture.manifest));
    reader.read(ChunkIndex(0)).await.unwrap();
    while reader.try_read(ChunkIndex(2)).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = reader.stats().prefetched.chunks;
    let outside = reader.clone();
    while outside.try_read(ChunkIndex(4)).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::thread::spawn(move || assert!(outside.try_read(ChunkIndex(4)).is_some())).join().unwrap();
    assert!(reader.stats().prefetched.chunks > before);
}
