//! The SSD tier: restart, damage, budgets, a full disk, a killed writer.

use super::*;
use crate::policy::PolicyKind;
use image_format::seal::{Compression, Salt, Sealer};

fn chunk(n: u32, len: usize) -> VerifiedChunk {
    let mut plain = vec![3; len];
    plain[..4].copy_from_slice(&n.to_le_bytes());
    let salt = Salt::derive(&"r1".parse().unwrap(), &[0; 32]);
    VerifiedChunk::from(&Sealer::new(salt, Compression::Off).unwrap().seal(&plain).unwrap())
}

fn settings(directory: &std::path::Path) -> SsdSettings {
    SsdSettings {
        directory: directory.to_path_buf(),
        capacity_bytes: 1 << 20,
        headroom_bytes: 0,
        policy: PolicyKind::default(),
        contents: Contents::Chunks,
    }
}

async fn held(tier: &SsdTier, chunk: &VerifiedChunk) -> bool {
    match tier.get(chunk.id()).await.unwrap() {
        Some(sealed) => sealed.verify(chunk.id()).is_ok(),
        None => false,
    }
}

#[tokio::test]
async fn chunks_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let chunks: Vec<_> = (0..20).map(|n| chunk(n, 10_000)).collect();
    {
        let tier = SsdTier::open(settings(dir.path())).unwrap();
        for chunk in &chunks {
            tier.put(chunk.clone()).await.unwrap();
        }
        tier.settle().await;
        assert!(matches!(SsdTier::open(settings(dir.path())), Err(SsdError::InUse { .. })));
    }
    let tier = SsdTier::open(settings(dir.path())).unwrap();
    assert_eq!(tier.usage().chunks, 20);
    for chunk in &chunks {
        assert!(held(&tier, chunk).await);
    }
}

#[tokio::test]
async fn what_a_crash_leaves_is_cleared_or_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (chunk(1, 5000), chunk(2, 5000));
    {
        let tier = SsdTier::open(settings(dir.path())).unwrap();
        tier.put(whole.clone()).await.unwrap();
        tier.put(cut.clone()).await.unwrap();
        tier.settle().await;
    }
    let name = cut.id().to_string();
    let path = dir.path().join(&name[..2]).join(&name);
    std::fs::write(&path, &cut.sealed_bytes()[..100]).unwrap();
    std::fs::write(dir.path().join("new").join("half"), b"x").unwrap();
    std::fs::write(dir.path().join(&name[..2]).join("somebody-elses"), b"x").unwrap();
    let tier = SsdTier::open(settings(dir.path())).unwrap();
    assert!(held(&tier, &whole).await);
    assert!(!held(&tier, &cut).await, "cut short: served only to be refused by verification");
    tier.remove(cut.id()).await.unwrap();
    assert!(tier.get(cut.id()).await.unwrap().is_none());
    assert!(!path.exists() && !dir.path().join("new/half").exists());
    assert!(dir.path().join(&name[..2]).join("somebody-elses").exists());
}

#[tokio::test]
async fn the_budget_holds_and_old_chunks_go() {
    let dir = tempfile::tempdir().unwrap();
    let tier = SsdTier::open(settings(dir.path())).unwrap();
    for n in 0..40 {
        tier.put(chunk(n, 100_000)).await.unwrap();
        tier.settle().await;
    }
    let usage = tier.usage();
    assert!(usage.bytes <= usage.capacity_bytes && usage.chunks >= 8, "{usage:?}");
    assert!(tier.stats().evicted >= 29);
    let files = walk(dir.path());
    assert_eq!(files as u64, usage.chunks, "the index is what is on disk");
}

fn walk(dir: &std::path::Path) -> usize {
    let fans = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    fans.filter(|path| path.file_name().is_some_and(|name| name.len() == 2))
        .map(|fan| std::fs::read_dir(fan).unwrap().count())
        .sum()
}

#[tokio::test]
async fn without_headroom_nothing_is_written_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = chunk(1, 5000);
    {
        let tier = SsdTier::open(settings(dir.path())).unwrap();
        tier.put(first.clone()).await.unwrap();
        tier.settle().await;
        assert!(held(&tier, &first).await);
    }
    let full = SsdSettings { headroom_bytes: u64::MAX / 2, ..settings(dir.path()) };
    let tier = SsdTier::open(full).unwrap();
    tier.put(chunk(2, 5000)).await.unwrap();
    tier.settle().await;
    assert_eq!(tier.stats().dropped, 1);
    assert_eq!(tier.usage().chunks, 0, "what there was made way first");
}
