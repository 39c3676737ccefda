//! Starts of a real workload, side by side in one run: the image as a plain ext4 file on a
//! loop device (the limit), and lazily loaded: warm (chunks on the local disk, nothing in
//! memory) and cold (nothing on this machine) from stores behind several lines. Rounds go
//! through all of them in turn; prints medians and ratios, and exits with 1 if a promise of
//! docs/SPECIFICATION.md is missed.
//!
//! `cargo bench -p blockd --bench start -- IMAGE EXT4 [ROUNDS]`, where IMAGE is a name in the
//! store of LANTERN_STORE and EXT4 its export (`flattener export IMAGE -o EXT4`). Needs root,
//! FUSE and `crun`, and drops the machine's page cache before every start.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use anyhow::{Context, Result, bail};
use blockd::config::{ConfigFile, WorkerArgs};
use blockd::run_dir::RunDir;
use blockd::worker::{IfSsdInUse, InstanceInfo, OpenRequest, Worker};
use origin::settings::StoreArgs;
use origin::throttle::Line;
use photon::rootfs::DirectoryRootFs;
use photon::sandbox::{self, Outcome, Request, Settings};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;

/// A way to start, and how much longer than plain ext4 it may take.
struct Way {
    label: &'static str,
    line: Option<Line>,
    /// Whether the local disk has the chunks already.
    warm: bool,
    most: Option<f64>,
}

const WAYS: [Way; 5] = [
    Way { label: "warm: local disk", line: None, warm: true, most: Some(1.25) },
    Way { label: "cold: directory", line: None, warm: false, most: None },
    Way { label: "cold: lan (0.5 ms, 1.25 GB/s)", line: Some(Line::LAN), warm: false, most: None },
    Way { label: "cold: near (20 ms, 100 MB/s)", line: Some(Line::NEAR), warm: false, most: Some(2.5) },
    Way { label: "cold: S3 (p50 36, p99.9 175 ms)", line: Some(Line::S3), warm: false, most: None },
];

struct Bench {
    image: String,
    ext4: PathBuf,
    dir: tempfile::TempDir,
}

fn command(program: &str, words: &[&str]) -> Result<()> {
    let status =
        Command::new(program).args(words).status().with_context(|| format!("cannot run {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program} {words:?} failed: {status}") }
}

fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache; run as root")
}

async fn sandboxed(directory: &Path, config: &serde_json::Value, run_dir: &RunDir) -> Result<Outcome> {
    let request = Request::default();
    let settings = Settings {
        runtime: "crun".into(),
        run_dir: run_dir.path().to_path_buf(),
        grace: Duration::from_secs(5),
        started: None,
    };
    let rootfs = DirectoryRootFs::new(directory, false, serde_json::to_vec(config)?);
    let (_signals, receiver) = tokio::sync::mpsc::channel(1);
    let outcome = sandbox::run(&request, &rootfs, &settings, receiver).await?;
    if outcome.exit_code != 0 {
        bail!("the workload failed with {}", outcome.exit_code);
    }
    Ok(outcome)
}

impl Bench {
    /// Seconds from the wish to the end of the command, on a plain loop device.
    async fn plain(&self, config: &serde_json::Value) -> Result<f64> {
        drop_caches()?;
        let run_dir = RunDir::make(&self.dir.path().join("run"))?;
        let at = self.dir.path().join("plain");
        std::fs::create_dir_all(&at)?;
        let at_text = at.to_str().context("path")?;
        let begun = Instant::now();
        command("mount", &["-o", "ro,loop,noload,noatime", self.ext4.to_str().context("path")?, at_text])?;
        let outcome = sandboxed(&at, config, &run_dir).await;
        let took = begun.elapsed();
        command("umount", &[at_text])?;
        run_dir.remove();
        outcome.map(|_| took.as_secs_f64())
    }

