//! `blockd function bench`: many invocations at once, and what they cost.
//!
//! Memory is the proportional set size (PSS) of all processes of the function's sandboxes,
//! read from this host while as many invocations are in flight as ever were.

use super::{Functions, part, path, payload};
use anyhow::{Result, bail};
use blockd::api::ShownStats;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use photon::sandbox::Observer;
use rustix::process::Pid;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often the sandboxes are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What the invocations cost.
#[derive(Debug, Serialize)]
struct Figures {
    invocations: usize,
    failed: usize,
    refused: usize,
    seconds: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    sandboxes_started: u64,
    most_in_flight: usize,
    sandboxes_then: usize,
    pss_bytes_then: u64,
    bytes_per_invocation: u64,
}

/// The busiest moment that was seen.
#[derive(Debug, Default, Clone, Copy)]
struct Peak {
    in_flight: usize,
    sandboxes: usize,
    pss_bytes: u64,
}

fn look(stats: &ShownStats) -> Peak {
    let busy = stats.function.each.iter().filter(|sandbox| sandbox.in_flight > 0);
    let pids = busy.clone().flat_map(|sandbox| &sandbox.pids).filter_map(|pid| Pid::from_raw(*pid));
    Peak {
        in_flight: stats.function.in_flight,
        sandboxes: busy.count(),
        pss_bytes: pids.filter_map(Observer::pss_bytes).sum(),
    }
}

/// How one invocation went.
enum Outcome {
    Answered(Duration),
    Failed(Duration),
    Refused,
}

async fn one(functions: &Functions, name: &str, payload: Bytes) -> Result<Outcome> {
    let request = Request::post(path(name, "/invocations")).body(Full::new(payload))?;
    let begun = Instant::now();
    match functions.send(request).await {
        Ok(response) if response.headers().contains_key("x-amz-function-error") => {
            Ok(Outcome::Failed(begun.elapsed()))
        }
        Ok(_) => Ok(Outcome::Answered(begun.elapsed())),
        Err(_) => Ok(Outcome::Refused),
    }
}

/// The value below which this share of sorted times is, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Fires `at_once` invocations at the same time and waits for all of them.
pub(super) async fn bench(
    functions: Functions,
    name: &str,
    given: Option<&str>,
    at_once: usize,
) -> Result<ExitCode> {
    if at_once == 0 {
        bail!("--at-once must be at least 1");
    }
    let payload = payload(given)?;
    let functions = Arc::new(functions);
    let stats_path = format!("/v1/functions/{}/stats", part(name));
    let before: ShownStats = functions.read(&stats_path).await?;
    let begun = Instant::now();
    let mut running: JoinSet<Result<Outcome>> = JoinSet::new();
    for _ in 0..at_once {
        let (functions, name, payload) = (Arc::clone(&functions), name.to_string(), payload.clone());
        running.spawn(async move { one(&functions, &name, payload).await });
    }
    let (mut times, mut failed, mut refused, mut peak) = (Vec::new(), 0, 0, Peak::default());
    let mut pause = tokio::time::interval(LOOK);
    while !running.is_empty() {
        tokio::select! {
            Some(ended) = running.join_next() => match ended?? {
                Outcome::Answered(time) => times.push(time),
                Outcome::Failed(time) => { failed += 1; times.push(time); }
                Outcome::Refused => refused += 1,
            },
            _ = pause.tick() => {
                let seen = look(&functions.read(&stats_path).await?);
                if seen.in_flight >= peak.in_flight && seen.pss_bytes > 0 {
                    peak = seen;
                }
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after: ShownStats = functions.read(&stats_path).await?;
    times.sort_unstable();
    let figures = Figures {
        invocations: at_once,
        failed,
        refused,
        seconds,
        p50_ms: percentile(&times, 50),
        p90_ms: percentile(&times, 90),
        p99_ms: percentile(&times, 99),
        sandboxes_started: after.function.starts - before.function.starts,
        most_in_flight: peak.in_flight,
        sandboxes_then: peak.sandboxes,
        pss_bytes_then: peak.pss_bytes,
        bytes_per_invocation: peak.pss_bytes / u64::try_from(peak.in_flight.max(1))?,
    };
    print(functions.json, &figures)?;
    Ok(if failed + refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::FUNCTION_FAILED) })
}

fn print(json: bool, figures: &Figures) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return Ok(writeln!(out, "{}", serde_json::to_string(figures)?)?);
    }
    let Figures { invocations, failed, refused, seconds, .. } = figures;
    writeln!(out, "  invocations {invocations} in {seconds:.2} s; {failed} failed, {refused} refused")?;
    let Figures { p50_ms, p90_ms, p99_ms, .. } = figures;
    writeln!(out, "  latency     p50 {p50_ms:.0} ms, p90 {p90_ms:.0} ms, p99 {p99_ms:.0} ms")?;
    let Figures { sandboxes_started, most_in_flight, sandboxes_then, .. } = figures;
    writeln!(
        out,
        "  sandboxes   {sandboxes_started} started; at the busiest {most_in_flight} invocations in {sandboxes_then}"
    )?;
    let mib = |bytes: u64| bytes / 1024 / 1024;
    let (all, each) = (mib(figures.pss_bytes_then), figures.bytes_per_invocation / 1024);
    Ok(writeln!(out, "  memory      {all} MiB (PSS) then, {each} KiB for each invocation")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert!((percentile(&times, 50) - 50.0).abs() < 1e-9 && (percentile(&times, 99) - 99.0).abs() < 1e-9);
        assert!(percentile(&[], 50).abs() < 1e-9);
    }
}
