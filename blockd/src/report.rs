//! What a run cost: for people and for programs.

use cache::read_path::{ImageStats, SourceStats};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The report of `blockd run --stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Name or digest as asked for.
    pub image: String,
    /// What was fetched for it, by tier.
    #[serde(flatten)]
    pub stats: ImageStats,
    /// Seconds until the image was mounted.
    pub mounted_seconds: f64,
    /// Seconds until the first byte of output; none was seen with a terminal.
    pub first_output_seconds: Option<f64>,
    /// Seconds until the command had ended.
    pub total_seconds: f64,
    /// The command's exit code.
    pub exit_code: u8,
}

/// Seconds as JSON numbers.
#[must_use]
pub const fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageStats { image_chunks, image_bytes, .. } = self.stats;
        let share = |bytes: u64| 100.0 * bytes as f64 / (image_bytes.max(1)) as f64;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, of: SourceStats| {
            writeln!(
                f,
                "  {what:<20} {:>6} chunks  {:>10}  {:>5.1} %",
                of.chunks,
                human(of.bytes),
                share(of.bytes)
            )
        };
        writeln!(f, "image {}: {image_chunks} chunks, {} stored", self.image, human(image_bytes))?;
        line(f, "demanded", self.stats.demanded)?;
        line(f, "fetched ahead", self.stats.prefetched)?;
        line(f, "  not used", self.stats.prefetched_unused)?;
        line(f, "from ssd", self.stats.from_ssd)?;
        line(f, "from l2", self.stats.from_l2)?;
        line(f, "from origin", self.stats.from_origin)?;
        write!(f, "  mounted after {:.3} s", self.mounted_seconds)?;
        if let Some(first) = self.first_output_seconds {
            write!(f, ", first output after {first:.3} s")?;
        }
        write!(f, ", ended after {:.3} s with {}", self.total_seconds, self.exit_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, want) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(human(bytes), want);
        }
    }
}
