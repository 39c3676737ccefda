//! Compares storage engines for the cache node side by side:
//! `cargo run --release --manifest-path cache/engine-bench/Cargo.toml -- [--rounds N] [--dir DIR]
//! [--drop-caches]`. Results: docs/decisions/0010-node-storage.md.
//!
//! Every scenario runs in a process of its own per engine, so that memory, bytes written and
//! crashes are the engine's; one that does not end in time is a result. `--drop-caches` also
//! measures opening with cold metadata, in the last round, by emptying the machine's caches (root). The
//! full disk is a small file system on a loop device (root).

mod engines;
mod measure;
mod report;
mod scenarios;

use anyhow::{Context, Result, bail};
use engines::{Budget, Engine, Foyer, Mode, Own};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "child") {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        return runtime.block_on(child(&args[1..]));
    }
    let mut options = report::Options { rounds: 3, directory: std::env::temp_dir(), drop_caches: false };
    args.reverse();
    while let Some(arg) = args.pop() {
        match arg.as_str() {
            "--rounds" => options.rounds = args.pop().context("--rounds needs a number")?.parse()?,
            "--dir" => {
                options.directory = args.pop().map(PathBuf::from).context("--dir needs a directory")?
            }
            "--drop-caches" => options.drop_caches = true,
            other => bail!("unknown argument {other}"),
        }
    }
    report::run(&options)
}

async fn child(args: &[String]) -> Result<()> {
    let [scenario, engine, directory, rest @ ..] = args else { bail!("child SCENARIO ENGINE DIR") };
    let directory = Path::new(directory);
    let scenario = Scenario { name: scenario, directory, rest };
    let budget = if scenario.name.starts_with("full") { scenarios::FULL_BUDGET } else { scenarios::BUDGET };
    let begun = Instant::now();
    match engine.as_str() {
        "own" => scenario.play(Own::open(directory, budget)?, begun).await,
        "foyer-insertion" => scenario.foyer(budget, Mode::Insertion, begun).await,
        "foyer-eviction" => scenario.foyer(budget, Mode::Eviction, begun).await,
        "foyer-uring" => scenario.foyer(budget, Mode::Uring, begun).await,
        other => bail!("no engine {other}"),
    }
}

struct Scenario<'a> {
    name: &'a str,
    directory: &'a Path,
    rest: &'a [String],
}

impl Scenario<'_> {
    async fn foyer(&self, budget: Budget, mode: Mode, begun: Instant) -> Result<()> {
        self.play(Foyer::open(self.directory, budget, mode).await?, begun).await
    }

    fn number(&self, at: usize) -> Result<u64> {
        Ok(self.rest.get(at).context("a number is missing")?.parse()?)
    }

    async fn play<E: Engine>(&self, engine: E, begun: Instant) -> Result<()> {
        let opened = begun.elapsed();
        match self.name {
            "speed" => scenarios::speed(engine, self.directory).await,
            "zipf" => scenarios::zipf(engine).await,
            "burst" => scenarios::burst(engine).await,
            "leave" => scenarios::leave(engine).await,
            "endless" => scenarios::endless(engine).await,
            "open" | "full-survey" => {
                measure::say("open ms", opened.as_secs_f64() * 1e3);
                scenarios::survey(engine, self.number(0)?, self.number(1)?).await
            }
            "full" => {
                let panics = Arc::new(AtomicU64::new(0));
                let (counter, before) = (Arc::clone(&panics), std::panic::take_hook());
                std::panic::set_hook(Box::new(move |info| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    before(info);
                }));
                let ballast = self.rest.first().context("the ballast is missing")?;
                scenarios::full(engine, Path::new(ballast), &panics).await
            }
            other => bail!("no scenario {other}"),
        }
    }
}
