//! Reads through FUSE and a loop device against the same image as a plain file on a loop device,
//! in one run, interleaved; prints medians and ratios as a table.
//!
//! `cargo bench -p fuse-mount --bench device [-- ROUNDS [SETUP]]`, SETUP being a part of the
//! labels to run. Needs root, FUSE, loop devices and
//! e2fsprogs, and drops the machine's page cache. The plain file lies in the temporary directory,
//! so its disk is what the cold figures of the plain side measure.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse_mount::{
    DeviceMount, DeviceMountOptions, FuseMount, FuseMountOptions, IfBusy, LoopDevice, LoopOptions, RamDevice,
};

/// Size of the one large file in the image, in bytes.
const FILE_BYTES: usize = 256 * 1024 * 1024;
/// Random reads per round.
const RANDOM_READS: usize = 2000;
/// Bytes per sequential read call.
const BUFFER_BYTES: usize = 1024 * 1024;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// One way to set up the FUSE side.
#[derive(Clone, Copy)]
struct Setup {
    label: &'static str,
    loop_direct: bool,
    fuse_direct: bool,
    threads: usize,
    read_ahead_kib: u32,
}

const SETUPS: [Setup; 7] = [
    Setup {
        label: "loop direct, ra 128, 2 thr",
        loop_direct: true,
        fuse_direct: false,
        threads: 2,
        read_ahead_kib: 128,
    },
    Setup {
        label: "loop direct, ra 512, 2 thr",
        loop_direct: true,
        fuse_direct: false,
        threads: 2,
        read_ahead_kib: 512,
    },
    Setup {
        label: "loop direct, ra 1024, 2 thr",
        loop_direct: true,
        fuse_direct: false,
        threads: 2,
        read_ahead_kib: 1024,
    },
    Setup {
        label: "loop direct, ra 512, 1 thr",
        loop_direct: true,
        fuse_direct: false,
        threads: 1,
        read_ahead_kib: 512,
    },
    Setup {
        label: "loop direct, ra 512, 4 thr",
        loop_direct: true,
        fuse_direct: false,
        threads: 4,
        read_ahead_kib: 512,
    },
    Setup {
        label: "loop direct, FUSE direct, ra 512, 2 thr",
        loop_direct: true,
        fuse_direct: true,
        threads: 2,
        read_ahead_kib: 512,
    },
    Setup {
        label: "loop buffered, ra 512, 2 thr",
        loop_direct: false,
        fuse_direct: false,
        threads: 2,
        read_ahead_kib: 512,
    },
];

/// What one round measured on one mount.
#[derive(Default)]
struct Figures {
    cold_mb_s: Vec<f64>,
    warm_mb_s: Vec<f64>,
    device_us: Vec<f64>,
    file_us: Vec<f64>,
}

fn main() -> Outcome<()> {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: needs root and /dev/fuse");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let scratch = tempfile::tempdir()?;
    let image = make_image(scratch.path())?;
    let content = fs::read(&image)?;
    println!(
        "| setup | cold seq MB/s (ratio) | warm seq MB/s (ratio) | 4 KiB direct, device µs | 4 KiB cold, file µs |"
    );
    println!("|---|---|---|---|---|");
    let wanted = std::env::args().skip(1).filter(|argument| argument != "--bench").nth(1).unwrap_or_default();
    for setup in SETUPS.into_iter().filter(|setup| setup.label.contains(&wanted)) {
        let (fused, plain) = runtime.block_on(compare(scratch.path(), &image, &content, setup, rounds))?;
        println!("{}", row(setup.label, &fused, &plain));
    }
    Ok(())
}

fn row(label: &str, fused: &Figures, plain: &Figures) -> String {
    let speed = |ours: &[f64], theirs: &[f64]| {
        let (ours, theirs) = (median(ours), median(theirs));
        format!("{ours:.0} / {theirs:.0} ({:.0} %)", 100.0 * ours / theirs)
    };
    let delay = |ours: &[f64], theirs: &[f64]| format!("{:.0} / {:.0}", median(ours), median(theirs));
    format!(
        "| {label} | {} | {} | {} | {} |",
        speed(&fused.cold_mb_s, &plain.cold_mb_s),
        speed(&fused.warm_mb_s, &plain.warm_mb_s),
        delay(&fused.device_us, &plain.device_us),
        delay(&fused.file_us, &plain.file_us)
    )
}

