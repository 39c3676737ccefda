//! How many invocations share a sandbox: the photon limit C, found by measuring.
//!
//! The authors of Photons have the developer profile a function and declare its sizes (section
//! 4.4). Here an [`Estimator`] per function watches its sandboxes and fits `memory = base +
//! increment × invocations` (`memory.rs`), the CPU an invocation uses, and whether more
//! neighbours make it slower (`latency.rs`). [`Estimator::limit`] is the least of
//! - what the owner declared;
//! - what fits the memory limit of a sandbox, with head-room for what was not yet seen;
//! - what the CPU limit of a sandbox carries. Only a limit of the sandbox's own counts: where
//!   all share the host's CPUs, another sandbox brings no CPU, and spreading gains nothing;
//! - what the latency guard allows.
//!
//! The first C matters: `n` cold invocations at once start `⌈n/C⌉` sandboxes, before anything
//! was measured. A declared limit is therefore used from the first burst on, since its owner
//! vouches for it. Undeclared, C begins at a guess ([`Settings::first_guess`]) and doubles
//! while measurement finds nothing against it, up to [`Settings::most`].
//!
//! Invariants: a limit is at least 1 and at most what was declared; nonsense measurements (no
//! bytes, absurd sizes, time that runs backwards) change nothing; memory and time used here are
//! bounded whatever comes in. The estimator outlives the sandboxes it learned from.
//!
//! Used by the dispatcher: it feeds samples and asks for the limit before it decides.

mod latency;
mod memory;

use latency::Guard;
use memory::MemoryModel;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How an estimator behaves where nothing is declared or measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// C of a function of which nothing is declared or known. Too low costs starts in the first
    /// burst, too high memory; the sandbox's memory limit bounds the harm of the latter.
    pub first_guess: usize,
    /// Most C where none is declared.
    pub most: usize,
    /// How much of a sandbox's memory limit is left free, in percent.
    pub headroom_percent: u64,
    /// How long an invocation may take among many, in percent of how long it takes among few,
    /// before C goes down. It goes up again below half of the excess.
    pub slow_percent: u32,
    /// Processors of the host, which all sandboxes share.
    pub host_cpus: usize,
    /// Whether photons are processes that share nothing but the host. Then neighbours cost each
    /// other no time that neighbours in other sandboxes would not, and latency is no reason.
    pub apart: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let host_cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { first_guess: 8, most: 64, headroom_percent: 10, slow_percent: 125, host_cpus, apart: false }
    }
}

/// What a sandbox of the function may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// The owner's limit of invocations per sandbox.
    pub declared: Option<usize>,
    /// Memory limit of a sandbox, in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU limit of a sandbox of its own, in thousandths of a CPU; none where sandboxes share
    /// the host's.
    pub cpu_millis: Option<u64>,
}

/// One invocation as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvocationSample {
    /// CPU time it used; where several share a process, its share of it.
    pub cpu: Duration,
    /// From hand-over to answer.
    pub wall: Duration,
    /// Invocations in its sandbox when it began, itself included.
    pub in_flight_at_start: usize,
    /// The same when it ended, itself included.
    pub in_flight_at_end: usize,
    /// Whether all of the host's CPUs were busy meanwhile. Then it was slow for a reason that
    /// no limit per sandbox can help, and says nothing about its neighbours.
    pub host_saturated: bool,
}

/// How much an estimate of memory is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nothing is known.
    None,
    /// A sandbox without invocations was seen, or one number of them: the increment is a bound.
    Low,
    /// Several numbers of invocations were seen, and often.
    Good,
}

/// What is known of a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Memory of a sandbox without invocations, in bytes.
    pub base_bytes: u64,
    /// Memory that one more invocation adds, in bytes.
    pub increment_bytes: u64,
    /// What these two are worth.
    pub confidence: Confidence,
    /// Most invocations at once that were seen in a sandbox.
    pub highest_in_flight: usize,
    /// Growth of a sandbox that grows without more invocations, in bytes per second; 0 if none.
    pub leak_bytes_per_s: u64,
    /// CPU time of an invocation: the median.
    pub cpu_per_invocation: Duration,
    /// Share of its time for which an invocation among few keeps a CPU busy; may be above 1.
    pub busy_fraction: f64,
    /// Median time among many over that among few, where both were seen.
    pub slowdown: Option<f64>,
    /// Invocations and memory samples taken in.
    pub samples: u64,
}

impl Estimate {
    /// Memory of a sandbox with so many invocations, in bytes.
    #[must_use]
    pub fn bytes_with(&self, in_flight: usize) -> u64 {
        let in_flight = u64::try_from(in_flight).unwrap_or(u64::MAX);
        self.base_bytes.saturating_add(self.increment_bytes.saturating_mul(in_flight))
    }
}

/// Invocations whose CPU use is remembered.
const CPU_SAMPLES: usize = 128;
/// Samples among few neighbours that are enough to leave the others out.
const CPU_SAMPLES_ENOUGH: usize = 8;
/// Least increment that a limit is computed with: a connection and a stack are never free.
const LEAST_INCREMENT: u64 = 256 << 10;
/// By how much a memory limit must rise to be believed, in percent: estimates breathe, and a C
/// that does, too, would make `⌈n/C⌉` a matter of chance.
const RISE_PERCENT: usize = 10;

/// What is learned of one function from all its sandboxes.
#[derive(Debug)]
pub struct Estimator {
    settings: Settings,
    memory: MemoryModel,
    guard: Guard,
    /// CPU and wall time, and neighbours, of the newest invocations.
    cpu: VecDeque<(Duration, Duration, usize)>,
    /// The memory limit in force.
    held: Option<usize>,
    samples: u64,
}

