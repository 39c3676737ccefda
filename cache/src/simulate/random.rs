//! Chance from a seed: the generator and the distributions that the simulation draws from.
//!
//! Every purpose has a stream of its own, so that changing a limit does not change who
//! arrives when, and two runs differ only in what was changed.

use super::Nanos;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of one purpose.
    pub(super) fn stream(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        let product = u128::from(self.next()) * u128::from(end);
        u32::try_from(product >> 64).expect("below a number of 32 bits")
    }

    /// Exponentially distributed with this mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Normally distributed, mean 0 and deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A log-normal distribution by its median and one far percentile.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogNormal {
    median: f64,
    sigma: f64,
}

/// Deviations from the mean of a normal distribution at the 99th percentile.
pub(super) const AT_P99: f64 = 2.326_347_874;
/// The same at the 99.9th.
pub(super) const AT_P999: f64 = 3.090_232_306;

impl LogNormal {
    /// With this median, and `far` at so many deviations.
    pub(super) fn new(median: f64, far: f64, deviations: f64) -> Self {
        Self { median, sigma: (far / median).ln() / deviations }
    }

    pub(super) fn draw(self, random: &mut Random) -> f64 {
        self.median * (self.sigma * random.normal()).exp()
    }
}

/// Zipf's distribution over ranks.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `count` ranks, the first being the most popular.
    pub(super) fn new(count: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        for part in &mut cumulative {
            *part /= sum;
        }
        Self { cumulative }
    }

    /// A rank from 0.
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.cumulative.partition_point(|&part| part <= at).min(self.cumulative.len() - 1)
    }
}

/// Nanoseconds of so many seconds; never negative, at most a few hundred years.
pub(super) fn nanos(seconds: f64) -> Nanos {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; NaN is 0")]
    let nanos = (seconds * 1e9).round() as u64;
    nanos.min(u64::MAX / 4)
}

/// A part of a number, 0 to 1, rounded to the nearest.
pub(super) fn part(whole: u64, share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; NaN is 0")]
    let part = (whole as f64 * share).round() as u64;
    part.min(whole)
}

/// Seconds of so many nanoseconds.
pub(super) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributions_have_the_percentiles_they_were_given() {
        let mut random = Random::stream(1, 2);
        let origin = LogNormal::new(36.0, 175.0, AT_P999);
        let mut drawn: Vec<f64> = (0..200_000).map(|_| origin.draw(&mut random)).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((35.5..36.5).contains(&drawn[100_000]), "{}", drawn[100_000]);
        assert!((165.0..185.0).contains(&drawn[199_800]), "{}", drawn[199_800]);
        let mean = (0..200_000).map(|_| random.exponential(3.0)).sum::<f64>() / 200_000.0;
        assert!((2.95..3.05).contains(&mean), "{mean}");
        let zipf = Zipf::new(100, 1.0);
        let first = (0..100_000).filter(|_| zipf.draw(&mut random) == 0).count();
        assert!((18_800..19_700).contains(&first), "1 / H(100) is 19.28 %: {first}");
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}
