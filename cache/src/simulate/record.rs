//! What is counted while the simulation runs, in bounded memory: phases between the events,
//! points of a series, origin requests of every second.

use super::histogram::Histogram;
use super::l2::Nodes;
use super::outcome::{Nodes as NodesOutcome, Outcome, Phase, Point, Reads, Starts};
use super::random::{nanos, seconds};
use super::scenario::{Scenario, What};
use super::{Nanos, recovery};

/// Where a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Local,
    Nodes,
    Origin,
}

/// Why no sandbox was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many starts on the worker.
    Limit,
    /// No room on the worker.
    Full,
}

/// What is read off at the end of a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    pub(super) starting: u32,
    pub(super) busy: u32,
    pub(super) origin_line: Nanos,
}

/// Counters of a span of time.
#[derive(Debug, Clone, Default)]
struct Counts {
    reads: Reads,
    starts: Starts,
    origin_requests: u64,
}

#[derive(Debug, Default)]
struct Span {
    name: String,
    from: Nanos,
    counts: Counts,
    start: Histogram,
    nodes: Histogram,
    origin: Histogram,
}

/// Counts everything.
#[derive(Debug)]
pub(super) struct Recorder {
    happenings: u64,
    point: Counts,
    points: Vec<Point>,
    bucket: Nanos,
    spans: Vec<Span>,
    /// Index of the span at hand; the others begin later or are over.
    at: usize,
    /// Origin requests of every second.
    seconds: Vec<u32>,
}

/// What an event is called in reports.
pub(super) fn name(what: What) -> String {
    match what {
        What::Wipe => "wipe".into(),
        What::LoseZone(zone) => format!("lose zone {zone}"),
        What::LoseNode(node) => format!("lose node {node}"),
        What::AddNodes(count) => format!("add {count} nodes"),
    }
}

impl Recorder {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let run = &scenario.run;
        let mut begins = vec![(0, if run.warm_up_s > 0.0 { "warm-up" } else { "steady" }.to_string())];
        if run.warm_up_s > 0.0 && run.warm_up_s < run.duration_s {
            begins.push((nanos(run.warm_up_s), "steady".into()));
        }
        begins.extend(scenario.events.iter().map(|event| (nanos(event.at_s), name(event.what))));
        begins.sort_by_key(|&(from, _)| from);
        let span = |(from, name)| Span { name, from, ..Span::default() };
        Self {
            happenings: 0,
            point: Counts::default(),
            points: Vec::new(),
            bucket: nanos(run.bucket_s),
            spans: begins.into_iter().map(span).collect(),
            at: 0,
            seconds: Vec::new(),
        }
    }

    /// Something happens at `now`: the span it belongs to is at hand from here on.
    pub(super) fn happened(&mut self, now: Nanos) {
        self.happenings += 1;
        while self.spans.get(self.at + 1).is_some_and(|next| next.from <= now) {
            self.at += 1;
        }
    }

    fn count(&mut self, count: impl Fn(&mut Counts)) {
        count(&mut self.point);
        count(&mut self.spans[self.at].counts);
    }

    pub(super) fn served(&mut self, source: Source, took: Nanos, readers: u64) {
        self.count(|counts| match source {
            Source::Local => counts.reads.local += readers,
            Source::Nodes => counts.reads.nodes += readers,
            Source::Origin => counts.reads.origin += readers,
        });
        let span = &mut self.spans[self.at];
        match source {
            Source::Local => {}
            Source::Nodes => span.nodes.record_many(took, readers),
            Source::Origin => span.origin.record_many(took, readers),
        }
    }

    pub(super) fn failed_reads(&mut self, readers: u64) {
        self.count(|counts| counts.reads.failed += readers);
    }

    pub(super) fn origin_asked(&mut self, now: Nanos) {
        self.count(|counts| counts.origin_requests += 1);
        let second = usize::try_from(now / 1_000_000_000).expect("at most a million seconds");
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
    }

    pub(super) fn invoked(&mut self, attempt: u32) {
        self.count(
            |counts| if attempt == 0 { counts.starts.invocations += 1 } else { counts.starts.retried += 1 },
        );
    }

    pub(super) fn reused(&mut self) {
        self.count(|counts| counts.starts.reused += 1);
    }

    pub(super) fn start_asked(&mut self) {
        self.count(|counts| counts.starts.asked += 1);
    }

    pub(super) fn refused(&mut self, refused: Refused) {
        self.count(|counts| match refused {
            Refused::Limit => counts.starts.rejected += 1,
            Refused::Full => counts.starts.no_room += 1,
        });
    }

    pub(super) fn started(&mut self, took: Nanos) {
        self.count(|counts| counts.starts.completed += 1);
        self.spans[self.at].start.record(took);
    }

    pub(super) fn start_failed(&mut self) {
        self.count(|counts| counts.starts.failed += 1);
    }

    pub(super) fn lost(&mut self) {
        self.count(|counts| counts.starts.lost += 1);
    }

    /// A bucket is over.
    pub(super) fn bucket(&mut self, gauges: Gauges) {
        let counts = std::mem::take(&mut self.point);
        self.points.push(Point {
            at_s: seconds(self.bucket) * self.points.len() as f64,
            reads: counts.reads,
            starts: counts.starts,
            origin_requests: counts.origin_requests,
            starting: gauges.starting,
            busy: gauges.busy,
            origin_line_ms: 1000.0 * seconds(gauges.origin_line),
        });
    }

    pub(super) fn finish(self, scenario: Scenario, nodes: Option<&Nodes>, chunks: usize) -> Outcome {
        let ends: Vec<Nanos> = self.spans.iter().skip(1).map(|span| span.from).collect();
        let end = nanos(scenario.run.duration_s);
        let phase = |(span, to): (&Span, Nanos)| {
            let length = seconds(to.saturating_sub(span.from));
            let second = |at: Nanos| usize::try_from(at / 1_000_000_000).unwrap_or(usize::MAX);
            let last = second(to.saturating_sub(1)) + 1;
            let of_span = self.seconds.iter().take(last).skip(second(span.from));
            Phase {
                name: span.name.clone(),
                from_s: seconds(span.from),
                to_s: seconds(to),
                reads: span.counts.reads,
                starts: span.counts.starts,
                start_ms: span.start.summary(),
                nodes_ms: span.nodes.summary(),
                origin_ms: span.origin.summary(),
                origin_requests: span.counts.origin_requests,
                origin_mean_per_s: if length > 0.0 {
                    span.counts.origin_requests as f64 / length
                } else {
                    0.0
                },
                origin_max_per_s: of_span.copied().max().unwrap_or(0),
            }
        };
        let phases: Vec<Phase> = self.spans.iter().zip(ends.into_iter().chain([end])).map(phase).collect();
        let recoveries = recovery::of(&scenario, &self.points);
        Outcome {
            nodes: nodes.map(|nodes| NodesOutcome::of(nodes, scenario.run.duration_s)),
            chunks: chunks as u64,
            happenings: self.happenings,
            phases,
            recoveries,
            series: self.points,
            scenario,
        }
    }
}
