//! The simulation itself: virtual time, what happens next, and who it happens to.
//!
//! Invariants: time never goes back; of two things at the same time the one that was planned
//! first happens first; nothing depends on the order of a hash map, on a clock or on a thread,
//! so a scenario and its seed determine the outcome. What is planned for a sandbox carries its
//! epoch, which changes with its state, so that what was overtaken is passed over.

use super::l2::Nodes;
use super::model::{Invocation, Mix, World};
use super::origin::OriginQueue;
use super::random::{Random, nanos};
use super::reads::Flight;
use super::record::{Gauges, Recorder};
use super::scenario::{Scenario, What};
use super::starts::{Sandbox, Ticket, Tickets};
use super::tier::Tier;
use super::trace::Trace;
use super::{Nanos, Outcome, SimulateError};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// What happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// The next invocation of the mix, or of the trace.
    Arrival(Invocation),
    /// A cron function's turn.
    Cron(u32),
    /// A new version of some function.
    Deploy,
    /// A rejected or failed invocation comes again.
    Again(Invocation),
    /// A chunk from the worker's own cache is there.
    Local(Ticket),
    /// A flight's chunk is there.
    Landed(u64),
    /// The nodes do not have a flight's chunk.
    Missed(u64),
    /// The origin's answer, or the deadline before it.
    FromOrigin { flight: u64, good: bool },
    /// A flight that still waits for its turn at the origin is too late.
    Late { flight: u64, serial: u64 },
    /// A sandbox serves.
    Ready(Ticket),
    /// A caller waits no longer.
    Impatient(Ticket),
    /// An invocation is over.
    Done(Ticket),
    /// An idle sandbox was not needed again.
    Expired(Ticket),
    /// The scenario's event of this position.
    Planned(usize),
    /// The lost nodes leave the list.
    Leave,
    /// A point of the series is complete.
    Bucket,
}

#[derive(Debug)]
struct Plan {
    at: Nanos,
    order: u64,
    what: Happening,
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Plan {}

impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Plan {
    fn cmp(&self, other: &Self) -> Ordering {
        // the heap gives the largest: the earliest is
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) l1: Tier,
    /// Sandboxes, whatever their state.
    pub(super) used: u32,
    /// Those that are starting.
    pub(super) starting: u32,
    /// Requests to the origin under way.
    pub(super) asking: u32,
    /// Flights that wait for their turn at the origin, with their serial numbers.
    pub(super) waiting: VecDeque<(u64, u64)>,
    /// Idle sandboxes, the longest idle first.
    pub(super) idle: Tickets,
}

/// Everything at one moment.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) scenario: Scenario,
    pub(super) now: Nanos,
    order: u64,
    plans: BinaryHeap<Plan>,
    pub(super) world: World,
    mix: Mix,
    trace: Option<std::vec::IntoIter<(Nanos, Invocation)>>,
    pub(super) workers: Vec<Worker>,
    pub(super) nodes: Option<Nodes>,
    pub(super) origin: OriginQueue,
    pub(super) flights: HashMap<u64, Flight>,
    pub(super) flown: u64,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) free: Vec<u32>,
    /// Idle sandboxes of each function, the longest idle first.
    pub(super) idle: Vec<Tickets>,
    pub(super) placement: Random,
    pub(super) recorder: Recorder,
    pub(super) starting: u32,
    pub(super) busy: u32,
}

impl Simulation {
    pub(super) fn new(scenario: &Scenario, trace: Option<Trace>) -> Result<Self, SimulateError> {
        scenario.check()?;
        let fleet = &scenario.fleet;
        let mut mix = Mix::new(scenario);
        let (functions, arrivals) = match trace {
            Some(trace) => {
                let (functions, arrivals) = trace.replay(scenario);
                (functions, Some(arrivals.into_iter()))
            }
            None => (scenario.load.functions as usize + scenario.load.cron_functions as usize, None),
        };
        scenario.check_chunks(functions as u64)?;
        let worker = |_| Worker {
            l1: Tier::new(fleet.worker_policy, fleet.worker_bytes),
            used: 0,
            starting: 0,
            asking: 0,
            waiting: VecDeque::new(),
            idle: Tickets::default(),
        };
        let cron = if arrivals.is_some() { Vec::new() } else { mix.cron() };
        let mut simulation = Self {
            now: 0,
            order: 0,
            plans: BinaryHeap::new(),
            world: World::new(scenario.run.seed, &scenario.images, functions),
            mix,
            trace: arrivals,
            workers: (0..fleet.workers).map(worker).collect(),
            nodes: Nodes::new(scenario)?,
            origin: OriginQueue::new(scenario),
            flights: HashMap::new(),
            flown: 0,
            sandboxes: Vec::new(),
            free: Vec::new(),
            idle: (0..functions).map(|_| Tickets::default()).collect(),
            placement: Random::stream(scenario.run.seed, 5),
            recorder: Recorder::new(scenario),
            starting: 0,
            busy: 0,
            scenario: scenario.clone(),
        };
        simulation.begin(&cron);
        Ok(simulation)
    }

