//! Memory of a sandbox as a function of its invocations: a robust line through peaks.
//!
//! A point of the fit is the *peak* of one sandbox while the most invocations it ever had at
//! once was `level`. Peaks, because a limit must hold at the worst moment; the highest number
//! so far and not the present one, because many heaps grow with the load and never shrink, and
//! would make few invocations look as large as many. Of the sandboxes at a level the upper
//! quartile counts, and the line through the levels is that of Theil and Sen (weighted median
//! of the slopes of all pairs), which up to a quarter of wild points do not move.
//!
//! Forgetting: a level keeps its newest points; a point follows its sandbox down after two
//! windows in which the level was reached again and less memory was needed; weights halve with
//! age. A sandbox that grows window after window without more invocations leaks: it teaches
//! nothing until it stops, or the line would promise that every invocation needs that much.
//!
//! Used by the estimator.

use super::Confidence;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Sandboxes followed at once; beyond, new ones are not.
const MOST_SANDBOXES: usize = 4096;
/// Points kept per level: enough for a quartile, few enough to follow a change.
const POINTS: usize = 8;
/// Samples after which a point weighs no more.
const FULL_WEIGHT: u32 = 8;
/// A window of observation. Longer than a collector's cycle, so that its lowest value is what
/// the program really holds.
const WINDOW: Duration = Duration::from_secs(60);
/// Windows in a row that must rise for a leak.
const LEAK_WINDOWS: u32 = 5;
/// By how much they must rise together, in percent, to be more than chance.
const LEAK_PERCENT: u64 = 3;
/// Age at which a point counts half beside a new one.
const HALF_LIFE: Duration = Duration::from_secs(1800);
/// More bytes than any machine has.
const ABSURD_BYTES: u64 = 1 << 50;
/// More invocations than any sandbox has.
const ABSURD_IN_FLIGHT: usize = 1 << 16;

/// The line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    pub(super) base: u64,
    pub(super) increment: u64,
    pub(super) confidence: Confidence,
    /// Highest level seen.
    pub(super) highest: usize,
    /// Levels that the line goes through; less than two give only a bound.
    pub(super) levels: usize,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    sandbox: u64,
    level: usize,
    bytes: u64,
    samples: u32,
    at: Instant,
}

/// What is remembered of a living sandbox.
#[derive(Debug)]
struct Track {
    level: usize,
    window_begun: Instant,
    /// Peak of this window and of the one before.
    peaks: [u64; 2],
    /// Lowest of this window, and of the one before.
    troughs: [u64; 2],
    /// Whether the level was reached in this window and in the one before.
    reached: [bool; 2],
    /// Windows in a row whose lowest rose, with when it began, and lowest and peak before.
    rising: u32,
    rise: (Instant, u64, u64),
    /// Lowest of the last window that rose.
    risen_to: u64,
}

#[derive(Debug, Default)]
pub(super) struct MemoryModel {
    tracks: HashMap<u64, Track>,
    /// By bucket of levels; see [`bucket`].
    points: BTreeMap<usize, Vec<Point>>,
    newest: Option<Instant>,
}

impl MemoryModel {
    /// Takes a sample in. Whether it made sense.
    pub(super) fn observe(&mut self, sandbox: u64, in_flight: usize, bytes: u64, now: Instant) -> bool {
        let known = self.tracks.contains_key(&sandbox);
        let room = known || self.tracks.len() < MOST_SANDBOXES;
        if bytes == 0 || bytes > ABSURD_BYTES || in_flight > ABSURD_IN_FLIGHT || !room {
            return false;
        }
        self.newest = Some(self.newest.map_or(now, |newest| newest.max(now)));
        let track = self.tracks.entry(sandbox).or_insert_with(|| Track::new(in_flight, bytes, now));
        if in_flight > track.level {
            *track = Track::new(in_flight, bytes, now);
        }
        let learned = track.observe(in_flight, bytes, now);
        let level = track.level;
        self.learn(Point { sandbox, level, bytes, samples: 1, at: now }, learned);
        true
    }

    pub(super) fn forget(&mut self, sandbox: u64) {
        self.tracks.remove(&sandbox);
    }