async fn compare(
    scratch: &Path,
    image: &Path,
    content: &[u8],
    setup: Setup,
    rounds: usize,
) -> Outcome<(Figures, Figures)> {
    let (devices, root, plain_root) = (scratch.join("devices"), scratch.join("root"), scratch.join("plain"));
    for directory in [&devices, &root, &plain_root] {
        fs::create_dir_all(directory)?;
    }
    let mut options = FuseMountOptions::default();
    options.threads = setup.threads;
    options.direct_io = setup.fuse_direct;
    let fuse = Arc::new(FuseMount::mount(&devices, &options).await?);
    let mut mounting = DeviceMountOptions::default();
    mounting.direct_io = setup.loop_direct;
    mounting.read_ahead_kib = setup.read_ahead_kib;
    let device = Arc::new(RamDevice::read_only(content));
    let mounted = DeviceMount::mount(Arc::clone(&fuse), "image", device, &root, &mounting).await?;
    let mut plain_options = LoopOptions::default();
    plain_options.direct_io = true;
    let plain = LoopDevice::attach(image, &plain_options)?;
    mount_plain(plain.path(), &plain_root)?;

    let ours = (mounted.loop_path().to_owned(), root.join("data"));
    let theirs = (plain.path().to_owned(), plain_root.join("data"));
    let measured = tokio::task::spawn_blocking(move || -> io::Result<(Figures, Figures)> {
        let (mut fused, mut plain) = (Figures::default(), Figures::default());
        for round in 0..rounds {
            measure(&ours, &mut fused, round)?;
            measure(&theirs, &mut plain, round)?;
        }
        Ok((fused, plain))
    })
    .await?;
    rustix::mount::unmount(&plain_root, rustix::mount::UnmountFlags::empty())?;
    plain.detach(Duration::from_secs(5))?;
    mounted.unmount(Duration::from_secs(10), IfBusy::Detach).await?;
    fuse.unmount(Duration::from_secs(10)).await?;
    Ok(measured?)
}

fn measure((device, file): &(PathBuf, PathBuf), into: &mut Figures, round: usize) -> io::Result<()> {
    drop_caches()?;
    into.cold_mb_s.push(sequential(file)?);
    into.warm_mb_s.push(sequential(file)?);
    drop_caches()?;
    into.device_us.push(random(device, libc::O_DIRECT, round)?);
    drop_caches()?;
    into.file_us.push(random(file, 0, round)?);
    Ok(())
}

fn sequential(path: &Path) -> io::Result<f64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut total, start) = (0u64, Instant::now());
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        total += got as u64;
    }
    let megabytes = f64::from(u32::try_from(total / 1_000_000).unwrap_or(u32::MAX));
    Ok(megabytes / start.elapsed().as_secs_f64())
}

/// Median latency in microseconds of random 4 KiB reads inside the first [`FILE_BYTES`].
fn random(path: &Path, flags: i32, seed: usize) -> io::Result<f64> {
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
    // Direct reads need an aligned buffer.
    let mut raw = vec![0u8; 8192];
    let aligned = raw.as_ptr().align_offset(4096);
    let mut state = seed as u64 * 2_654_435_761 + 88_172_645_463_325_252;
    let mut delays = Vec::with_capacity(RANDOM_READS);
    for _ in 0..RANDOM_READS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let page = state % (FILE_BYTES as u64 / 4096);
        let start = Instant::now();
        file.read_exact_at(&mut raw[aligned..aligned + 4096], page * 4096)?;
        delays.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&delays))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn drop_caches() -> io::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}

fn mount_plain(source: &Path, target: &Path) -> Outcome<()> {
    let flags = rustix::mount::MountFlags::RDONLY | rustix::mount::MountFlags::NOATIME;
    rustix::mount::mount(source, target, "ext4", flags, c"noload")?;
    Ok(())
}

/// An ext4 image with one large file of noise.
fn make_image(scratch: &Path) -> Outcome<PathBuf> {
    let (tree, image) = (scratch.join("tree"), scratch.join("image"));
    fs::create_dir(&tree)?;
    let mut state = 42u64;
    let noise: Vec<u8> = (0..FILE_BYTES / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    fs::write(tree.join("data"), noise)?;
    let done = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-d"])
        .args([&tree, &image])
        .arg(format!("{}M", FILE_BYTES / 1024 / 1024 + 64))
        .status()?;
    fs::remove_dir_all(tree)?;
    if done.success() { Ok(image) } else { Err("mke2fs failed; install e2fsprogs".into()) }
}
