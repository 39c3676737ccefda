//! Traces of invocations: comma-separated `app,func,end_timestamp,duration` with a header
//! line, as the Azure Functions trace of 2021; times in seconds.
//!
//! Invariants: a file is read line by line, no line longer than 4 KiB, no more than
//! ten million invocations are held, 24 bytes each, and each function's name once.

use super::Nanos;
use super::model::Invocation;
use super::random::{Random, nanos, seconds};
use super::scenario::Scenario;
use std::collections::HashMap;
use std::io::BufRead;

/// Longest line in bytes.
const MAX_LINE: usize = 4096;
/// Most invocations, copies included.
const MAX_INVOCATIONS: usize = 10_000_000;
/// Most functions, copies included.
const MAX_FUNCTIONS: usize = 1_000_000;
/// Longest time in seconds.
const MAX_SECONDS: f64 = 1e9;

/// A trace that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("line {line} of the trace cannot be read")]
    Io {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: std::io::Error,
    },
    /// A line that is not what it should be.
    #[error("line {line} of the trace: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what it must be.
        why: String,
    },
    /// Nothing in it.
    #[error("the trace holds no invocation; it needs lines of app,func,end_timestamp,duration")]
    Empty,
}

/// Invocations as they were recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    functions: usize,
    /// When each began, from the first one on, which function, and seconds it ran.
    invocations: Vec<(Nanos, u32, f64)>,
}

fn bad(line: usize, why: impl Into<String>) -> TraceError {
    TraceError::Line { line, why: why.into() }
}

fn number(line: usize, name: &str, text: &str) -> Result<f64, TraceError> {
    let value = text.trim().parse::<f64>().ok().filter(|value| (0.0..=MAX_SECONDS).contains(value));
    value.ok_or_else(|| bad(line, format!("{name} must be a number of seconds from 0 to a thousand million")))
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// [`TraceError`] names the line.
    pub fn read(mut input: impl BufRead) -> Result<Self, TraceError> {
        let mut names: HashMap<String, u32> = HashMap::new();
        let mut invocations: Vec<(f64, u32, f64)> = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let mut limited = std::io::Read::take(&mut input, MAX_LINE as u64 + 1);
            let read = limited.read_until(b'\n', &mut text);
            if read.map_err(|source| TraceError::Io { line, source })? == 0 {
                break;
            }
            if text.len() > MAX_LINE {
                return Err(bad(line, format!("longer than {MAX_LINE} bytes")));
            }
            let text = std::str::from_utf8(&text).map_err(|_| bad(line, "not text"))?.trim();
            if text.is_empty() || (line == 1 && text.starts_with("app,")) {
                continue;
            }
            let fields: Vec<&str> = text.split(',').collect();
            let &[app, func, end, duration] = &fields[..] else {
                let why = format!("{} fields instead of app,func,end_timestamp,duration", fields.len());
                return Err(bad(line, why));
            };
            let (end, ran) = (number(line, "end_timestamp", end)?, number(line, "duration", duration)?);
            if invocations.len() >= MAX_INVOCATIONS {
                return Err(bad(line, format!("more than {MAX_INVOCATIONS} invocations; cut the trace")));
            }
            let known = u32::try_from(names.len()).expect("at most a million functions");
            let function = *names.entry(format!("{app},{func}")).or_insert(known);
            if names.len() > MAX_FUNCTIONS {
                return Err(bad(line, format!("more than {MAX_FUNCTIONS} functions; cut the trace")));
            }
            invocations.push((end - ran, function, ran));
        }
        if invocations.is_empty() {
            return Err(TraceError::Empty);
        }
        let first = invocations.iter().map(|&(began, _, _)| began).fold(f64::INFINITY, f64::min);
        let mut invocations: Vec<(Nanos, u32, f64)> = invocations
            .into_iter()
            .map(|(began, function, ran)| (nanos(began - first), function, ran))
            .collect();
        invocations.sort_by_key(|&(began, _, _)| began);
        Ok(Self { functions: names.len(), invocations })
    }

    /// Invocations in it.
    #[must_use]
    pub fn invocations(&self) -> usize {
        self.invocations.len()
    }

    /// Functions in it.
    #[must_use]
    pub const fn functions(&self) -> usize {
        self.functions
    }

    /// Seconds from the first invocation's begin to the last one's.
    #[must_use]
    pub fn length_s(&self) -> f64 {
        self.invocations.last().map_or(0.0, |&(began, _, _)| seconds(began))
    }

    /// Whether so many copies can be held.
    pub(super) fn fits(&self, copies: u32) -> bool {
        let copies = copies as usize;
        self.invocations.len().saturating_mul(copies) <= MAX_INVOCATIONS
            && self.functions.saturating_mul(copies) <= MAX_FUNCTIONS
    }

    /// How many functions are invoked, and when, in the order of time: copies of the trace,
    /// each moved around its length by a random part and with functions of its own.
    pub(super) fn replay(self, scenario: &Scenario) -> (usize, Vec<(Nanos, Invocation)>) {
        let mut random = Random::stream(scenario.run.seed, 6);
        let speed = scenario.replay.speed;
        let length = self.length_s();
        let mut arrivals = Vec::new();
        for copy in 0..scenario.replay.copies {
            let moved = if copy == 0 { 0.0 } else { length * random.unit() };
            let first = copy * u32::try_from(self.functions).expect("at most a million");
            arrivals.extend(self.invocations.iter().map(|&(began, function, run_s)| {
                let mut at = seconds(began) + moved;
                if at > length {
                    at -= length;
                }
                let invocation = Invocation { function: first + function, run_s: run_s / speed, attempt: 0 };
                (nanos(at / speed), invocation)
            }));
        }
        arrivals.sort_by_key(|&(at, invocation)| (at, invocation.function));
        (self.functions * scenario.replay.copies as usize, arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_becomes_invocations_in_the_order_of_their_begin() {
        let text = "app,func,end_timestamp,duration\na,f,12.5,2.5\na,g,11.0,3\n\nb,f,11.5,0.5\na,f,30,1\n";
        let trace = Trace::read(text.as_bytes()).unwrap();
        assert_eq!((trace.functions(), trace.invocations()), (3, 4));
        let second = 1_000_000_000;
        let began: Vec<(u64, u32)> = trace.invocations.iter().map(|&(at, f, _)| (at / second, f)).collect();
        assert_eq!(began, [(0, 1), (2, 0), (3, 2), (21, 0)]);
        let mut scenario = Scenario::default();
        scenario.replay.copies = 3;
        scenario.replay.speed = 2.0;
        let (functions, arrivals) = trace.replay(&scenario);
        assert_eq!((functions, arrivals.len()), (9, 12));
        assert!(arrivals.iter().all(|&(at, _)| at <= 11 * second));
        assert!(arrivals.is_sorted_by_key(|&(at, _)| at));
    }

    #[test]
    fn what_is_no_trace_is_named_with_its_line() {
        let long = format!("a,f,1,{}\n", "1".repeat(MAX_LINE));
        for (text, says) in [
            ("a,f,1,1\na,f,1\n", "line 2 of the trace: 3 fields"),
            ("app,func,end_timestamp,duration\na,f,x,1\n", "line 2 of the trace: end_timestamp"),
            ("a,f,1,-1\n", "line 1 of the trace: duration"),
            ("a,f,1,NaN\n", "line 1 of the trace: duration"),
            (&long, "line 1 of the trace: longer"),
            ("", "no invocation"),
        ] {
            let error = Trace::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = Trace::read(&b"\xff\xfe\n"[..]).unwrap_err().to_string();
        assert!(error.contains("not text"), "{error}");
    }
}
