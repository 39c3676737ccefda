//! What is done to an engine, in a process of its own; figures go to standard output, a name
//! and a number a line.

use crate::engines::{Budget, Engine};
use crate::measure::{
    Numbers, RECORD, Times, Zipf, forget_pages, id, is_record, record, say, say_memory, sync, written_bytes,
};
use anyhow::{Result, ensure};
use cache::node::Level;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A tenth in memory, nine tenths on SSD.
pub(crate) const BUDGET: Budget = Budget { memory: 100 << 20, ssd: 900 << 20 };
/// On a disk that is much smaller than its budget.
pub(crate) const FULL_BUDGET: Budget = Budget { memory: 20 << 20, ssd: 1 << 30 };

/// Records put where all of them fit: 512 MiB.
pub(crate) const FILL: u64 = 4096;
/// Puts between two waits for the disk, where none shall be dropped.
const PACE: u64 = 32;
/// Longest wait for any operation on a full disk.
const STUCK: Duration = Duration::from_secs(10);

async fn fill<E: Engine>(engine: &E, from: u64, to: u64) -> Times {
    let mut times = Times::default();
    for n in from..to {
        let (id, bytes) = record(n);
        let begun = Instant::now();
        engine.put(id, bytes);
        times.push(begun.elapsed());
        if n.is_multiple_of(PACE) {
            engine.settle().await;
        }
    }
    engine.settle().await;
    times
}

