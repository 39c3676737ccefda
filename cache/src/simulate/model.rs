//! Images and functions: which chunks a start reads, and who is invoked how often.

use super::random::{AT_P99, LogNormal, Random, Zipf};
use super::scenario::{Images, Load, Scenario};
use image_format::ids::ChunkId;
use std::rc::Rc;

/// A chunk by its number.
pub(super) type Chunk = u32;

/// All images.
#[derive(Debug)]
pub(super) struct World {
    ids: Vec<ChunkId>,
    /// What a start of each function reads, in order: chunks of the base, then its own.
    sets: Vec<Rc<[Chunk]>>,
    base_chunks: usize,
    random: Random,
}

impl World {
    /// So many functions with their images, the most popular first.
    pub(super) fn new(seed: u64, images: &Images, functions: usize) -> Self {
        let mut world = Self {
            ids: Vec::new(),
            sets: Vec::with_capacity(functions),
            base_chunks: images.base_chunks as usize,
            random: Random::stream(seed, 1),
        };
        let bases: Vec<Vec<Chunk>> =
            (0..images.bases).map(|_| (0..images.base_chunks).map(|_| world.chunk()).collect()).collect();
        let popular = Zipf::new(images.bases, 1.0);
        for _ in 0..functions {
            let mut set = bases[popular.draw(&mut world.random)].clone();
            let more = images.own_chunks_max - images.own_chunks_min + 1;
            let own = images.own_chunks_min + world.random.below(more);
            set.extend((0..own.max(1)).map(|_| world.chunk()));
            world.sets.push(set.into());
        }
        world
    }

    /// A chunk that nobody had before.
    fn chunk(&mut self) -> Chunk {
        let number = Chunk::try_from(self.ids.len()).expect("scenarios have at most 20 million chunks");
        self.ids.push(ChunkId::of(&number.to_le_bytes()));
        number
    }

    /// A chunk's id.
    pub(super) fn id(&self, chunk: Chunk) -> &ChunkId {
        &self.ids[chunk as usize]
    }

    /// What a start of this function reads.
    pub(super) fn set(&self, function: usize) -> &Rc<[Chunk]> {
        &self.sets[function]
    }

    /// Functions there are.
    pub(super) fn functions(&self) -> usize {
        self.sets.len()
    }

    /// Chunks there are.
    pub(super) fn chunks(&self) -> usize {
        self.ids.len()
    }

    /// A new version of some function: `fresh` of its own chunks are new. Returns those.
    pub(super) fn deploy(&mut self, fresh: f64) -> Vec<Chunk> {
        let functions = u32::try_from(self.sets.len()).expect("at most a few million functions");
        let function = self.random.below(functions) as usize;
        let mut set = self.sets[function].to_vec();
        let mut new = Vec::new();
        for place in self.base_chunks..set.len() {
            // at least one: a version without any new chunk is no load
            if self.random.unit() < fresh || (new.is_empty() && place + 1 == set.len()) {
                set[place] = self.chunk();
                new.push(set[place]);
            }
        }
        self.sets[function] = set.into();
        new
    }
}

/// Somebody asks for a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Invocation {
    pub(super) function: u32,
    /// Seconds it runs.
    pub(super) run_s: f64,
    /// How often it was asked for before.
    pub(super) attempt: u32,
}

/// Who asks when, drawn from a described mix.
#[derive(Debug)]
pub(super) struct Mix {
    load: Load,
    popularity: Zipf,
    run: LogNormal,
    random: Random,
}

impl Mix {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let load = scenario.load.clone();
        Self {
            popularity: Zipf::new(load.functions, load.zipf),
            run: LogNormal::new(load.run_s, load.run_p99_s, AT_P99),
            random: Random::stream(scenario.run.seed, 2),
            load,
        }
    }

    /// Seconds until the next invocation, and which; `None` where nobody ever asks.
    pub(super) fn next(&mut self) -> Option<(f64, Invocation)> {
        if self.load.invocations_per_s <= 0.0 {
            return None;
        }
        let after = self.random.exponential(1.0 / self.load.invocations_per_s);
        let function = u32::try_from(self.popularity.draw(&mut self.random)).expect("a rank below a u32");
        Some((after, self.invocation(function)))
    }

    /// An invocation of this function.
    pub(super) fn invocation(&mut self, function: u32) -> Invocation {
        Invocation { function, run_s: self.run.draw(&mut self.random), attempt: 0 }
    }

    /// The first time each cron function is invoked, in seconds: half a period from the
    /// beginning, spread.
    pub(super) fn cron(&mut self) -> Vec<(f64, u32)> {
        let (period, spread) = (self.load.cron_period_s, self.load.cron_spread_s);
        let first = self.load.functions;
        (first..first + self.load.cron_functions)
            .map(|function| ((period / 2.0 + spread * self.random.unit()) % period, function))
            .collect()
    }

    /// Seconds until the next new version; `None` where nobody ever pushes.
    pub(super) fn next_deploy(&mut self) -> Option<f64> {
        let rate = self.load.deploys_per_s;
        (rate > 0.0).then(|| self.random.exponential(1.0 / rate))
    }
}
