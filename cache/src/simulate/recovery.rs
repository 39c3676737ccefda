//! When a fleet has come back from an event, read off the series.

use super::outcome::{Point, Reads, Recovery, Starts};
use super::record::name;
use super::scenario::Scenario;

/// Seconds that have to be good for a recovery: shorter, and a lucky moment counts.
const WINDOW_S: f64 = 10.0;
/// Part of reads that are hits, and of starts that succeed.
const GOOD: f64 = 0.99;

/// The recovery from each event of the scenario.
pub(super) fn of(scenario: &Scenario, points: &[Point]) -> Vec<Recovery> {
    let bucket = scenario.run.bucket_s;
    let index = |at_s: f64| points.iter().take_while(|point| point.at_s + 1e-9 < at_s).count();
    let window = points.iter().take_while(|point| point.at_s + 1e-9 < WINDOW_S).count().max(1);
    let recovery = |event: &super::scenario::Event| {
        let later = scenario.events.iter().map(|other| other.at_s).filter(|&at| at > event.at_s);
        let end = index(later.fold(f64::INFINITY, f64::min));
        let from = index(event.at_s).min(end);
        let after = |good: fn(&[Point]) -> bool| {
            let found = first(&points[from..end], window, good)?;
            Some(bucket * found as f64)
        };
        Recovery {
            event: name(event.what),
            at_s: event.at_s,
            hits_after_s: after(hits_are_good),
            starts_after_s: after(starts_are_good),
        }
    };
    scenario.events.iter().map(recovery).collect()
}

/// The first point from which a window is good, and all that follows on the whole.
fn first(points: &[Point], window: usize, good: fn(&[Point]) -> bool) -> Option<usize> {
    let last = points.len().checked_sub(window)?;
    (0..=last).find(|&at| good(&points[at..at + window]) && good(&points[at..]))
}

fn hits_are_good(points: &[Point]) -> bool {
    let mut reads = Reads::default();
    points.iter().for_each(|point| reads.add(&point.reads));
    reads.total() > 0 && reads.hit_rate() >= GOOD
}

fn starts_are_good(points: &[Point]) -> bool {
    let sum = |count: fn(&Starts) -> u64| points.iter().map(|point| count(&point.starts)).sum::<u64>();
    let (asked, lost) = (sum(|starts| starts.asked), sum(Starts::unsuccessful));
    lost as f64 <= (1.0 - GOOD) * asked as f64
}
