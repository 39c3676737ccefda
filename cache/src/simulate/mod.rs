//! A fleet in virtual time: thousands of workers, hundreds of cache nodes and an origin, with
//! the very policies, ring and stripe arithmetic of the real one (`cache-ops simulate`).
//!
//! ```text
//! trace or mix ─▶ starts (limit) ─▶ own cache ─▶ flight ─▶ nodes (k of k+m) ─▶ origin (line)
//!                    ▲   sandboxes    └──────────── filled back ─────────────────┘
//!                    └── events: wipe, lost node or zone, nodes that join
//! ```
//!
//! Invariants: pure and deterministic: no clock, no thread, no network, all chance from one
//! seed; the same scenario gives the same [`Outcome`] to the last bit. Memory is bounded by
//! what [`Scenario::check`] admits.
//!
//! What is not modelled: queues at the cache nodes and on the network (the outcome says how
//! many requests and bytes the busiest node had, to be held against what one serves), the
//! bounded queue of write-backs, tier by tier the worker's memory and SSD, reads after start.

mod args;
mod check;
mod engine;
mod histogram;
mod l2;
mod model;
mod origin;
mod outcome;
mod plot;
mod random;
mod reads;
mod record;
mod recovery;
mod scenario;
mod starts;
mod tier;
mod trace;

pub use args::{ArgsError, SimulateArgs};
pub use check::ScenarioError;
pub use histogram::Percentiles;
pub use outcome::{Nodes, Outcome, Phase, Point, Reads, Recovery, Starts, table};
pub use plot::{PlotError, plot};
pub use scenario::{
    Event, FleetShape, Images, Limits, Load, OriginModel, Replay, Run, Scenario, Times, What,
};
pub use trace::{Trace, TraceError};

/// Nanoseconds of virtual time.
type Nanos = u64;

/// A simulation that could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The scenario is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Its nodes make no fleet.
    #[error(transparent)]
    Members(#[from] fleet::members::MembersError),
    /// The trace with its copies is more than is held in memory.
    #[error("{copies} copies of {invocations} invocations are more than ten million; replay fewer copies")]
    Copies {
        /// Copies asked for.
        copies: u32,
        /// Invocations of one.
        invocations: usize,
    },
}

/// Simulates a fleet under a described mix of load.
///
/// Takes about 4 seconds per million chunk reads (1,000 workers, 100 nodes; 2 cores of an AMD
/// EPYC) and stays on the calling thread.
///
/// # Errors
/// [`SimulateError`] says which field of the scenario is wrong.
pub fn run(scenario: &Scenario) -> Result<Outcome, SimulateError> {
    engine::Simulation::new(scenario, None)?.run()
}

/// Simulates a fleet under the invocations of a trace; of the scenario's load only what
/// happens to an invocation counts (keep-alive, patience, retries, new versions).
///
/// # Errors
/// [`SimulateError`] as [`run`], and if the copies of the trace are too many.
pub fn run_trace(scenario: &Scenario, trace: Trace) -> Result<Outcome, SimulateError> {
    let copies = scenario.replay.copies;
    if !trace.fits(copies) {
        return Err(SimulateError::Copies { copies, invocations: trace.invocations() });
    }
    engine::Simulation::new(scenario, Some(trace))?.run()
}

#[cfg(test)]
mod tests;
