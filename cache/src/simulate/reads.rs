//! A chunk through the tiers of a worker: its own cache, then one flight per chunk to the
//! nodes and the origin, filled back on the way. As the read path does it, with drawn times.

use super::Nanos;
use super::engine::{Happening, Simulation};
use super::l2::Answer;
use super::model::Chunk;
use super::random::nanos;
use super::record::Source;
use super::starts::Ticket;

/// A chunk on its way to a worker.
#[derive(Debug)]
pub(super) struct Flight {
    /// Tells it from another flight of the same chunk, earlier or later.
    serial: u64,
    began: Nanos,
    stage: Stage,
    /// Who waits for it.
    waiting: Vec<Ticket>,
    /// When it fails; known once the origin is to be asked.
    end: Nanos,
}

/// How far a flight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The nodes were asked.
    Nodes,
    /// It waits for its turn at the origin.
    Waiting,
    /// The origin was asked.
    Origin,
}

/// A worker and a chunk as one number.
fn key(worker: u32, chunk: Chunk) -> u64 {
    u64::from(worker) << 32 | u64::from(chunk)
}

fn worker_of(key: u64) -> usize {
    usize::try_from(key >> 32).expect("32 bits")
}

fn chunk_of(key: u64) -> Chunk {
    Chunk::try_from(key & u64::from(u32::MAX)).expect("32 bits")
}

impl Simulation {
    /// Reads a chunk for a start. The answer comes as a happening.
    pub(super) fn read(&mut self, worker: u32, chunk: Chunk, ticket: Ticket) {
        let id = self.world.id(chunk);
        if self.workers[worker as usize].l1.touch(id) {
            let local = self.scenario.times.l1_us / 1e6;
            self.recorder.served(Source::Local, nanos(local), 1);
            self.after(nanos(local), Happening::Local(ticket));
            return;
        }
        let key = key(worker, chunk);
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.waiting.push(ticket);
            return;
        }
        self.flown += 1;
        let flight = Flight {
            serial: self.flown,
            began: self.now,
            stage: Stage::Nodes,
            waiting: vec![ticket],
            end: Nanos::MAX,
        };
        self.flights.insert(key, flight);
        match self.nodes.as_mut().map(|nodes| nodes.read(id)) {
            Some(Answer::Chunk(delay)) => self.after(delay, Happening::Landed(key)),
            Some(Answer::Miss(delay)) => self.after(delay, Happening::Missed(key)),
            None => self.missed(key),
        }
    }

    /// The origin is to be asked, now or when the worker has a turn free.
    pub(super) fn missed(&mut self, key: u64) {
        let (limit, now) = (self.scenario.limits.origin_per_worker, self.now);
        let patience = nanos(self.scenario.times.chunk_deadline_ms / 1e3);
        let worker = &mut self.workers[worker_of(key)];
        let flight = self.flights.get_mut(&key).expect("a flight ends with its landing only");
        flight.end = now + patience;
        if limit != 0 && worker.asking >= limit {
            flight.stage = Stage::Waiting;
            let serial = flight.serial;
            worker.waiting.push_back((key, serial));
            self.after(patience, Happening::Late { flight: key, serial });
        } else {
            self.ask_origin(key);
        }
    }

    fn ask_origin(&mut self, key: u64) {
        let flight = self.flights.get_mut(&key).expect("the caller found it");
        flight.stage = Stage::Origin;
        let end = flight.end;
        self.workers[worker_of(key)].asking += 1;
        self.recorder.origin_asked(self.now);
        let answered = self.origin.serve(self.now);
        let good = answered <= end;
        self.after(answered.min(end).saturating_sub(self.now), Happening::FromOrigin { flight: key, good });
    }

    pub(super) fn origin_answered(&mut self, key: u64, good: bool) {
        let worker = worker_of(key);
        self.workers[worker].asking -= 1;
        while let Some((next, serial)) = self.workers[worker].waiting.pop_front() {
            if self.flights.get(&next).is_some_and(|flight| flight.serial == serial) {
                self.ask_origin(next);
                break;
            }
        }
        if !good {
            self.fail(key);
            return;
        }
        if let Some(nodes) = &mut self.nodes {
            nodes.fill(self.world.id(chunk_of(key)));
        }
        let open = nanos(self.scenario.times.open_us / 1e6);
        self.after(open, Happening::Landed(key));
    }

    pub(super) fn late(&mut self, key: u64, serial: u64) {
        let waits = |flight: &Flight| flight.serial == serial && flight.stage == Stage::Waiting;
        if self.flights.get(&key).is_some_and(waits) {
            self.fail(key);
        }
    }

    /// The chunk is there: kept, and given to all who wait.
    pub(super) fn land(&mut self, key: u64) {
        let Some(flight) = self.flights.remove(&key) else { return };
        let source = if flight.stage == Stage::Origin { Source::Origin } else { Source::Nodes };
        let bytes = u64::from(self.scenario.images.chunk_bytes);
        self.workers[worker_of(key)].l1.insert(self.world.id(chunk_of(key)), bytes);
        self.recorder.served(source, self.now - flight.began, flight.waiting.len() as u64);
        for ticket in flight.waiting {
            self.chunk_here(ticket);
        }
    }

    fn fail(&mut self, key: u64) {
        let Some(flight) = self.flights.remove(&key) else { return };
        self.recorder.failed_reads(flight.waiting.len() as u64);
        for ticket in flight.waiting {
            self.start_failed(ticket);
        }
    }
}
