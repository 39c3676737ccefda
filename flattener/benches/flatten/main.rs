//! How fast an image is flattened, against the ordinary way, and in how much memory.
//!
//! `cargo bench -p flattener --bench flatten -- --image oci:DIR:TAG [--runs N] [--json]`
//! pushes a local image to a fresh directory store and, in turn, does the ordinary thing:
//! `skopeo copy`, `umoci unpack`, `mke2fs -d`. All on one file system (`--work-dir`, else
//! the temporary directory), the image in the page cache; the medians are compared. The
//! image may come from `LANTERN_BENCH_IMAGE`. With `--big [GIB]` an image of 10 GiB is made
//! and pushed instead. Exits with 1 if a promise is missed.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a bench prints its result and stops on error")]

mod big;
#[path = "../support/layout.rs"]
#[allow(dead_code, reason = "shared with the other bench, which needs more of it")]
mod layout;
#[path = "../support/random.rs"]
#[allow(dead_code, reason = "shared with the other bench, which needs more of it")]
mod random;
mod run;
mod sys;

use anyhow::{Context, Result, bail};
use flattener::oci::ImageRef;
use run::{Cost, cost, load, median};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The command that is measured, built with the bench.
const FLATTENER: &str = env!("CARGO_BIN_EXE_flattener");
/// How much faster than the ordinary way it is at least.
const RATIO: f64 = 3.0;
/// Most memory it takes for any image, in bytes.
const PEAK_BYTES: u64 = 512 << 20;

/// What the command line says.
struct Arguments {
    image: Option<String>,
    runs: usize,
    big_gib: Option<u64>,
    work_dir: PathBuf,
    json: bool,
}

fn arguments() -> Result<Arguments> {
    let image = std::env::var("LANTERN_BENCH_IMAGE").ok();
    let mut found = Arguments { image, runs: 5, big_gib: None, work_dir: std::env::temp_dir(), json: false };
    let mut given = std::env::args().skip(1).peekable();
    while let Some(argument) = given.next() {
        if argument == "--big" {
            let size = given.next_if(|next| next.bytes().all(|byte| byte.is_ascii_digit()));
            found.big_gib = Some(size.map_or(Ok(10), |size| size.parse())?);
            continue;
        }
        let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--image" => found.image = Some(value()?),
            "--runs" => found.runs = value()?.parse::<usize>()?.max(1),
            "--work-dir" => found.work_dir = value()?.into(),
            "--json" => found.json = true,
            "--bench" => {} // from cargo
            _ => bail!("unknown argument {argument}; see the head of this bench"),
        }
    }
    Ok(found)
}

fn main() -> Result<ExitCode> {
    let arguments = arguments()?;
    let work = tempfile::tempdir_in(&arguments.work_dir)?;
    if !arguments.json {
        println!("machine: {}", run::machine());
    }
    let met = match arguments.big_gib {
        Some(gib) => push_big(work.path(), gib, arguments.json)?,
        None => {
            let image = arguments.image.as_deref();
            let image = image.context("no image: pass --image oci:DIR:TAG or set LANTERN_BENCH_IMAGE")?;
            side_by_side(work.path(), image, arguments.runs, arguments.json)?
        }
    };
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A directory below the work directory, emptied.
fn fresh(work: &Path, name: &str) -> Result<PathBuf> {
    let path = work.join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir(&path)?;
    Ok(path)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a work directory that is not UTF-8")
}

/// Arguments of a push to a fresh store below the work directory.
fn push_arguments(work: &Path, image: &str) -> Result<Vec<String>> {
    let store = fresh(work, "store")?;
    let (store, work) = (text(&store)?, text(work)?);
    let keyring = format!("{work}/keyring.toml");
    let store = format!("file://{store}");
    let all = [
        "push",
        image,
        "--name",
        "bench",
        "--store",
        &store,
        "--keyring",
        &keyring,
        "--work-dir",
        work,
        "--quiet",
    ];
    Ok(all.map(str::to_owned).to_vec())
}

fn push(work: &Path, image: &str) -> Result<Cost> {
    let arguments = push_arguments(work, image)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cost(FLATTENER, &arguments)
}

/// The ordinary way: copy, unpack, make a file system of it. `size` is a guess for the
/// first run; the returned one is the unpacked tree's, with its entries.
fn ordinary(work: &Path, image: &str, size: Option<(u64, u64)>) -> Result<([Cost; 3], (u64, u64))> {
    let directory = fresh(work, "ordinary")?;
    let directory = text(&directory)?;
    let (layout, bundle) = (format!("{directory}/oci"), format!("{directory}/bundle"));
    let rootfs = format!("{bundle}/rootfs");
    let copy = cost("skopeo", &["copy", "--quiet", image, &format!("oci:{layout}:bench")])?;
    let mut unpack = vec!["unpack", "--image"];
    let from = format!("{layout}:bench");
    unpack.extend([from.as_str(), bundle.as_str()]);
    if !rustix::process::geteuid().is_root() {
        unpack.insert(1, "--rootless");
    }
    let unpack = cost("umoci", &unpack)?;
    let size = match size {
        Some(size) => size,
        None => run::usage(Path::new(&rootfs))?,
    };
    let (bytes, entries) = size;
    let inodes = (entries + entries / 10 + 1000).to_string();
    let blocks = ((bytes + bytes / 10 + (64 << 20)) / 4096).to_string();
    let file = format!("{directory}/image.ext4");
    let arguments = ["-q", "-F", "-t", "ext4", "-b", "4096", "-N", &inodes, "-d", &rootfs, &file, &blocks];
    let make = cost(mke2fs(), &arguments)?;
    Ok(([copy, unpack, make], size))
}

/// Not in every user's path.
fn mke2fs() -> &'static str {
    ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("mke2fs")
}

