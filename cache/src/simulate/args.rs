//! The command line of `cache-ops simulate`: a scenario file, changed by flags.

use super::scenario::{Event, Scenario, What};
use super::trace::{Trace, TraceError};
use super::{Outcome, PlotError, SimulateError, plot, run, run_trace};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Largest scenario file in bytes.
const MAX_SCENARIO_BYTES: u64 = 1 << 20;

/// Simulate a fleet: hit rates, the store's load, starts; what an emptied cache or a lost zone does.
///
/// The scenario file is TOML, or JSON if its name ends so; without one a fleet of 200 workers and
/// 20 nodes is simulated. Every field has a default; `--print-scenario` shows them all.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SimulateArgs {
    /// The scenario
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Replay these invocations: lines of app,func,end_timestamp,duration, times in seconds
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Lay the trace over itself so often, each time with other functions
    #[arg(long, value_name = "N", requires = "trace")]
    pub copies: Option<u32>,
    /// Workers
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// Bytes of each worker's own cache: 1G
    #[arg(long, value_name = "SIZE", value_parser = crate::size::size)]
    pub worker_bytes: Option<u64>,
    /// Cache nodes; 0 for none
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// Bytes of each node: 4G
    #[arg(long, value_name = "SIZE", value_parser = crate::size::size)]
    pub node_bytes: Option<u64>,
    /// Zones the nodes are spread over
    #[arg(long, value_name = "N")]
    pub zones: Option<u32>,
    /// Invocations per second
    #[arg(long, value_name = "N", conflicts_with = "trace")]
    pub invocations_per_s: Option<f64>,
    /// Seconds to simulate
    #[arg(long, value_name = "S")]
    pub duration: Option<f64>,
    /// Seed of all chance: the same seed, the same outcome
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Empty all caches at this second
    #[arg(long, value_name = "S")]
    pub wipe_at: Vec<f64>,
    /// Lose zone Z at second S
    #[arg(long, value_name = "Z@S", value_parser = number_at)]
    pub lose_zone: Vec<(u32, f64)>,
    /// Lose node N at second S
    #[arg(long, value_name = "N@S", value_parser = number_at)]
    pub lose_node: Vec<(u32, f64)>,
    /// Add N empty nodes at second S
    #[arg(long, value_name = "N@S", value_parser = number_at)]
    pub add_nodes: Vec<(u32, f64)>,
    /// Switch off the limits on starts and on requests to the store
    #[arg(long)]
    pub no_limit: bool,
    /// Write a plot of the run (SVG)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Print the outcome as JSON, the series included
    #[arg(long)]
    pub json: bool,
    /// Print the scenario with all its fields and simulate nothing
    #[arg(long)]
    pub print_scenario: bool,
}

/// A command line that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A scenario file that says something else.
    #[error("{}: {why}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong and where.
        why: String,
    },
    /// A trace that cannot be used.
    #[error("{}", path.display())]
    Trace {
        /// Which.
        path: PathBuf,
        /// Which line, and why.
        source: TraceError,
    },
    /// The simulation cannot be run.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// The plot cannot be written.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// `7@300`: a number and a second.
fn number_at(text: &str) -> Result<(u32, f64), String> {
    let (number, second) = text.split_once('@').ok_or("must be NUMBER@SECOND")?;
    let number = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    let second = second.parse().map_err(|_| format!("{second:?} is no number of seconds"))?;
    Ok((number, second))
}

fn open(path: &Path) -> Result<File, ArgsError> {
    File::open(path).map_err(|source| ArgsError::Read { path: path.into(), source })
}

fn parse(path: &Path) -> Result<Scenario, ArgsError> {
    let wrong = |why: String| ArgsError::Parse { path: path.into(), why };
    let mut text = String::new();
    let mut limited = open(path)?.take(MAX_SCENARIO_BYTES + 1);
    limited.read_to_string(&mut text).map_err(|source| ArgsError::Read { path: path.into(), source })?;
    if text.len() as u64 > MAX_SCENARIO_BYTES {
        return Err(wrong(format!("a scenario has at most {MAX_SCENARIO_BYTES} bytes")));
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    } else {
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }
}

impl SimulateArgs {
    /// The scenario file, if any, with what the flags change, checked.
    ///
    /// # Errors
    /// [`ArgsError`] names the file or field that is wrong.
    pub fn scenario(&self) -> Result<Scenario, ArgsError> {
        let mut scenario = self.scenario.as_deref().map(parse).transpose()?.unwrap_or_default();
        fn set<T: Copy>(field: &mut T, flag: Option<T>) {
            *field = flag.unwrap_or(*field);
        }
        let fleet = &mut scenario.fleet;
        set(&mut fleet.workers, self.workers);
        set(&mut fleet.worker_bytes, self.worker_bytes);
        set(&mut fleet.nodes, self.nodes);
        set(&mut fleet.node_bytes, self.node_bytes);
        set(&mut fleet.zones, self.zones);
        set(&mut scenario.replay.copies, self.copies);
        set(&mut scenario.load.invocations_per_s, self.invocations_per_s);
        set(&mut scenario.run.duration_s, self.duration);
        set(&mut scenario.run.seed, self.seed);
        if self.no_limit {
            scenario.limits.starts_per_worker = 0;
            scenario.limits.origin_per_worker = 0;
        }
        let wipes = self.wipe_at.iter().map(|&at_s| Event { at_s, what: What::Wipe });
        let zones = self.lose_zone.iter().map(|&(zone, at_s)| Event { at_s, what: What::LoseZone(zone) });
        let nodes = self.lose_node.iter().map(|&(node, at_s)| Event { at_s, what: What::LoseNode(node) });
        let added = self.add_nodes.iter().map(|&(count, at_s)| Event { at_s, what: What::AddNodes(count) });
        scenario.events.extend(wipes.chain(zones).chain(nodes).chain(added));
        scenario.events.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        scenario.check().map_err(SimulateError::from)?;
        Ok(scenario)
    }

    /// Runs it and writes the plot that was asked for. What to print is the caller's:
    /// [`super::table`], or the outcome as JSON.
    ///
    /// # Errors
    /// [`ArgsError`] says what to change.
    pub fn simulate(&self) -> Result<Outcome, ArgsError> {
        let scenario = self.scenario()?;
        let outcome = match &self.trace {
            None => run(&scenario)?,
            Some(path) => {
                let trace = Trace::read(BufReader::new(open(path)?))
                    .map_err(|source| ArgsError::Trace { path: path.clone(), source })?;
                run_trace(&scenario, trace)?
            }
        };
        if let Some(path) = &self.plot {
            plot(&outcome, path)?;
        }
        Ok(outcome)
    }
}
