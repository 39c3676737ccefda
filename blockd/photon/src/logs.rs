//! What functions print: by invocation, in memory, bounded.
//!
//! Invariants: a function's lines take at most 1 MiB, an invocation's tail at most
//! [`TAIL_BYTES`]; the oldest go first; a line never belongs to two invocations; a sandbox that
//! prints faster than its [`Pace`] waits, and costs the others nothing.

use crate::invocation::{LogLine, RequestId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of lines kept for one function.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of an invocation's log that its caller may see (`X-Amz-Log-Result`).
pub const TAIL_BYTES: usize = 4096;
/// A longer line is cut into several.
const MOST_LINE_BYTES: usize = 256 * 1024;
/// What a line costs besides its text, about.
const LINE_OVERHEAD: usize = 128;

/// What a sandbox may print in a second, each line with [`LINE_OVERHEAD`]; that of one second may
/// come at once.
const PACE_BYTES: u32 = 4 << 20;
const BURST: Duration = Duration::from_secs(1);
/// So much is read without a look at the pace, or at what else there is to do.
const UNPACED_BYTES: usize = 16 << 10;

/// How fast one sandbox's output is read, over all of its streams. What is not read fills the
/// kernel's buffers, and then whoever writes waits.
#[derive(Debug, Default)]
pub struct Pace {
    /// When all that was read would have been, at an even pace.
    paid_until: Mutex<Option<Instant>>,
}

impl Pace {
    /// Pays for what was read, with a wait where that was too much; others run in any case.
    async fn pay(&self, bytes: usize) {
        let cost = BURST.mul_f64(bytes as f64 / f64::from(PACE_BYTES));
        let now = Instant::now();
        let ahead = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            let until = paid_until.unwrap_or(now).max(now) + cost;
            *paid_until = Some(until);
            until - now
        };
        match ahead.checked_sub(BURST) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => tokio::task::yield_now().await,
        }
    }
}

/// The lines of one function, newest last.
#[derive(Debug, Default)]
pub struct FunctionLog {
    lines: Mutex<(VecDeque<LogLine>, usize)>,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl FunctionLog {
    /// Adds a line, and lets go of the oldest.
    pub fn add(&self, sandbox: &str, request_id: Option<&RequestId>, text: String) {
        let line = LogLine {
            time_ms: now_ms(),
            request_id: request_id.map(|id| id.as_str().to_string()),
            sandbox: sandbox.to_string(),
            text,
        };
        let mut guard = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, bytes) = &mut *guard;
        *bytes += line.text.len() + LINE_OVERHEAD;
        lines.push_back(line);
        while *bytes > MOST_BYTES {
            let Some(oldest) = lines.pop_front() else { break };
            *bytes -= oldest.text.len() + LINE_OVERHEAD;
        }
    }

    /// The newest lines, oldest first, of at most `most` bytes of text.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<LogLine> {
        let guard = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = most;
        let mut taken: Vec<LogLine> = guard
            .0
            .iter()
            .rev()
            .take_while(|line| {
                let fits = line.text.len() <= left;
                left = left.saturating_sub(line.text.len());
                fits
            })
            .cloned()
            .collect();
        taken.reverse();
        taken
    }
}

/// The log of one invocation.
#[derive(Debug)]
pub struct InvocationLog {
    id: RequestId,
    function: Arc<FunctionLog>,
    tail: Mutex<VecDeque<u8>>,
    writers: AtomicUsize,
    closed: Notify,
}

/// A connection that writes to an invocation's log.
#[derive(Debug)]
pub struct Writer(Arc<InvocationLog>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_waiters();
    }
}

impl InvocationLog {
    /// An empty one.
    #[must_use]
    pub fn new(id: RequestId, function: Arc<FunctionLog>) -> Arc<Self> {
        Arc::new(Self {
            id,
            function,
            tail: Mutex::default(),
            writers: AtomicUsize::new(0),
            closed: Notify::new(),
        })
    }

    /// Adds a line that the sandbox printed.
    pub fn add(&self, sandbox: &str, text: String) {
        self.add_tail(&text);
        self.function.add(sandbox, Some(&self.id), text);
    }

