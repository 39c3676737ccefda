//! A slow line to the store, so that measurements of cold starts are honest: a time to the
//! first byte for every call, and one bandwidth that all calls share.

use crate::intercept::{Answer, Call, Interceptor};
use crate::store::Result;
use async_trait::async_trait;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a line is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Time to the first byte at the median.
    pub median: Duration,
    /// Spread: the standard deviation of the logarithm of the time; 0 for a constant.
    pub sigma: f64,
    /// Bytes per second of all calls together.
    pub bytes_per_second: u64,
}

impl Line {
    /// A store in the same network: 20 ms to the first byte, 100 MB/s.
    pub const NEAR: Self =
        Self { median: Duration::from_millis(20), sigma: 0.0, bytes_per_second: 100_000_000 };

    /// A machine of the same rack: 0.5 ms and 10 Gb/s.
    pub const LAN: Self =
        Self { median: Duration::from_micros(500), sigma: 0.1, bytes_per_second: 1_250_000_000 };

    /// S3 as Lambda's authors saw it (ATC'23, section 4.2): log-normal with a median of 36 ms
    /// and 175 ms at p99.9, whence σ = ln(175/36) / 3.09; 100 MB/s.
    pub const S3: Self =
        Self { median: Duration::from_millis(36), sigma: 0.5117, bytes_per_second: 100_000_000 };
}

impl FromStr for Line {
    type Err = String;

    /// `lan`, `near`, `s3`, or milliseconds to the first byte and megabytes per second: `20,100`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "lan" => return Ok(Self::LAN),
            "near" => return Ok(Self::NEAR),
            "s3" => return Ok(Self::S3),
            _ => {}
        }
        let refused =
            || format!("{text:?} is not a line: use lan, near, s3, or MILLISECONDS,MEGABYTES as in 20,100");
        let (wait, bandwidth) = text.split_once(',').ok_or_else(refused)?;
        let wait: u32 = wait.parse().ok().filter(|&wait| wait <= 10_000).ok_or_else(refused)?;
        let bandwidth: u32 = bandwidth.parse().ok().filter(|&bandwidth| bandwidth > 0).ok_or_else(refused)?;
        Ok(Self {
            median: Duration::from_millis(wait.into()),
            sigma: 0.0,
            bytes_per_second: u64::from(bandwidth) * 1_000_000,
        })
    }
}

/// Delays calls as the line would.
#[derive(Debug)]
pub struct Throttle {
    line: Line,
    /// When the line has sent all that was asked so far.
    free: Mutex<Option<Instant>>,
}

/// A number with standard normal distribution, by Box and Muller.
fn normal() -> f64 {
    let unit =
        || getrandom::u32().map_or(0.5, |random| (f64::from(random) + 1.0) / (f64::from(u32::MAX) + 2.0));
    (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()
}

impl Throttle {
    /// With an idle line.
    #[must_use]
    pub const fn new(line: Line) -> Self {
        Self { line, free: Mutex::new(None) }
    }

    /// When `bytes` more will have passed.
    fn pass(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        let end = start + Duration::from_secs_f64(bytes as f64 / self.line.bytes_per_second.max(1) as f64);
        *free = Some(end);
        end
    }
}

#[async_trait]
impl Interceptor for Throttle {
    async fn around<A, T, F>(&self, call: &Call, attempt: A) -> Result<T>
    where
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<T>> + Send,
        T: Answer,
    {
        let begun = Instant::now();
        if call.sent > 0 {
            tokio::time::sleep_until(self.pass(call.sent)).await;
        }
        let first_byte = self.line.median.mul_f64((self.line.sigma * normal()).exp());
        let answer = attempt().await;
        // the real store's own time is part of it, not on top
        tokio::time::sleep_until(begun + first_byte).await;
        if let Ok(answer) = &answer {
            tokio::time::sleep_until(self.pass(answer.received())).await;
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::Intercepted;
    use crate::memory::MemoryStore;
    use crate::store::Origin;
    use image_format::names::ObjectName;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn calls_share_the_line_but_not_the_latency() {
        let store = Arc::new(MemoryStore::new());
        store.put(&ObjectName::RootTable, vec![0; 1_000_000].into()).await.unwrap();
        let slow = Intercepted::new(store, Throttle::new(Line::NEAR));
        let begun = Instant::now();
        let reads = (0..10).map(|_| slow.get(&ObjectName::RootTable, 2_000_000));
        for read in futures_util::future::join_all(reads).await {
            assert_eq!(read.unwrap().len(), 1_000_000);
        }
        // 20 ms together, then ten times 10 ms one after another
        let took = begun.elapsed().as_millis();
        assert!((115..=130).contains(&took), "{took} ms");
    }

    #[test]
    fn lines_by_name_and_by_numbers() {
        assert_eq!("near".parse(), Ok(Line::NEAR));
        assert_eq!("20,100".parse(), Ok(Line::NEAR));
        for bad in ["", "far", "20", "20,0", "-1,5", "99999,1", "1,2,3"] {
            assert!(bad.parse::<Line>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_published_tail_is_met() {
        let line = Line::S3;
        let tail = line.median.as_secs_f64() * (3.0902 * line.sigma).exp();
        assert!((tail - 0.175).abs() < 0.001, "{tail}");
        let mean: f64 = (0..10_000).map(|_| normal()).sum::<f64>() / 10_000.0;
        assert!(mean.abs() < 0.1, "{mean}");
    }
}
