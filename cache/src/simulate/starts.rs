//! Sandboxes: placed, started, used again, given up. The limit on concurrent starts lives
//! here, and with it the difference between a fleet that recovers and one that does not:
//! invocations that find no idle sandbox start one, so slow starts make more starts (ATC'23
//! section 4.2).

use super::Nanos;
use super::engine::{Happening, Simulation};
use super::model::{Chunk, Invocation};
use super::random::nanos;
use super::record::Refused;
use std::collections::VecDeque;
use std::rc::Rc;

/// A sandbox in one state: another epoch is another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    sandbox: u32,
    epoch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Busy,
    Idle,
    Gone,
}

/// One function's isolated environment on a worker.
#[derive(Debug)]
pub(super) struct Sandbox {
    epoch: u32,
    state: State,
    worker: u32,
    invocation: Invocation,
    began: Nanos,
    /// What its start reads, how far it is with asking, and how many have come.
    set: Rc<[Chunk]>,
    asked: usize,
    here: usize,
}

/// Tickets of idle sandboxes, with stale ones among them, which are dropped now and then.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    tickets: VecDeque<Ticket>,
    sweep_at: usize,
}

impl Tickets {
    fn push(&mut self, ticket: Ticket, sandboxes: &[Sandbox]) {
        if self.tickets.len() >= self.sweep_at.max(16) {
            self.tickets.retain(|&ticket| is(sandboxes, ticket, State::Idle));
            self.sweep_at = 2 * self.tickets.len();
        }
        self.tickets.push_back(ticket);
    }

    fn pop_newest(&mut self, sandboxes: &[Sandbox]) -> Option<Ticket> {
        std::iter::from_fn(|| self.tickets.pop_back()).find(|&ticket| is(sandboxes, ticket, State::Idle))
    }

    fn pop_oldest(&mut self, sandboxes: &[Sandbox]) -> Option<Ticket> {
        std::iter::from_fn(|| self.tickets.pop_front()).find(|&ticket| is(sandboxes, ticket, State::Idle))
    }
}

fn is(sandboxes: &[Sandbox], ticket: Ticket, state: State) -> bool {
    let sandbox = &sandboxes[ticket.sandbox as usize];
    sandbox.epoch == ticket.epoch && sandbox.state == state
}

impl Simulation {
    /// Somebody asks: an idle sandbox serves, or a new one is started, or none can be.
    pub(super) fn invoke(&mut self, invocation: Invocation) {
        self.recorder.invoked(invocation.attempt);
        let idle = &mut self.idle[invocation.function as usize];
        if let Some(ticket) = idle.pop_newest(&self.sandboxes) {
            self.recorder.reused();
            let sandbox = &mut self.sandboxes[ticket.sandbox as usize];
            sandbox.invocation = invocation;
            self.serve(ticket);
            return;
        }
        self.recorder.start_asked();
        match self.place() {
            Ok(worker) => self.start(worker, invocation),
            Err(refused) => {
                self.recorder.refused(refused);
                self.try_again(invocation);
            }
        }
    }

    /// The better of two workers, if it has room: its start limit is asked first.
    fn place(&mut self) -> Result<u32, Refused> {
        let (slots, limit) = (self.scenario.fleet.slots, self.scenario.limits.starts_per_worker);
        let count = self.scenario.fleet.workers;
        let (one, other) = (self.placement.below(count), self.placement.below(count));
        let load = |number: u32| {
            let worker = &self.workers[number as usize];
            (worker.starting, worker.used)
        };
        let chosen = if load(other) < load(one) { other } else { one };
        let worker = &mut self.workers[chosen as usize];
        if limit != 0 && worker.starting >= limit {
            return Err(Refused::Limit);
        }
        if worker.used >= slots {
            let Some(ticket) = worker.idle.pop_oldest(&self.sandboxes) else { return Err(Refused::Full) };
            self.remove(ticket);
        }
        Ok(chosen)
    }

    fn start(&mut self, worker: u32, invocation: Invocation) {
        let sandbox = Sandbox {
            epoch: 0,
            state: State::Starting,
            worker,
            invocation,
            began: self.now,
            set: Rc::clone(self.world.set(invocation.function as usize)),
            asked: 0,
            here: 0,
        };
        let number = if let Some(number) = self.free.pop() {
            let epoch = self.sandboxes[number as usize].epoch;
            self.sandboxes[number as usize] = Sandbox { epoch, ..sandbox };
            number
        } else {
            self.sandboxes.push(sandbox);
            u32::try_from(self.sandboxes.len() - 1).expect("workers times slots is below 2^32")
        };
        self.workers[worker as usize].used += 1;
        self.workers[worker as usize].starting += 1;
        self.starting += 1;
        let ticket = Ticket { sandbox: number, epoch: self.sandboxes[number as usize].epoch };
        self.after(nanos(self.scenario.load.patience_s), Happening::Impatient(ticket));
        for _ in 0..self.scenario.times.window {
            self.ask_next(ticket);
        }
    }