    fn learn(&mut self, new: Point, learned: Learned) {
        let points = self.points.entry(bucket(new.level)).or_default();
        let own = points.iter_mut().find(|p| p.sandbox == new.sandbox && p.level == new.level);
        match (own, learned) {
            (Some(point), Learned::Set(bytes)) => {
                point.bytes = bytes;
                point.at = new.at;
            }
            (Some(point), Learned::AtLeast(bytes)) => {
                point.bytes = point.bytes.max(bytes);
                point.samples = point.samples.saturating_add(1);
                point.at = new.at;
            }
            (None, Learned::Set(bytes) | Learned::AtLeast(bytes)) => {
                if points.len() == POINTS
                    && let Some(oldest) = (0..POINTS).min_by_key(|index| points[*index].at)
                {
                    points.swap_remove(oldest);
                }
                points.push(Point { bytes, ..new });
            }
            (_, Learned::Nothing) => {}
        }
        if points.is_empty() {
            self.points.remove(&bucket(new.level));
        }
    }

    /// Growth of the worst leaking sandbox, in bytes per second.
    pub(super) fn leak_bytes_per_s(&self) -> u64 {
        self.tracks.values().filter_map(Track::leak_bytes_per_s).max().unwrap_or(0)
    }

    /// The highest level whose peaks, as they were seen, stay within so many bytes.
    pub(super) fn highest_within(&self, bytes: u64) -> usize {
        let fits = |points: &&Vec<Point>| representative(points).is_some_and(|point| point.bytes <= bytes);
        self.points.values().rev().find(fits).and_then(|points| representative(points)).map_or(0, |p| p.level)
    }

    /// The line through what was seen; zeros where nothing was.
    pub(super) fn fit(&self) -> Fit {
        let all: Vec<Weighted> = self.points.values().filter_map(|points| self.weigh(points)).collect();
        let highest = self.points.values().flatten().map(|point| point.level).max().unwrap_or(0);
        let loaded = all.iter().filter(|point| point.x > 0.0).count();
        // the first invocation also pays for what is loaded late, so an empty sandbox is left
        // out as soon as there is enough without it
        let chosen = if loaded >= 3 { all[all.len() - loaded..].to_vec() } else { all };
        let (base, increment) = match chosen.as_slice() {
            [] => (0.0, 0.0),
            [only] if only.x > 0.0 => (only.y / (only.x + 1.0), only.y / (only.x + 1.0)),
            [only] => (only.y, 0.0),
            several => line(several),
        };
        let often = chosen.iter().filter(|point| point.samples >= 3).count();
        let confidence = match (chosen.len(), loaded) {
            (0, _) => Confidence::None,
            (_, 2..) if often >= 2 => Confidence::Good,
            _ => Confidence::Low,
        };
        Fit { base: whole(base), increment: whole(increment), confidence, highest, levels: chosen.len() }
    }

    fn weigh(&self, points: &[Point]) -> Option<Weighted> {
        let point = representative(points)?;
        let samples: u32 = points.iter().map(|p| p.samples.min(FULL_WEIGHT)).sum();
        let newest = points.iter().map(|p| p.at).max()?;
        let age = self.newest.map_or(Duration::ZERO, |now| now.saturating_duration_since(newest));
        let half_lives = age.as_secs_f64() / HALF_LIFE.as_secs_f64();
        let weight = f64::from(samples.min(4 * FULL_WEIGHT)) * (-half_lives).exp2().max(1e-6);
        #[expect(clippy::cast_precision_loss, reason = "below 2^50, as observed")]
        Some(Weighted { x: point.level as f64, y: point.bytes as f64, weight, samples })
    }
}

/// What a sample says about its sandbox's point.
#[derive(Debug, Clone, Copy)]
enum Learned {
    Nothing,
    AtLeast(u64),
    Set(u64),
}

impl Track {
    fn new(level: usize, bytes: u64, now: Instant) -> Self {
        Self {
            level,
            window_begun: now,
            peaks: [bytes; 2],
            troughs: [bytes; 2],
            reached: [false; 2],
            rising: 0,
            rise: (now, bytes, bytes),
            risen_to: bytes,
        }
    }