    /// The same on the lazily loaded image.
    async fn lazy(&self, way: &Way) -> Result<(f64, InstanceInfo)> {
        let state = self.dir.path().join("state");
        if !way.warm {
            let _ = std::fs::remove_dir_all(&state);
        }
        drop_caches()?;
        let args = WorkerArgs {
            state_dir: Some(state),
            run_dir: Some(self.dir.path().join("run")),
            ..WorkerArgs::default()
        };
        let store = StoreArgs {
            store: std::env::var("LANTERN_STORE").ok(),
            keyring: std::env::var_os("LANTERN_KEYRING").map(PathBuf::from),
            slow_line: way.line,
            ..StoreArgs::default()
        };
        let settings = args.resolve(store, ConfigFile::default())?;
        let begun = Instant::now();
        let run_dir = Arc::new(RunDir::make(&settings.directories.run)?);
        let worker = Worker::start(&settings, Arc::clone(&run_dir), IfSsdInUse::Fail).await?;
        let request = OpenRequest {
            image: self.image.clone(),
            writable: false,
            target: None,
            writable_bytes: None,
            starting: false,
        };
        let info = worker.open(&request).await?;
        let outcome = sandboxed(&info.directory, &info.config, &run_dir).await;
        let took = begun.elapsed();
        let info = worker.info(&info.id).unwrap_or(info);
        worker.shutdown().await;
        drop(worker);
        if let Some(run_dir) = Arc::into_inner(run_dir) {
            run_dir.remove();
        }
        outcome.map(|_| (took.as_secs_f64(), info))
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

async fn run() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (Some(image), Some(ext4)) = (words.first(), words.get(1)) else {
        println!("skipped: no image; usage: cargo bench -p blockd --bench start -- IMAGE EXT4 [ROUNDS]");
        return Ok(true);
    };
    let rounds = words.get(2).and_then(|word| word.parse().ok()).unwrap_or(ROUNDS);
    let bench = Bench { image: image.clone(), ext4: ext4.into(), dir: tempfile::tempdir()? };
    // the first, unmeasured round fills the local disk's tier and finds the image's config
    let (_, info) = bench.lazy(&WAYS[1]).await?;
    let mut plain = Vec::new();
    let mut lazy: Vec<Vec<f64>> = WAYS.iter().map(|_| Vec::new()).collect();
    let mut infos: Vec<Option<InstanceInfo>> = vec![None; WAYS.len()];
    for _ in 0..rounds {
        plain.push(bench.plain(&info.config).await?);
        for (n, way) in WAYS.iter().enumerate() {
            let (took, info) = bench.lazy(way).await?;
            lazy[n].push(took);
            infos[n] = Some(info);
        }
    }
    let plain = median(&mut plain);
    println!(
        "\n{:<34} {:>8} {:>7} {:>9} {:>10}",
        "start to end of the command", "median", "ratio", "chunks", "MiB fetched"
    );
    println!("{:<34} {plain:>6.3} s {:>7}", "plain ext4 on a loop device", "1.00");
    let mut kept = true;
    for ((way, seconds), info) in WAYS.iter().zip(&mut lazy).zip(infos) {
        let took = median(seconds);
        let ratio = took / plain;
        let stats = info.map(|info| info.stats).unwrap_or_default();
        let chunks = stats.from_ssd.chunks + stats.from_origin.chunks;
        let bytes = (stats.from_ssd.bytes + stats.from_origin.bytes) as f64 / f64::from(1 << 20);
        let verdict = match way.most {
            Some(most) if ratio > most => {
                kept = false;
                format!("MISSED (at most {most})")
            }
            Some(most) => format!("kept (at most {most})"),
            None => String::new(),
        };
        println!("{:<34} {took:>6.3} s {ratio:>7.2} {chunks:>9} {bytes:>10.1}  {verdict}", way.label);
    }
    Ok(kept)
}

fn main() -> Result<()> {
    let kept = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())?;
    std::process::exit(i32::from(!kept));
}