    fn begin(&mut self, cron: &[(f64, u32)]) {
        if self.scenario.run.primed
            && let Some(nodes) = &mut self.nodes
        {
            // the least popular first, so that the others stay where space is short
            for function in (0..self.world.functions()).rev() {
                self.world.set(function).iter().for_each(|&chunk| nodes.prime(self.world.id(chunk)));
            }
        }
        for &(at, function) in cron {
            self.after(nanos(at), Happening::Cron(function));
        }
        for position in 0..self.scenario.events.len() {
            self.after(nanos(self.scenario.events[position].at_s), Happening::Planned(position));
        }
        self.plan_arrival();
        self.plan_deploy();
        self.after(nanos(self.scenario.run.bucket_s), Happening::Bucket);
    }

    /// Plans something for so much later.
    pub(super) fn after(&mut self, delay: Nanos, what: Happening) {
        self.order += 1;
        self.plans.push(Plan { at: self.now.saturating_add(delay), order: self.order, what });
    }

    fn plan_arrival(&mut self) {
        let next = match &mut self.trace {
            Some(trace) => trace.next().map(|(at, invocation)| (at.saturating_sub(self.now), invocation)),
            None => self.mix.next().map(|(after, invocation)| (nanos(after), invocation)),
        };
        if let Some((delay, invocation)) = next {
            self.after(delay, Happening::Arrival(invocation));
        }
    }

    fn plan_deploy(&mut self) {
        if let Some(delay) = self.mix.next_deploy() {
            self.after(nanos(delay), Happening::Deploy);
        }
    }

    /// Runs to the end of the scenario.
    pub(super) fn run(mut self) -> Result<Outcome, SimulateError> {
        let end = nanos(self.scenario.run.duration_s);
        while let Some(plan) = self.plans.pop() {
            if plan.at > end {
                break;
            }
            self.now = plan.at;
            self.recorder.happened(self.now);
            self.happen(plan.what)?;
        }
        let chunks = self.world.chunks();
        Ok(self.recorder.finish(self.scenario, self.nodes.as_ref(), chunks))
    }

    fn happen(&mut self, what: Happening) -> Result<(), SimulateError> {
        match what {
            Happening::Arrival(invocation) => {
                self.plan_arrival();
                self.invoke(invocation);
            }
            Happening::Cron(function) => {
                self.after(nanos(self.scenario.load.cron_period_s), what);
                let invocation = self.mix.invocation(function);
                self.invoke(invocation);
            }
            Happening::Deploy => self.deploy(),
            Happening::Again(invocation) => self.invoke(invocation),
            Happening::Local(ticket) => self.chunk_here(ticket),
            Happening::Landed(flight) => self.land(flight),
            Happening::Missed(flight) => self.missed(flight),
            Happening::FromOrigin { flight, good } => self.origin_answered(flight, good),
            Happening::Late { flight, serial } => self.late(flight, serial),
            Happening::Ready(ticket) => self.ready(ticket),
            Happening::Impatient(ticket) => self.impatient(ticket),
            Happening::Done(ticket) => self.done(ticket),
            Happening::Expired(ticket) => self.expired(ticket),
            Happening::Planned(position) => self.planned(self.scenario.events[position].what)?,
            Happening::Leave => {
                if let Some(nodes) = &mut self.nodes {
                    nodes.forget_lost()?;
                }
            }
            Happening::Bucket => {
                let gauges = Gauges {
                    starting: self.starting,
                    busy: self.busy,
                    origin_line: self.origin.line(self.now),
                };
                self.recorder.bucket(gauges);
                self.after(nanos(self.scenario.run.bucket_s), Happening::Bucket);
            }
        }
        Ok(())
    }

    fn deploy(&mut self) {
        self.plan_deploy();
        let new = self.world.deploy(self.scenario.load.deploy_fresh);
        if self.scenario.load.deploy_primed
            && let Some(nodes) = &mut self.nodes
        {
            new.iter().for_each(|&chunk| nodes.fill(self.world.id(chunk)));
        }
    }

    fn planned(&mut self, what: What) -> Result<(), SimulateError> {
        if what == What::Wipe {
            self.workers.iter_mut().for_each(|worker| worker.l1.clear());
        }
        let Some(nodes) = &mut self.nodes else { return Ok(()) };
        match what {
            What::Wipe => nodes.wipe(),
            What::LoseZone(lost) => nodes.lose(|_, zone| zone == lost),
            What::LoseNode(lost) => nodes.lose(|number, _| number == lost as usize),
            What::AddNodes(count) => nodes.add(count)?,
        }
        let leave = self.scenario.fleet.leave_after_s;
        if matches!(what, What::LoseZone(_) | What::LoseNode(_)) && leave > 0.0 {
            self.after(nanos(leave), Happening::Leave);
        }
        Ok(())
    }
}