impl Estimator {
    /// One that knows nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            memory: MemoryModel::default(),
            guard: Guard::new(settings.first_guess, settings.slow_percent),
            cpu: VecDeque::new(),
            held: None,
            samples: 0,
        }
    }

    /// Takes in the memory of a sandbox (cgroup or PSS, in bytes) with so many invocations in
    /// it. `sandbox` is any number that tells the function's sandboxes apart. The first sample
    /// should come before its first invocation, later ones each second or when the number of
    /// invocations changes.
    pub fn observe_memory(&mut self, sandbox: u64, in_flight: usize, bytes: u64, now: Instant) {
        if self.memory.observe(sandbox, in_flight, bytes, now) {
            self.samples += 1;
        }
    }

    /// Takes in an invocation that ended, successfully or not. Those that were stopped at their
    /// deadline should be left out.
    pub fn observe_invocation(&mut self, sample: &InvocationSample, now: Instant) {
        if sample.in_flight_at_start == 0 || sample.wall.is_zero() {
            return;
        }
        let in_flight = sample.in_flight_at_start.saturating_add(sample.in_flight_at_end.max(1)).div_ceil(2);
        self.samples += 1;
        if self.cpu.len() == CPU_SAMPLES {
            self.cpu.pop_front();
        }
        self.cpu.push_back((sample.cpu, sample.wall, in_flight));
        if !sample.host_saturated {
            let turns = u32::try_from(in_flight).unwrap_or(u32::MAX);
            let cpus = u32::try_from(self.settings.host_cpus.max(1)).unwrap_or(u32::MAX);
            let in_turns = sample.cpu.saturating_mul(turns) / cpus;
            let least = if self.settings.apart { sample.wall } else { in_turns };
            self.guard.observe(in_flight, sample.wall, least, now);
        }
    }

    /// Drops what only concerned a sandbox that is gone; what it taught stays.
    pub fn forget_sandbox(&mut self, sandbox: u64) {
        self.memory.forget(sandbox);
    }

    /// Drops all that is known of memory: sandboxes started from now on are other ones.
    pub fn forget_memory(&mut self) {
        self.memory = MemoryModel::default();
        self.held = None;
    }

    /// What is known.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        let fit = self.memory.fit();
        let mut cpu: Vec<Duration> = self.cpu.iter().map(|(cpu, ..)| *cpu).collect();
        cpu.sort_unstable();
        Estimate {
            base_bytes: fit.base,
            increment_bytes: fit.increment,
            confidence: fit.confidence,
            highest_in_flight: fit.highest,
            leak_bytes_per_s: self.memory.leak_bytes_per_s(),
            cpu_per_invocation: cpu.get(cpu.len() / 2).copied().unwrap_or_default(),
            busy_fraction: self.busy_fraction(),
            slowdown: self.guard.slowdown(),
            samples: self.samples,
        }
    }

    /// The photon limit C of a sandbox with this budget; at least 1.
    pub fn limit(&mut self, budget: &Budget) -> usize {
        let declared = budget.declared.unwrap_or(self.settings.most);
        let by_latency = match budget.declared {
            Some(_) => self.guard.ceiling(),
            None => Some(self.guard.explored()),
        };
        // one number of invocations gives a bound, which is less to go by than an owner's word
        let is_known = budget.declared.is_none() || self.memory.fit().levels > 1;
        let by_memory = budget.memory_bytes.filter(|_| is_known).and_then(|bytes| self.by_memory(bytes));
        let by_cpu = budget.cpu_millis.and_then(|millis| self.by_cpu(millis));
        let all = [by_latency, by_memory, by_cpu];
        all.into_iter().flatten().fold(declared, usize::min).max(1)
    }

    fn by_memory(&mut self, limit_bytes: u64) -> Option<usize> {
        let fit = self.memory.fit();
        if fit.highest == 0 {
            return None;
        }
        let usable = limit_bytes - limit_bytes / 100 * self.settings.headroom_percent.min(100);
        let increments = usable.saturating_sub(fit.base) / fit.increment.max(LEAST_INCREMENT);
        let computed = usize::try_from(increments).unwrap_or(usize::MAX);
        let limit = computed.max(self.memory.highest_within(usable)).max(1);
        let held = match self.held {
            Some(held) if limit > held && limit - held <= held.saturating_mul(RISE_PERCENT) / 100 => held,
            _ => limit,
        };
        self.held = Some(held);
        Some(held)
    }

    fn by_cpu(&self, millis: u64) -> Option<usize> {
        let busy = self.busy_fraction();
        if self.cpu.len() < CPU_SAMPLES_ENOUGH || busy <= 0.0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "thousandths of CPUs are few")]
        let carried = (millis as f64 / 1000.0 / busy).clamp(1.0, 1e6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole photons, and the range was just checked"
        )]
        // what is a hair below a whole number through rounding is that number
        Some((carried + 1e-6) as usize)
    }

    /// CPU over wall time, of invocations among few where there are enough: among many, waiting
    /// for the CPU would look like idleness.
    fn busy_fraction(&self) -> f64 {
        let few = self.cpu.iter().map(|(.., in_flight)| *in_flight).max().unwrap_or(0) / 4;
        let ratio = |most: usize| {
            let chosen = self.cpu.iter().filter(|(.., in_flight)| *in_flight <= most);
            let sums = chosen.fold((0.0, 0.0, 0), |(cpu, wall, n), (c, w, _)| {
                (cpu + c.as_secs_f64(), wall + w.as_secs_f64(), n + 1)
            });
            (sums.2 >= CPU_SAMPLES_ENOUGH && sums.1 > 0.0).then(|| sums.0 / sums.1)
        };
        ratio(few.max(1)).or_else(|| ratio(usize::MAX)).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests;