    fn observe(&mut self, in_flight: usize, bytes: u64, now: Instant) -> Learned {
        let ended = now.saturating_duration_since(self.window_begun) >= WINDOW;
        let learned = if ended { self.end_window(bytes, now) } else { Learned::Nothing };
        self.peaks[0] = self.peaks[0].max(bytes);
        self.troughs[0] = self.troughs[0].min(bytes);
        self.reached[0] |= in_flight == self.level;
        match learned {
            Learned::Nothing if !self.leaks() => Learned::AtLeast(bytes),
            other => other,
        }
    }

    /// Turns to the next window, which begins with this sample.
    fn end_window(&mut self, bytes: u64, now: Instant) -> Learned {
        let [peak, peak_before] = self.peaks;
        let [trough, trough_before] = self.troughs;
        let leaked = self.leaks();
        if trough > trough_before {
            if self.rising == 0 {
                self.rise = (self.window_begun, trough_before, peak_before);
            }
            self.rising = self.rising.saturating_add(1);
            self.risen_to = trough;
        } else {
            self.rising = 0;
        }
        let learned = if self.leaks() && !leaked {
            // what it seemed to need since the rise began was the leak
            Learned::Set(self.rise.2)
        } else if self.rising == 0 && self.reached == [true; 2] {
            Learned::Set(peak.max(peak_before).max(bytes))
        } else {
            Learned::Nothing
        };
        self.window_begun = now;
        self.peaks = [bytes, peak];
        self.troughs = [bytes, trough];
        self.reached = [false, self.reached[0]];
        learned
    }

    /// Whether the windows that ended so far are those of a leak.
    fn leaks(&self) -> bool {
        let (_, from, _) = self.rise;
        self.rising >= LEAK_WINDOWS && self.risen_to > from.saturating_add(from / 100 * LEAK_PERCENT)
    }

    fn leak_bytes_per_s(&self) -> Option<u64> {
        let (begun, from, _) = self.rise;
        let seconds = self.window_begun.saturating_duration_since(begun).as_secs();
        self.leaks().then(|| self.risen_to.saturating_sub(from) / seconds.max(1))
    }
}

/// Levels share a bucket from 17 on, four to a doubling, so that there are never many.
fn bucket(level: usize) -> usize {
    if level <= 16 {
        return level;
    }
    let doublings = usize::try_from(level.ilog2()).unwrap_or(0);
    let quarter = (level >> (doublings - 2)) & 3;
    // 16 itself is the first quarter of its doubling
    17 + (doublings - 4) * 4 + quarter
}

/// The upper quartile of a level's points.
fn representative(points: &[Point]) -> Option<Point> {
    let mut sorted = points.to_vec();
    sorted.sort_by_key(|point| point.bytes);
    sorted.get((sorted.len() * 3).div_ceil(4).saturating_sub(1)).copied()
}

#[derive(Debug, Clone, Copy)]
struct Weighted {
    x: f64,
    y: f64,
    weight: f64,
    samples: u32,
}

/// Base and increment of at least two points with different `x`.
fn line(points: &[Weighted]) -> (f64, f64) {
    let mut slopes = Vec::new();
    for (index, one) in points.iter().enumerate() {
        for other in &points[index + 1..] {
            let run = other.x - one.x;
            if run > 0.0 {
                slopes.push(((other.y - one.y) / run, one.weight * other.weight * run));
            }
        }
    }
    let increment = weighted_quantile(&mut slopes, 0.5).max(0.0);
    let mut bases: Vec<_> = points.iter().map(|p| (p.y - increment * p.x, p.weight)).collect();
    (weighted_quantile(&mut bases, 0.75).max(0.0), increment)
}

/// The value below which lies this share of the weight; 0 of nothing.
fn weighted_quantile(values: &mut [(f64, f64)], share: f64) -> f64 {
    values.sort_by(|one, other| one.0.total_cmp(&other.0));
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    for (value, weight) in values.iter() {
        below += weight;
        if below >= total * share {
            return *value;
        }
    }
    values.last().map_or(0.0, |(value, _)| *value)
}

fn whole(bytes: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a line through values below 2^50, cut at zero"
    )]
    let whole = bytes.clamp(0.0, 9e15) as u64;
    whole
}
