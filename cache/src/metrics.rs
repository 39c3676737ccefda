//! Counters and latency histograms, per tier and mode: a single histogram over all reads
//! would hide the modes (ATC'23 section 5.1).
//!
//! Invariants: recording is lock-free and allocates nothing; memory is constant. Times are
//! microseconds, sizes bytes.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per power of two: a quantile is at most 1/8 above the true value.
const SUB_BUCKETS: u64 = 8;
const BUCKETS: usize = 8 * 33;

/// Where a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Plaintext in memory.
    Memory,
    /// Sealed on local SSD.
    Ssd,
    /// Sealed in the remote fleet.
    L2,
    /// The store of record.
    Origin,
}

impl Source {
    /// All sources, nearest first.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Ssd, Self::L2, Self::Origin];

    /// Name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Ssd => "ssd",
            Self::L2 => "l2",
            Self::Origin => "origin",
        }
    }

    /// The source that a tier of this name is.
    #[must_use]
    pub fn of_tier(name: &str) -> Self {
        if name == "ssd" { Self::Ssd } else { Self::L2 }
    }
}

/// A latency histogram in microseconds, log-linear.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64; BUCKETS]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

fn bucket_of(micros: u64) -> usize {
    let value = micros.min(u64::from(u32::MAX));
    let bucket = if value < SUB_BUCKETS {
        value
    } else {
        let power = u64::from(value.ilog2());
        (power - 2) * SUB_BUCKETS + ((value >> (power - 3)) - SUB_BUCKETS)
    };
    usize::try_from(bucket).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let (power, sub) = (bucket / SUB_BUCKETS + 2, bucket % SUB_BUCKETS);
    ((SUB_BUCKETS + sub + 1) << (power - 3)) - 1
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
        self.max.fetch_max(micros, Ordering::Relaxed);
    }

    /// The figures so far.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let quantile = |per_mille: u64| {
            let rank = (count * per_mille).div_ceil(1000).max(1);
            let mut seen = 0;
            for (bucket, &n) in counts.iter().enumerate() {
                seen += n;
                if seen >= rank {
                    return upper_bound(bucket).min(max);
                }
            }
            max
        };
        HistogramSnapshot {
            count,
            sum_us: self.sum.load(Ordering::Relaxed),
            p50_us: quantile(500),
            p90_us: quantile(900),
            p99_us: quantile(990),
            max_us: max,
        }
    }
}

/// What a histogram holds, in microseconds; quantiles are upper bounds of their bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the field names say it: statistic and unit")]
pub struct HistogramSnapshot {
    pub count: u64,
    pub sum_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// What one source did.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    /// Chunks that it gave.
    pub hits: AtomicU64,
    /// Stored bytes of those.
    pub bytes: AtomicU64,
    /// Times it did not have what was asked.
    pub misses: AtomicU64,
    /// Times it failed.
    pub errors: AtomicU64,
    /// Wrong bytes it gave; none were used.
    pub corrupt: AtomicU64,
    /// Chunks given back to it after a miss or a wrong copy.
    pub filled: AtomicU64,
    /// Time of the hits, asked to usable.
    pub latency: Histogram,
}

/// What one source did, as figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in SourceMetrics")]
pub struct SourceSnapshot {
    pub source: Source,
    pub hits: u64,
    pub bytes: u64,
    pub misses: u64,
    pub errors: u64,
    pub corrupt: u64,
    pub filled: u64,
    pub latency: HistogramSnapshot,
}

/// All counters of a read path.
#[derive(Debug, Default)]
pub struct Metrics {
    sources: [SourceMetrics; 4],
    /// Chunk fetches that joined one under way.
    pub joined: AtomicU64,
    /// Chunks asked for ahead of demand.
    pub prefetched: AtomicU64,
    /// Reads that ended in an error.
    pub failed_reads: AtomicU64,
}

impl Metrics {
    /// The counters of a source.
    #[must_use]
    pub const fn source(&self, source: Source) -> &SourceMetrics {
        &self.sources[source as usize]
    }

    /// All figures, nearest source first.
    #[must_use]
    pub fn snapshot(&self) -> MetricsSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sources = Source::ALL.map(|source| {
            let of = self.source(source);
            SourceSnapshot {
                source,
                hits: load(&of.hits),
                bytes: load(&of.bytes),
                misses: load(&of.misses),
                errors: load(&of.errors),
                corrupt: load(&of.corrupt),
                filled: load(&of.filled),
                latency: of.latency.snapshot(),
            }
        });
        MetricsSnapshot {
            sources,
            joined: load(&self.joined),
            prefetched: load(&self.prefetched),
            failed_reads: load(&self.failed_reads),
        }
    }
}

/// All figures of a read path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in Metrics")]
pub struct MetricsSnapshot {
    pub sources: [SourceSnapshot; 4],
    pub joined: u64,
    pub prefetched: u64,
    pub failed_reads: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.max_us), (10_000, 10_000));
        for (got, want) in [(snapshot.p50_us, 5000), (snapshot.p90_us, 9000), (snapshot.p99_us, 9900)] {
            assert!(got >= want && got <= want + want / 8, "{got} for {want}");
        }
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..5000).chain([1 << 20, (1 << 20) + 7, u64::from(u32::MAX)]) {
            let bucket = bucket_of(value);
            assert!(upper_bound(bucket) >= value, "{value}");
            assert!(bucket == 0 || upper_bound(bucket - 1) < value, "{value}");
        }
        assert_eq!(bucket_of(u64::MAX), bucket_of(u64::from(u32::MAX)));
    }
}
