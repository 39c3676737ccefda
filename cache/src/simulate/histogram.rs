//! Percentiles of many durations in bounded memory: buckets that grow with the value, 32 to
//! a power of two, so that a percentile is right within 3 %.

use super::Nanos;
use super::random::seconds;
use serde::Serialize;

/// Buckets per power of two, as a power of two.
const FINE: u32 = 5;

/// Durations counted by size.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

fn bucket(value: u64) -> usize {
    let power = value.max(1 << FINE).ilog2() - FINE;
    (power << FINE) as usize + usize::try_from(value >> power).expect("below 64")
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let power = (bucket >> FINE).saturating_sub(1);
    let fine = bucket - (power << FINE);
    u64::try_from(((u128::from(fine) + 1) << power) - 1).unwrap_or(u64::MAX)
}

impl Histogram {
    pub(super) fn record(&mut self, value: Nanos) {
        self.record_many(value, 1);
    }

    pub(super) fn record_many(&mut self, value: Nanos, times: u64) {
        let at = bucket(value);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += times;
        self.total += times;
    }

    /// The value that this part of all durations does not exceed, in milliseconds; 0 of none.
    fn percentile_ms(&self, part: f64) -> f64 {
        let wanted = (self.total as f64 * part).ceil().max(1.0);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return 1000.0 * seconds(upper(at));
            }
        }
        0.0
    }

    pub(super) fn summary(&self) -> Percentiles {
        Percentiles {
            count: self.total,
            p50_ms: self.percentile_ms(0.5),
            p90_ms: self.percentile_ms(0.9),
            p99_ms: self.percentile_ms(0.99),
        }
    }
}

/// Durations, summed up. Right within 3 %; 0 where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// Median in milliseconds.
    pub p50_ms: f64,
    /// 90th percentile in milliseconds.
    pub p90_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_its_bucket() {
        for value in (0..100_000).chain((0..64).flat_map(|n| [(1_u64 << n) - 1, 1 << n, (1 << n) + 1])) {
            let at = bucket(value);
            assert!(upper(at) >= value, "{value}");
            assert!(at == 0 || upper(at - 1) < value, "{value}");
            assert!(upper(at) as f64 <= value as f64 * 1.04 + 1.0, "{value}: {}", upper(at));
        }
    }

    #[test]
    fn percentiles_of_a_known_row() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(ms * 1_000_000));
        let summary = histogram.summary();
        assert_eq!(summary.count, 1000);
        for (got, want) in [(summary.p50_ms, 500.0), (summary.p90_ms, 900.0), (summary.p99_ms, 990.0)] {
            assert!((want..want * 1.04).contains(&got), "{got} for {want}");
        }
        assert_eq!(Histogram::default().summary(), Percentiles::default());
    }
}
