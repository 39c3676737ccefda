//! Prometheus text: the same few forms for every daemon. Names and units of all metrics:
//! docs/operations.md, "Metrics".

use crate::metrics::HistogramSnapshot;
use std::fmt::{Display, Write};

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// A text under way.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a metric: its name, `counter`, `gauge` or `summary`, and what it means.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample with one label.
    pub fn sample(&mut self, name: &str, (label, of): (&str, &str), value: impl Display) {
        let _ = writeln!(self.0, "{name}{{{label}=\"{}\"}} {value}", escaped(of));
    }

    /// A metric of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// The samples of a summary in seconds with one label.
    pub fn summary(&mut self, name: &str, (label, of): (&str, &str), latency: &HistogramSnapshot) {
        let of = escaped(of);
        for (quantile, micros) in [("0.5", latency.p50_us), ("0.9", latency.p90_us), ("0.99", latency.p99_us)]
        {
            let seconds = micros as f64 / 1e6;
            let _ = writeln!(self.0, "{name}{{{label}=\"{of}\",quantile=\"{quantile}\"}} {seconds}");
        }
        let _ = writeln!(self.0, "{name}_sum{{{label}=\"{of}\"}} {}", latency.sum_us as f64 / 1e6);
        let _ = writeln!(self.0, "{name}_count{{{label}=\"{of}\"}} {}", latency.count);
    }

    /// The finished text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
