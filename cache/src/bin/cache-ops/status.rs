//! `cache-ops status`: the nodes in a table.

use crate::admin::Admin;
use crate::cli::StatusArgs;
use crate::{print, print_json};
use anyhow::Result;
use cache::node::NodeStatus;
use fleet::members::Node;
use indicatif::BinaryBytes;
use serde::Serialize;
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A node as it answered, or why it did not.
#[derive(Debug, Serialize)]
struct Seen {
    name: String,
    address: String,
    zone: String,
    status: Option<NodeStatus>,
    error: Option<String>,
}

async fn look(admin: &Admin) -> Vec<Seen> {
    let looks = admin.members.nodes().iter().map(|node| async move {
        let Node { name, address, zone, .. } = node.clone();
        match admin.json::<NodeStatus>(node, "GET", "/v1/status").await {
            Ok(status) => Seen { name, address, zone, status: Some(status), error: None },
            Err(error) => Seen { name, address, zone, status: None, error: Some(error.message) },
        }
    });
    futures_util::future::join_all(looks).await
}

/// What was seen the last time, for rates.
type Before = HashMap<String, (Instant, u64, u64)>;

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.1}", 100.0 * part as f64 / whole as f64) }
}

fn line(seen: &Seen, before: &mut Before) -> String {
    let (name, zone) = (&seen.name, if seen.zone.is_empty() { "-" } else { &seen.zone });
    let Some(status) = &seen.status else {
        return format!("{name:<20} {zone:<8} AWAY      {}", seen.error.as_deref().unwrap_or(""));
    };
    let state = if status.draining { "draining" } else { "up" };
    let (hits, reads) = status.hits();
    let requests = reads + status.operation("put").count;
    let now = Instant::now();
    let rate =
        before.insert(name.clone(), (now, requests, status.sent_bytes)).map(|(at, requests_then, sent)| {
            let seconds = now.duration_since(at).as_secs_f64().max(0.001);
            let per_second = requests.saturating_sub(requests_then) as f64 / seconds;
            (per_second, status.sent_bytes.saturating_sub(sent) as f64 / seconds / 1e6)
        });
    let (rate, sent) =
        rate.map_or(("-".into(), "-".into()), |(rate, sent)| (format!("{rate:.0}"), format!("{sent:.1}")));
    let level = |usage: &cache::tier::Usage| {
        let used = BinaryBytes(usage.bytes).to_string();
        format!("{used} {}%", share(usage.bytes, usage.capacity_bytes))
    };
    let errors = status.errors + status.not_written + status.cut_connections;
    format!(
        "{name:<20} {zone:<8} {state:<9} {rate:>7} {sent:>7} {:>18} {:>18} {:>9} {:>6} {:>7} {:>7} {errors:>6} {:>6}",
        level(&status.memory),
        level(&status.ssd),
        status.ssd.chunks.max(status.memory.chunks),
        share(hits, reads),
        status.operation("get_memory").p50_us,
        status.operation("get_ssd").p50_us,
        status.refused_busy,
    )
}

const HEAD: &str = "NODE                 ZONE     STATE       REQ/S    MB/S             MEMORY                SSD    SHARDS  HIT %  MEM µs  SSD µs ERRORS   BUSY";

pub(crate) async fn run(args: &StatusArgs) -> Result<ExitCode> {
    let admin = Admin::open(&args.fleet).await?;
    let mut before = Before::new();
    loop {
        let nodes = look(&admin).await;
        if args.fleet.json {
            print_json(&nodes)?;
        } else {
            print(HEAD)?;
            for seen in &nodes {
                print(line(seen, &mut before))?;
            }
        }
        let Some(seconds) = args.watch else {
            let away = nodes.iter().any(|seen| seen.status.is_none());
            return Ok(if away { ExitCode::from(5) } else { ExitCode::SUCCESS });
        };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
