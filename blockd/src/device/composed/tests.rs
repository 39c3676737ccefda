//! The composed device against a plain vector, and what must never happen to it.

use super::*;
use fuse_mount::{Fault, FaultyDevice, RamDevice};
use proptest::prelude::*;
use std::os::unix::fs::FileExt;

const LENGTH: u64 = 64 * PAGE;

fn base_content() -> Vec<u8> {
    (0..LENGTH).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect()
}

fn composed(budget: u64) -> (ComposedDevice<RamDevice>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let overlay = Overlay::create(dir.path(), LENGTH, budget).unwrap();
    (ComposedDevice::new(Arc::new(RamDevice::read_only(&base_content())), overlay), dir)
}

#[derive(Debug, Clone)]
enum Op {
    Read(u64, u64),
    Write(u64, u64, u8),
    Discard(u64, u64),
    Flush,
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (0..LENGTH, prop_oneof![1u64..100, 1..3 * PAGE, Just(PAGE)])
        .prop_map(|(offset, length)| (offset, length.min(LENGTH - offset)))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => range().prop_map(|(o, l)| Op::Read(o, l)),
        3 => (range(), any::<u8>()).prop_map(|((o, l), b)| Op::Write(o, l, b)),
        1 => range().prop_map(|(o, l)| Op::Discard(o, l)),
        1 => Just(Op::Flush),
    ]
}

async fn content(device: &impl BlockDevice) -> Bytes {
    device.read_at(0, u32::try_from(LENGTH).unwrap()).await.unwrap().into_contiguous()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn behaves_like_a_vector(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (device, _dir) = composed(LENGTH);
            let mut model = base_content();
            for op in ops {
                match op {
                    Op::Read(offset, length) => {
                        let short = u32::try_from(length).unwrap();
                        let want = &model[usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()];
                        if let Some(fast) = device.try_read_at(offset, short) {
                            assert_eq!(fast.into_contiguous(), want);
                        }
                        assert_eq!(device.read_at(offset, short).await.unwrap().into_contiguous(), want);
                    }
                    Op::Write(offset, length, byte) => {
                        let data = vec![byte; usize::try_from(length).unwrap()];
                        model[usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()].copy_from_slice(&data);
                        device.write_at(offset, data.into()).await.unwrap();
                    }
                    Op::Discard(offset, length) => {
                        model[usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()].fill(0);
                        device.discard(offset, length).await.unwrap();
                    }
                    Op::Flush => device.flush().await.unwrap(),
                }
            }
            assert_eq!(content(&device).await, model);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_of_parts_of_one_page_lose_nothing() {
    let (device, _dir) = composed(LENGTH);
    let device = Arc::new(device);
    let writers: Vec<_> = (0..64_u64)
        .map(|part| {
            let device = Arc::clone(&device);
            tokio::spawn(async move {
                let data = vec![u8::try_from(part).unwrap(); 64];
                device.write_at(PAGE + part * 64, data.into()).await.unwrap();
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let page = device.read_at(PAGE, 4096).await.unwrap().into_contiguous();
    for (at, &byte) in page.iter().enumerate() {
        assert_eq!(usize::from(byte), at / 64);
    }
}

#[tokio::test]
async fn the_file_holds_no_plaintext_and_instances_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(RamDevice::read_only(&base_content()));
    let instance =
        || ComposedDevice::new(Arc::clone(&base), Overlay::create(dir.path(), LENGTH, LENGTH).unwrap());
    let (one, other) = (instance(), instance());
    let secret = b"attack at dawn, ".repeat(1024);
    one.write_at(8 * PAGE, secret.clone().into()).await.unwrap();
    let mut stored = vec![0; usize::try_from(LENGTH).unwrap()];
    one.overlay.file().read_exact_at(&mut stored, 0).unwrap();
    assert!(stored.iter().any(|&byte| byte != 0));
    assert!(!stored.windows(16).any(|window| window == &secret[..16]));
    assert_eq!(content(&other).await, base_content());
    assert_eq!(content(&*base).await, base_content());
    assert_eq!(one.read_at(8 * PAGE, 16).await.unwrap().into_contiguous(), &secret[..16]);
    assert!(format!("{one:?}").contains("<redacted>"));
}

#[tokio::test]
async fn a_used_up_budget_refuses_and_keeps_what_is_there() {
    let (device, _dir) = composed(4 * PAGE);
    device.write_at(0, vec![1; 4 * 4096].into()).await.unwrap();
    let error = device.write_at(10 * PAGE, vec![2; 10].into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    device.write_at(PAGE, vec![3; 4096].into()).await.unwrap();
    let read = device.read_at(10 * PAGE, 10).await.unwrap().into_contiguous();
    assert_eq!(read, base_content()[10 * 4096..10 * 4096 + 10]);
    device.discard(0, 4 * PAGE).await.unwrap();
    assert_eq!(device.overlay.held_bytes(), 0);
    device.write_at(10 * PAGE, vec![2; 10].into()).await.unwrap();
}

#[tokio::test]
async fn a_base_that_fails_leaves_the_page_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let base = FaultyDevice::new(RamDevice::read_only(&base_content()));
    let overlay = Overlay::create(dir.path(), LENGTH, LENGTH).unwrap();
    let device = ComposedDevice::new(Arc::clone(&base), overlay);
    base.set(Fault::Fail(ErrorKind::Unavailable));
    assert!(device.write_at(5, vec![9; 10].into()).await.is_err());
    device.write_at(2 * PAGE, vec![9; 4096].into()).await.expect("whole pages need no base");
    base.set(Fault::None);
    let read = device.read_at(0, 4096).await.unwrap().into_contiguous();
    assert_eq!(read, base_content()[..4096]);
}