    /// Adds a line to the invocation's tail only.
    pub fn add_tail(&self, text: &str) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(text.as_bytes());
        tail.push_back(b'\n');
        let over = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..over);
    }

    /// The end of the log.
    #[must_use]
    pub fn tail(&self) -> Bytes {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().copied().collect::<Vec<u8>>().into()
    }

    /// Counts a connection in.
    #[must_use]
    pub fn writer(self: &Arc<Self>) -> Writer {
        self.writers.fetch_add(1, Ordering::AcqRel);
        Writer(Arc::clone(self))
    }

    /// Waits until all connections are closed and read, at most `patience`.
    pub async fn settled(&self, patience: Duration) {
        let wait = async {
            loop {
                let closed = self.closed.notified();
                if self.writers.load(Ordering::Acquire) == 0 {
                    return;
                }
                closed.await;
            }
        };
        let _ = tokio::time::timeout(patience, wait).await;
    }
}

/// Reads lines until the end, at the sandbox's pace; bytes that are not UTF-8 are replaced, long
/// lines cut.
pub async fn read_lines(from: impl AsyncRead + Unpin, pace: Arc<Pace>, mut line: impl FnMut(String)) {
    let mut from = BufReader::new(from);
    let mut kept: Vec<u8> = Vec::new();
    let mut unpaid = 0;
    while let Ok(read) = from.fill_buf().await
        && !read.is_empty()
    {
        let end = read.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(read.len()).min(MOST_LINE_BYTES - kept.len());
        kept.extend_from_slice(&read[..taken]);
        let whole = end == Some(taken);
        from.consume(taken + usize::from(whole));
        if whole || kept.len() >= MOST_LINE_BYTES {
            line(String::from_utf8_lossy(&kept).trim_end_matches('\r').to_string());
            kept.clear();
            unpaid += LINE_OVERHEAD;
        }
        unpaid += taken;
        if unpaid >= UNPACED_BYTES {
            pace.pay(std::mem::take(&mut unpaid)).await;
        }
    }
    if !kept.is_empty() {
        line(String::from_utf8_lossy(&kept).into_owned());
    }
    // many short connections are as much work as a long one
    pace.pay(unpaid + LINE_OVERHEAD).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_first() {
        let log = FunctionLog::default();
        for n in 0..100 {
            log.add("s", None, format!("{n:03}{}", "x".repeat(32 * 1024)));
        }
        let kept = log.newest(usize::MAX);
        assert!(kept.len() < 33 && kept.last().unwrap().text.starts_with("099"));
        assert_eq!(log.newest(40_000).len(), 1);
    }

    #[test]
    fn a_tail_is_the_end() {
        let log = InvocationLog::new(RequestId::new(), Arc::default());
        log.add("s", "a".repeat(5000));
        log.add("s", "end".into());
        assert_eq!(log.tail().len(), TAIL_BYTES);
        assert!(log.tail().ends_with(b"a\nend\n"));
        assert_eq!(log.function.newest(1 << 20).len(), 2);
    }

    #[tokio::test]
    async fn lines_are_cut_and_odd_bytes_replaced() {
        let mut lines = Vec::new();
        let mut input = b"one\r\n\nt\xffo\n".to_vec();
        input.extend(vec![b'y'; MOST_LINE_BYTES + 5]);
        read_lines(&input[..], Arc::default(), |line| lines.push(line)).await;
        assert_eq!(&lines[..3], ["one", "", "t\u{fffd}o"]);
        assert_eq!((lines[3].len(), lines[4].as_str()), (MOST_LINE_BYTES, "yyyyy"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_prints_without_end_lets_others_run_and_is_slowed() {
        let (pace, lines) = (Arc::<Pace>::default(), AtomicUsize::new(0));
        let count = || lines.load(Ordering::Relaxed);
        let endless = || {
            read_lines(tokio::io::repeat(b'\n'), Arc::clone(&pace), |_| {
                lines.fetch_add(1, Ordering::Relaxed);
            })
        };
        let mut one = Box::pin(endless());
        assert!(futures_util::poll!(&mut one).is_pending());
        assert!((1..=UNPACED_BYTES).contains(&count()), "{} lines before others had a turn", count());
        drop(one);
        // as fast as it may however many streams it has
        let ten = futures_util::future::join_all((0..10).map(|_| endless()));
        let _ = tokio::time::timeout(Duration::from_secs(2), ten).await;
        let most = 3 * PACE_BYTES as usize / LINE_OVERHEAD + 11 * UNPACED_BYTES / LINE_OVERHEAD;
        assert!((most / 2..most).contains(&count()), "{} lines in two seconds, of {most}", count());
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_settles_when_its_writers_are_gone() {
        let log = InvocationLog::new(RequestId::new(), Arc::default());
        let writer = log.writer();
        let begun = tokio::time::Instant::now();
        log.settled(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "patience is bounded");
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(writer);
        });
        log.settled(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(1005));
    }
}
