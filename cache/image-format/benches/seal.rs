//! Sealing and opening one chunk of 512 KiB, by content and codec; bytes of plaintext a second.
//!
//! `cargo bench -p image-format --bench seal`. Contents are this machine's own: shared
//! libraries and Python sources below `/usr/lib`, or made up where there are none (it says
//! so). `open` starts from bytes that nobody shares, as they come from a disk or a network.
#![allow(
    clippy::print_stderr,
    clippy::expect_used,
    reason = "a bench says what it runs on and stops on error"
)]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use image_format::chunk::SealedChunk;
use image_format::ids::RootId;
use image_format::seal::{Compression, Opener, Salt, SealedOutput, Sealer};
use image_format::units::CHUNK_SIZE;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CODECS: [(&str, Compression); 3] =
    [("plain", Compression::Off), ("zstd-1", Compression::Zstd(1)), ("zstd-3", Compression::Zstd(3))];

fn chunk_len() -> usize {
    CHUNK_SIZE.as_usize()
}

/// Bytes that no codec shortens (SplitMix64).
fn incompressible() -> Vec<u8> {
    let mut state = 7_u64;
    let word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(chunk_len()).collect()
}

/// Files in `folder` with this ending, by name.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

/// One chunk out of the middle of the files, joined.
fn sample(what: &str, files: &[PathBuf]) -> Vec<u8> {
    let mut joined = Vec::new();
    for file in files {
        joined.extend(std::fs::read(file).unwrap_or_default());
        if joined.len() > 8 * chunk_len() {
            break;
        }
    }
    if joined.len() < chunk_len() {
        eprintln!("{what}: nothing to read here, using made-up content");
        let noise = incompressible();
        return noise.iter().flat_map(|&byte| [byte, b' ', byte & 0x0f, 0]).take(chunk_len()).collect();
    }
    let start = (joined.len() - chunk_len()) / 2;
    joined[start..start + chunk_len()].to_vec()
}

fn contents() -> [(&'static str, Vec<u8>); 4] {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|triple| Path::new("/usr/lib").join(triple));
    let elf: Vec<PathBuf> = library.iter().map(|folder| folder.join("libc.so.6")).collect();
    let python = files(Path::new("/usr/lib"), "").into_iter();
    let python =
        python.filter(|path| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"python3")));
    let text: Vec<PathBuf> = python.flat_map(|folder| files(&folder, ".py")).collect();
    [
        ("incompressible", incompressible()),
        ("elf", sample("elf", &elf)),
        ("text", sample("text", &text)),
        ("zeros", vec![0; chunk_len()]),
    ]
}

fn sealer(compression: Compression) -> Sealer {
    let root: RootId = "bench".parse().expect("a valid label");
    Sealer::new(Salt::derive(&root, &[0; 32]), compression).expect("a level that exists")
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(chunk_len() as u64));
    for (content, plain) in contents() {
        for (codec, compression) in CODECS {
            let mut sealer = sealer(compression);
            let stored = sealer.seal(&plain).map_or(0, |sealed| sealed.bytes.len());
            eprintln!("{content} by {codec}: {stored} bytes stored");
            group.bench_function(BenchmarkId::new(content, codec), |bencher| {
                bencher.iter(|| sealer.seal(black_box(&plain)));
            });
        }
    }
    group.finish();
}

/// What a reader does with a chunk: verify, decrypt, inflate.
fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Bytes(chunk_len() as u64));
    for (content, plain) in contents() {
        for (codec, compression) in CODECS {
            // Zeros are never stored, so there is nothing to open.
            let Some(SealedOutput { id, key, codec: kept, bytes, .. }) = sealer(compression).seal(&plain)
            else {
                continue;
            };
            let mut opener = Opener::new();
            group.bench_function(BenchmarkId::new(content, codec), |bencher| {
                bencher.iter_batched(
                    || SealedChunk::new(Bytes::copy_from_slice(&bytes)),
                    |sealed| {
                        let verified = sealed.verify(&id).expect("its own id");
                        opener.open(verified, &key, kept, CHUNK_SIZE).expect("just sealed")
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    seal(&mut criterion);
    open(&mut criterion);
    criterion.final_summary();
}
