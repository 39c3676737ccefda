//! Stripes of a chunk of 512 KiB: parity by vectors against single bytes, and encoding and
//! decoding by our codes, by `reed-solomon-erasure` and by `reed-solomon-simd`.
//!
//! `cargo bench -p fleet --bench stripe`; the decision is `docs/decisions/0009-stripes.md`.
//! Stops with an error if the vector path is not ten times as fast as the loop of bytes, so
//! that a compiler that stops vectorising is noticed (ATC'23 section 5).
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench prints its result and stops on error"
)]

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use fleet::stripe::{Code, xor};
use reed_solomon_erasure::galois_8::ReedSolomon;
use std::hint::black_box;
use std::time::{Duration, Instant};

const CHUNK: u32 = 512 * 1024;
const SHARD: usize = 128 * 1024;

/// Bytes without a pattern (SplitMix64).
fn noise() -> Bytes {
    let mut state = 7_u64;
    let word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(CHUNK as usize).collect()
}

/// The loop as one would write it, of which the compiler must not join the steps: the index
/// is opaque to it, which costs no instruction but a register.
#[inline(never)]
fn xor_bytes(target: &mut [u8], source: &[u8]) {
    for (at, byte) in source.iter().enumerate() {
        target[black_box(at)] ^= byte;
    }
}

/// Four data shards into one parity shard, each way.
fn parity(criterion: &mut Criterion, shards: &[Bytes]) {
    let mut group = criterion.benchmark_group("parity-4x128KiB");
    group.throughput(Throughput::Bytes(u64::from(CHUNK)));
    let mut sum = Vec::with_capacity(SHARD);
    group.bench_function("vector", |bencher| {
        bencher.iter(|| {
            sum.clear();
            xor::append_sum(&mut sum, black_box(shards));
        });
    });
    let mut sum = vec![0; SHARD];
    group.bench_function("bytes", |bencher| {
        bencher.iter(|| bytewise(&mut sum, black_box(shards)));
    });
    group.finish();
}

fn bytewise(sum: &mut [u8], shards: &[Bytes]) {
    sum.copy_from_slice(&shards[0]);
    for shard in &shards[1..] {
        xor_bytes(sum, shard);
    }
}

fn ours(criterion: &mut Criterion, sealed: &Bytes) {
    for (data, parity) in [(4, 1), (4, 2), (8, 2), (10, 4)] {
        let code = Code::new(data, parity).expect("a code");
        let stripe: Vec<(u8, Bytes)> = (0..).zip(code.encode(sealed)).collect();
        let mut group = criterion.benchmark_group(format!("ours-{code}"));
        group.throughput(Throughput::Bytes(u64::from(CHUNK)));
        group.bench_function("encode", |bencher| bencher.iter(|| code.encode(black_box(sealed))));
        for (what, kept) in [
            ("decode-all-data", &stripe[..usize::from(data)]),
            ("decode-one-lost", &stripe[1..=usize::from(data)]),
        ] {
            group.bench_function(what, |bencher| bencher.iter(|| code.decode(CHUNK, black_box(kept))));
        }
        group.finish();
    }
}

fn erasure(criterion: &mut Criterion, sealed: &Bytes) {
    for (data, parity) in [(4_u8, 1_u8), (4, 2), (8, 2), (10, 4)] {
        let code = Code::new(data, parity).expect("a code");
        let oracle = ReedSolomon::new(usize::from(data), usize::from(parity)).expect("a code");
        let mut shards: Vec<Vec<u8>> = code.encode(sealed).iter().map(|shard| shard.to_vec()).collect();
        let mut group = criterion.benchmark_group(format!("erasure-{code}"));
        group.throughput(Throughput::Bytes(u64::from(CHUNK)));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| oracle.encode(black_box(&mut shards)));
        });
        let mut lost: Vec<(Vec<u8>, bool)> = shards.into_iter().map(|shard| (shard, true)).collect();
        group.bench_function("decode-one-lost", |bencher| {
            bencher.iter(|| {
                // the buffer stays: only the restoring is measured, and no joining
                lost[0].1 = false;
                oracle.reconstruct_data(black_box(&mut lost))
            });
        });
        group.finish();
    }
}

fn simd(criterion: &mut Criterion, sealed: &Bytes) {
    for (data, parity) in [(4_u8, 1_u8), (4, 2), (8, 2), (10, 4)] {
        let code = Code::new(data, parity).expect("a code");
        let (k, m) = (usize::from(data), usize::from(parity));
        let shards: Vec<Bytes> = code.encode(sealed).into_iter().take(k).collect();
        let mut group = criterion.benchmark_group(format!("simd-{code}"));
        group.throughput(Throughput::Bytes(u64::from(CHUNK)));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| reed_solomon_simd::encode(k, m, black_box(&shards)));
        });
        let recovery = reed_solomon_simd::encode(k, m, &shards).expect("shards of a stripe");
        group.bench_function("decode-one-lost", |bencher| {
            bencher.iter(|| {
                let data = shards.iter().enumerate().skip(1);
                reed_solomon_simd::decode(k, m, black_box(data), [(0, &recovery[0])])
            });
        });
        group.finish();
    }
}

/// Fails if the vector path is not at least ten times as fast; the best of many runs each,
/// in turn, so that a busy machine does not decide.
fn assert_vectorised(shards: &[Bytes]) {
    let (mut vector, mut single) = (Duration::MAX, Duration::MAX);
    let (mut appended, mut sum) = (Vec::with_capacity(SHARD), vec![0; SHARD]);
    for _ in 0..300 {
        let start = Instant::now();
        appended.clear();
        xor::append_sum(&mut appended, black_box(shards));
        vector = vector.min(start.elapsed());
        let start = Instant::now();
        bytewise(&mut sum, black_box(shards));
        single = single.min(start.elapsed());
    }
    assert!(appended == sum, "both are the parity");
    let factor = single.as_secs_f64() / vector.as_secs_f64();
    println!("parity of 4 x 128 KiB: vector {vector:?}, single bytes {single:?}: {factor:.1} times");
    assert!(factor >= 10.0, "the vector path is only {factor:.1} times as fast as single bytes");
}

fn main() {
    let sealed = noise();
    let shards: Vec<Bytes> = (0..4).map(|at| sealed.slice(at * SHARD..(at + 1) * SHARD)).collect();
    assert_vectorised(&shards);
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(1000))
        .configure_from_args();
    parity(&mut criterion, &shards);
    ours(&mut criterion, &sealed);
    erasure(&mut criterion, &sealed);
    simd(&mut criterion, &sealed);
    criterion.final_summary();
}