/// Latencies without load, then throughput.
pub(crate) async fn speed<E: Engine>(engine: E, directory: &Path) -> Result<()> {
    let written = written_bytes()?;
    fill(&engine, 0, FILL).await.print("put");
    say("written / put, paced", (written_bytes()? - written) / (FILL * RECORD) as f64);

    let mut times = Times::default();
    for round in 0..100 {
        for n in 0..64 {
            let begun = Instant::now();
            let found = engine.get(id(n)).await?;
            let time = begun.elapsed();
            ensure!(found.as_ref().is_some_and(|(bytes, _)| bytes.len() as u64 == RECORD), "record {n}");
            if round > 1 && found.is_some_and(|(_, level)| level == Level::Memory) {
                times.push(time);
            }
        }
    }
    times.print("get from memory");

    let mut numbers = Numbers(1);
    gets_from_ssd(&engine, &mut numbers, 4000, || Ok(())).await?.print("get from SSD, warm");
    sync(directory)?;
    gets_from_ssd(&engine, &mut numbers, 480, || forget_pages(directory)).await?.print("get from SSD, cold");

    gets_from_ssd(&engine, &mut numbers, FILL, || Ok(())).await?;
    let (engine, begun) = (Arc::new(engine), Instant::now());
    let readers: Vec<_> = (0..16)
        .map(|seed| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let mut numbers = Numbers(seed);
                for _ in 0..1000 {
                    engine.get(id(numbers.below(FILL))).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for reader in readers {
        reader.await??;
    }
    say("gets/s by 16 readers, warm", 16_000.0 / begun.elapsed().as_secs_f64());
    say_memory("")
}

/// Reads records at random and takes the time of those that came from SSD; `between` comes
/// before every 16.
async fn gets_from_ssd<E: Engine>(
    engine: &E,
    numbers: &mut Numbers,
    count: u64,
    between: impl Fn() -> Result<()>,
) -> Result<Times> {
    let mut times = Times::default();
    for at in 0..count {
        if at.is_multiple_of(16) {
            between()?;
        }
        let n = numbers.below(FILL);
        let begun = Instant::now();
        let found = engine.get(id(n)).await?;
        let time = begun.elapsed();
        if let Some((bytes, level)) = found {
            ensure!(is_record(n, &bytes), "a wrong record");
            if level == Level::Ssd {
                times.push(time);
            }
        }
    }
    Ok(times)
}

/// Hit ratios of a Zipf(0.9) base with fill on miss, alone and beside scans of what is asked
/// for once; paced, so that it is the policy that counts.
pub(crate) async fn zipf<E: Engine>(engine: E) -> Result<()> {
    const CHUNKS: u32 = 20_000;
    const REQUESTS: u64 = 20_000;
    let (zipf, mut numbers) = (Zipf::new(CHUNKS, 0.9), Numbers(7));
    let (written, mut put, mut scanned) = (written_bytes()?, 0_u64, 1_u64 << 40);
    for (phase, storm) in [("", false), ("hit ratio calm %", false), ("hit ratio in a storm %", true)] {
        let (mut hits, mut in_memory) = (0_u64, 0_u64);
        for request in 0..REQUESTS {
            let base = zipf.draw(&mut numbers);
            let scan = if storm && request.is_multiple_of(2500) { 1500 } else { 0 };
            for (n, counts) in (scanned..scanned + scan).map(|n| (n, false)).chain([(base, true)]) {
                match engine.get(id(n)).await? {
                    Some((_, level)) => {
                        hits += u64::from(counts);
                        in_memory += u64::from(counts && level == Level::Memory);
                    }
                    None => {
                        let (id, bytes) = record(n);
                        engine.put(id, bytes);
                        put += 1;
                        if put.is_multiple_of(PACE) {
                            engine.settle().await;
                        }
                    }
                }
            }
            scanned += scan;
        }
        if !phase.is_empty() {
            say(phase, hits as f64 * 100.0 / REQUESTS as f64);
        }
        if phase.ends_with("calm %") {
            say("of these from memory %", in_memory as f64 * 100.0 / hits as f64);
        }
    }
    engine.settle().await;
    say("written / put, evicting", (written_bytes()? - written) / (put * RECORD) as f64);
    Ok(())
}

/// Puts as fast as they come.
pub(crate) async fn burst<E: Engine>(engine: E) -> Result<()> {
    let mut spent = Duration::ZERO;
    let begun = Instant::now();
    for n in 0..FILL {
        let (id, bytes) = record(n);
        let put = Instant::now();
        engine.put(id, bytes);
        spent += put.elapsed();
    }
    say("burst: offered MB/s", (FILL * RECORD) as f64 / 1e6 / begun.elapsed().as_secs_f64());
    engine.settle().await;
    let whole = begun.elapsed();
    let held = (0..FILL).filter(|&n| engine.contains(id(n))).count() as u64;
    say("burst: share kept %", held as f64 * 100.0 / FILL as f64);
    say("burst: kept MB/s", (held * RECORD) as f64 / 1e6 / whole.as_secs_f64());
    say("burst: mean put µs", spent.as_secs_f64() * 1e6 / FILL as f64);
    say_memory("burst: ")
}

/// Puts records, paced, and ends in order.
pub(crate) async fn leave<E: Engine>(engine: E) -> Result<()> {
    fill(&engine, 0, FILL).await;
    let begun = Instant::now();
    engine.close().await?;
    say("close ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Puts records until it is killed, saying how many there are.
pub(crate) async fn endless<E: Engine>(engine: E) -> Result<()> {
    for n in 0.. {
        let (id, bytes) = record(n);
        engine.put(id, bytes);
        if n.is_multiple_of(PACE) {
            engine.settle().await;
            println!("{n}");
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

/// Which of the records `from..to` are there, and whether they are right.
pub(crate) async fn survey<E: Engine>(engine: E, from: u64, to: u64) -> Result<()> {
    let (mut there, mut wrong, mut failed) = (0_u64, 0_u64, 0_u64);
    for n in from..to {
        match engine.get(id(n)).await {
            Ok(Some((bytes, _))) if is_record(n, &bytes) => there += 1,
            Ok(Some(_)) => wrong += 1,
            Ok(None) => {}
            Err(_) => failed += 1,
        }
    }
    say("kept %", there as f64 * 100.0 / (to - from) as f64);
    say("wrong", wrong as f64);
    say("failed", failed as f64);
    Ok(())
}

/// Records put to the full disk, and those put when it has room again.
pub(crate) const FULL_PUTS: u64 = 3000;
/// The last record put when there is room again.
pub(crate) const AGAIN: u64 = FULL_PUTS + 256;

/// What became of operations that may hang or panic.
#[derive(Debug, Default)]
struct Outcomes {
    stuck: u64,
    panicked: u64,
}

impl Outcomes {
    /// The result of an operation that ended in time and without panic.
    async fn of<T: Send + 'static>(
        &mut self,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        // after some it is clear
        if self.stuck > 5 {
            return None;
        }
        match tokio::time::timeout(STUCK, tokio::spawn(operation)).await {
            Ok(Ok(result)) => return Some(result),
            Ok(Err(_)) => self.panicked += 1,
            Err(_) => self.stuck += 1,
        }
        None
    }

    async fn put<E: Engine>(&mut self, engine: &Arc<E>, n: u64) {
        let (shared, (id, bytes)) = (Arc::clone(engine), record(n));
        self.of(async move { shared.put(id, bytes) }).await;
        if n.is_multiple_of(PACE) {
            let shared = Arc::clone(engine);
            self.of(async move { shared.settle().await }).await;
        }
    }
}

/// Three times as much as a disk takes, then some more after room was made on it.
pub(crate) async fn full<E: Engine>(engine: E, ballast: &Path, panics: &AtomicU64) -> Result<()> {
    let engine = Arc::new(engine);
    let (mut numbers, mut outcomes) = (Numbers(3), Outcomes::default());
    let (mut failed, mut wrong, mut hits, mut asked) = (0_u64, 0_u64, 0_u64, 0_u64);
    for n in 0..FULL_PUTS {
        outcomes.put(&engine, n).await;
        if !n.is_multiple_of(PACE) {
            continue;
        }
        // of the latest 512: 64 MiB, which the disk has room for
        for _ in 0..8 {
            let of = n.saturating_sub(numbers.below(512));
            asked += 1;
            let shared = Arc::clone(&engine);
            match outcomes.of(async move { shared.get(id(of)).await }).await {
                None | Some(Ok(None)) => {}
                Some(Err(_)) => failed += 1,
                Some(Ok(Some((bytes, _)))) => {
                    hits += 1;
                    wrong += u64::from(!is_record(of, &bytes));
                }
            }
        }
    }
    say("full: hits among the latest %", hits as f64 * 100.0 / asked as f64);
    say("full: wrong", wrong as f64);
    say("full: gets failed", failed as f64);
    std::fs::remove_file(ballast)?;
    for n in FULL_PUTS..AGAIN {
        outcomes.put(&engine, n).await;
    }
    if let Some(engine) = Arc::into_inner(engine) {
        outcomes.of(engine.close()).await;
    }
    say("full: operations stuck", outcomes.stuck as f64);
    say("full: operations that panicked", outcomes.panicked as f64);
    say("full: panics, with its own tasks", panics.load(Ordering::Relaxed) as f64);
    Ok(())
}