fn side_by_side(work: &Path, image: &str, runs: usize, json: bool) -> Result<bool> {
    let ImageRef::Layout { directory, .. } = image.parse()? else {
        bail!("--image takes oci:DIRECTORY[:TAG], not {image}");
    };
    let image_bytes = run::warm(&directory)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut size = None;
    if !json {
        println!("image: {image}, {:.1} MiB compressed", mebibytes(image_bytes));
        println!("ours: flattener push {image} --store file://…");
        println!("ordinary: skopeo copy {image} oci:…; umoci unpack; mke2fs -t ext4 -d");
        println!("run   load  ours s  (cpu, MiB)   ordinary s = copy + unpack + mke2fs  (cpu, MiB)  ratio");
    }
    for number in 1..=runs {
        rustix::fs::sync();
        let (before, our) = (load(), push(work, image)?);
        rustix::fs::sync();
        let ([copy, unpack, make], found) = ordinary(work, image, size)?;
        size = Some(found);
        let their = copy.then(unpack).then(make);
        if !json {
            println!(
                "{number:>3} {before:>6} {:>7.2} ({:>5.2}, {:>4.0}) {:>12.2} = {:.2} + {:.2} + {:.2}  ({:.2}, {:.0}) {:>8.2}",
                our.seconds,
                our.cpu_seconds,
                mebibytes(our.peak_bytes),
                their.seconds,
                copy.seconds,
                unpack.seconds,
                make.seconds,
                their.cpu_seconds,
                mebibytes(their.peak_bytes),
                their.seconds / our.seconds
            );
        }
        ours.push(our);
        theirs.push(their);
    }
    verify(work)?;
    let of = |costs: &[Cost], pick: fn(&Cost) -> f64| median(costs.iter().map(pick).collect());
    let (our, their) = (of(&ours, |cost| cost.seconds), of(&theirs, |cost| cost.seconds));
    let cpu = (of(&ours, |cost| cost.cpu_seconds), of(&theirs, |cost| cost.cpu_seconds));
    let peak = ours.iter().map(|cost| cost.peak_bytes).max().unwrap_or(0);
    let ratio = their / our;
    let met = ratio >= RATIO && peak <= PEAK_BYTES;
    if json {
        let figures = json!({"machine": run::machine(), "image_bytes": image_bytes, "ours": ours, "ordinary": theirs,
            "ratio": ratio, "peak_bytes": peak, "met": met});
        println!("{figures:#}");
        return Ok(met);
    }
    println!(
        "medians: ours {our:.2} s ({:.2} s of processor), ordinary {their:.2} s ({:.2} s)",
        cpu.0, cpu.1
    );
    println!("ratio {ratio:.2}, at least {RATIO}: {}", verdict(ratio >= RATIO));
    println!(
        "peak {:.1} MiB, at most {}: {}",
        mebibytes(peak),
        PEAK_BYTES >> 20,
        verdict(peak <= PEAK_BYTES)
    );
    Ok(met)
}

/// Checks that what was pushed last is all there.
fn verify(work: &Path) -> Result<()> {
    let (store, keyring) = (format!("file://{}", text(&work.join("store"))?), work.join("keyring.toml"));
    cost(FLATTENER, &["verify", "bench", "--store", &store, "--keyring", text(&keyring)?, "--quiet"])
        .map(drop)
}

fn push_big(work: &Path, gib: u64, json: bool) -> Result<bool> {
    let directory = work.join("big");
    let mut layout = layout::LayoutDir::create(&directory)?;
    big::build(&mut layout, gib << 30)?;
    let image_bytes = run::warm(&directory)?;
    rustix::fs::sync();
    let before = load();
    let push = push(work, &layout.reference("big"))?;
    let (stored, _) = run::usage(&work.join("store"))?;
    verify(work)?;
    let met = push.peak_bytes <= PEAK_BYTES;
    if json {
        let figures = json!({"machine": run::machine(), "gib": gib, "image_bytes": image_bytes, "stored_bytes": stored,
            "push": push, "met": met});
        println!("{figures:#}");
        return Ok(met);
    }
    println!("image: {gib} GiB of content, {:.0} MiB compressed; load {before}", mebibytes(image_bytes));
    println!(
        "push: {:.1} s ({:.1} s of processor), {:.0} MiB of content a second; {:.0} MiB stored",
        push.seconds,
        push.cpu_seconds,
        (gib << 10) as f64 / push.seconds,
        mebibytes(stored)
    );
    println!("peak {:.1} MiB, at most {}: {}", mebibytes(push.peak_bytes), PEAK_BYTES >> 20, verdict(met));
    Ok(met)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}