    fn ask_next(&mut self, ticket: Ticket) {
        let sandbox = &mut self.sandboxes[ticket.sandbox as usize];
        if let Some(&chunk) = sandbox.set.get(sandbox.asked) {
            sandbox.asked += 1;
            let worker = sandbox.worker;
            self.read(worker, chunk, ticket);
        }
    }

    /// A chunk of a start has come: the next is asked for, or the sandbox boots.
    pub(super) fn chunk_here(&mut self, ticket: Ticket) {
        if !is(&self.sandboxes, ticket, State::Starting) {
            return;
        }
        let sandbox = &mut self.sandboxes[ticket.sandbox as usize];
        sandbox.here += 1;
        if sandbox.here == sandbox.set.len() {
            self.after(nanos(self.scenario.times.boot_ms / 1e3), Happening::Ready(ticket));
        } else {
            self.ask_next(ticket);
        }
    }

    /// The next state of a sandbox; what was planned for the last one is stale.
    fn turn(&mut self, ticket: Ticket, state: State) -> Ticket {
        let sandbox = &mut self.sandboxes[ticket.sandbox as usize];
        sandbox.epoch = sandbox.epoch.wrapping_add(1);
        sandbox.state = state;
        Ticket { epoch: sandbox.epoch, ..ticket }
    }

    pub(super) fn ready(&mut self, ticket: Ticket) {
        if is(&self.sandboxes, ticket, State::Starting) {
            let sandbox = &self.sandboxes[ticket.sandbox as usize];
            self.workers[sandbox.worker as usize].starting -= 1;
            self.starting -= 1;
            self.recorder.started(self.now - sandbox.began);
            self.serve(ticket);
        }
    }

    fn serve(&mut self, ticket: Ticket) {
        let ticket = self.turn(ticket, State::Busy);
        self.busy += 1;
        let run = self.sandboxes[ticket.sandbox as usize].invocation.run_s;
        self.after(nanos(run), Happening::Done(ticket));
    }

    pub(super) fn done(&mut self, ticket: Ticket) {
        if !is(&self.sandboxes, ticket, State::Busy) {
            return;
        }
        self.busy -= 1;
        let ticket = self.turn(ticket, State::Idle);
        let keep_alive = self.scenario.load.keep_alive_s;
        if keep_alive <= 0.0 {
            self.remove(ticket);
            return;
        }
        let sandbox = &self.sandboxes[ticket.sandbox as usize];
        let (worker, function) = (sandbox.worker as usize, sandbox.invocation.function as usize);
        self.workers[worker].idle.push(ticket, &self.sandboxes);
        self.idle[function].push(ticket, &self.sandboxes);
        self.after(nanos(keep_alive), Happening::Expired(ticket));
    }

    pub(super) fn expired(&mut self, ticket: Ticket) {
        if is(&self.sandboxes, ticket, State::Idle) {
            self.remove(ticket);
        }
    }

    fn remove(&mut self, ticket: Ticket) {
        self.turn(ticket, State::Gone);
        let worker = self.sandboxes[ticket.sandbox as usize].worker;
        self.workers[worker as usize].used -= 1;
        self.free.push(ticket.sandbox);
    }

    pub(super) fn impatient(&mut self, ticket: Ticket) {
        self.start_failed(ticket);
    }

    /// A start is given up: a chunk did not come, or the caller waits no longer. What it
    /// asked for goes on, as flights belong to no start.
    pub(super) fn start_failed(&mut self, ticket: Ticket) {
        if !is(&self.sandboxes, ticket, State::Starting) {
            return;
        }
        let sandbox = &self.sandboxes[ticket.sandbox as usize];
        let (worker, invocation) = (sandbox.worker as usize, sandbox.invocation);
        self.workers[worker].starting -= 1;
        self.starting -= 1;
        self.recorder.start_failed();
        self.remove(ticket);
        self.try_again(invocation);
    }

    fn try_again(&mut self, invocation: Invocation) {
        let load = &self.scenario.load;
        if invocation.attempt < load.retries {
            // spread, so that who was rejected together does not come back together
            let wait = load.retry_after_s * (0.5 + self.placement.unit());
            let again = Invocation { attempt: invocation.attempt + 1, ..invocation };
            self.after(nanos(wait), Happening::Again(again));
        } else {
            self.recorder.lost();
        }
    }
}
