//! Progress of long work: a bar on a terminal, plain lines in a pipe, nothing with `--json`.
//!
//! Everything goes to standard error, so that standard output stays the command's result.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a stage in a pipe says where it is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Where progress goes.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    quiet: bool,
}

/// What a stage counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, printed with binary prefixes.
    Bytes,
    /// Things, printed as they are.
    Count,
}

/// One stage of the work, to be counted up from several threads.
#[derive(Debug)]
pub struct Stage {
    what: &'static str,
    unit: Unit,
    total: u64,
    bar: ProgressBar,
    plain: Option<Mutex<Plain>>,
}

#[derive(Debug)]
struct Plain {
    started: Instant,
    said: Instant,
}

impl Progress {
    /// Progress on standard error, or none at all.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bars: (terminal && !quiet).then(MultiProgress::new), quiet }
    }

    /// Begins a stage of `total` units.
    ///
    /// # Panics
    /// Never: the bar templates are constants that parse.
    #[must_use]
    pub fn stage(&self, what: &'static str, unit: Unit, total: u64) -> Stage {
        let template = match unit {
            Unit::Bytes => {
                "{msg:<9} [{bar:40}] {binary_bytes:>10} / {binary_total_bytes:<10} {binary_bytes_per_sec} {eta}"
            }
            Unit::Count => "{msg:<9} [{bar:40}] {human_pos:>10} / {human_len:<10} {per_sec} {eta}",
        };
        let style = ProgressStyle::with_template(template).expect("a constant template that parses");
        let bar = match &self.bars {
            Some(bars) => bars.add(ProgressBar::new(total)),
            None => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
        };
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what);
        let now = Instant::now();
        let plain =
            (self.bars.is_none() && !self.quiet).then(|| Mutex::new(Plain { started: now, said: now }));
        Stage { what, unit, total, bar, plain }
    }

    /// A line of news, above the bars if there are any.
    pub fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None if self.quiet => {}
            None => print(line),
        }
    }
}

/// Standard error may be closed; progress is not worth failing for.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Stage {
    /// Counts `units` more as done.
    pub fn add(&self, units: u64) {
        self.bar.inc(units);
        let Some(plain) = &self.plain else { return };
        let Ok(mut plain) = plain.lock() else { return };
        if plain.said.elapsed() >= PLAIN_INTERVAL {
            plain.said = Instant::now();
            print(&format!("{}: {} of {}", self.what, self.text(self.bar.position()), self.text(self.total)));
        }
    }

    fn text(&self, amount: u64) -> String {
        match self.unit {
            Unit::Bytes => crate::report::human(amount),
            Unit::Count => amount.to_string(),
        }
    }

    /// Ends the stage: the bar goes, or a line says how long it took.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        if let Some(Ok(plain)) = self.plain.as_ref().map(Mutex::lock) {
            let took = plain.started.elapsed().as_secs_f64();
            print(&format!("{}: {} in {took:.1} s", self.what, self.text(self.bar.position())));
        }
    }
}
