//! Running commands against the clock: wall time and peak memory of each.

use crate::sys;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a command, or several one after the other, took.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Cost {
    /// Wall time.
    pub(crate) seconds: f64,
    /// Processor time.
    pub(crate) cpu_seconds: f64,
    /// Largest resident set of any of them.
    pub(crate) peak_bytes: u64,
}

impl Cost {
    /// One after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            seconds: self.seconds + next.seconds,
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            peak_bytes: self.peak_bytes.max(next.peak_bytes),
        }
    }
}

/// Runs a command to its end, its output thrown away.
///
/// # Errors
/// If it cannot be started or fails, with what it said.
pub(crate) fn cost(program: impl AsRef<Path>, arguments: &[&str]) -> Result<Cost> {
    let program = program.as_ref();
    let said = tempfile::NamedTempFile::new()?;
    let begun = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.reopen()?)
        .spawn()
        .with_context(|| format!("{} could not be started; is it installed?", program.display()))?;
    let (status, sys::Usage { peak_bytes, cpu_seconds }) = sys::wait(&child)?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(
        status.success(),
        "{} {arguments:?}: {status}\n{}",
        program.display(),
        fs::read_to_string(said.path())?
    );
    Ok(Cost { seconds, cpu_seconds, peak_bytes })
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len().is_multiple_of(2) {
        f64::midpoint(figures[middle - 1], figures[middle])
    } else {
        figures[middle]
    }
}

/// Load average over one minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").into()
}

/// Processor, cores, memory and kernel of this machine.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} cores of {}, {} memory, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// Reads every file below a directory once, so that it is in the page cache; its bytes.
pub(crate) fn warm(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            warm(&entry.path())?
        } else {
            std::io::copy(&mut File::open(entry.path())?, &mut std::io::sink())?
        };
    }
    Ok(bytes)
}

/// Bytes of the files below a directory in blocks of 4 KiB, and the number of all entries.
pub(crate) fn usage(directory: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut entries) = (0, 0);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        entries += 1;
        bytes += metadata.len().next_multiple_of(4096);
        if metadata.is_dir() {
            let (below, count) = usage(&entry.path())?;
            bytes += below;
            entries += count;
        }
    }
    Ok((bytes, entries))
}
