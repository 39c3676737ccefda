//! `cache-ops drain`: empties a node into the fleet, so that its leaving costs no reads.
//!
//! A shard goes to the node that gains its chunk when this one leaves; the copy is the record
//! itself, so no key and no other shard is needed.

use crate::admin::{Admin, progress};
use crate::cli::DrainArgs;
use crate::{failed, print, print_json};
use anyhow::{Context, Result};
use cache::node::NodeStatus;
use fleet::members::Node;
use fleet::ring::Ring;
use fleet::transport::Transport;
use fleet::wire::{HEADER_LEN, ShardRecord};
use image_format::ids::ChunkId;
use serde::Serialize;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What became of a node's shards.
#[derive(Debug, Default, Serialize)]
struct Report {
    shards: u64,
    /// Copied to the node that gains the chunk.
    copied: u64,
    /// The node that gains the chunk has a shard of it already, or the chunk is not placed
    /// here any more.
    needless: u64,
    /// Not copied; readers take the chunk from the other shards and repair it.
    failed: u64,
}

/// The node that holds a chunk only when `leaving` has left.
fn heir(id: &ChunkId, before: &Ring, after: &Ring) -> Option<Node> {
    let names = |ring: &Ring| -> Vec<String> {
        ring.place(id).iter().map(|&at| ring.members().nodes()[usize::from(at)].name.clone()).collect()
    };
    let held = names(before);
    let gains = names(after).into_iter().find(|name| !held.contains(name))?;
    after.members().find(&gains).map(|(_, node)| node.clone())
}

/// `None` if there was nothing to copy.
async fn copy(transport: &dyn Transport, from: &Node, to: &Node, id: &ChunkId) -> Result<Option<()>> {
    if transport.get(to, id).await?.is_some() {
        return Ok(None);
    }
    let Some(record) = transport.get(from, id).await? else { return Ok(None) };
    ShardRecord::decode(id, &record)?;
    let parts = [record.slice(..HEADER_LEN), record.slice(HEADER_LEN..)];
    transport.put(to, id, parts).await?;
    Ok(Some(()))
}

pub(crate) async fn run(args: &DrainArgs) -> Result<ExitCode> {
    let admin = Admin::open(&args.fleet).await?;
    let node = admin.node(&args.node)?.clone();
    let method = if args.undo { "DELETE" } else { "PUT" };
    let told: Result<NodeStatus, _> = admin.json(&node, method, "/v1/draining").await;
    let status = told.map_err(|error| failed(5, error.to_string()))?;
    if args.undo {
        print(format_args!("{} takes shards again", node.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let left = admin.members.without(&node.name);
    let left = left.ok_or_else(|| failed(2, "it is the only node; there is nowhere to copy to"))?;
    let (before, after) = (Arc::new(admin.ring(admin.members.clone())), Arc::new(admin.ring(left)));
    let bar = progress("draining", status.ssd.chunks.max(status.memory.chunks), args.fleet.json);
    let mut report = Report::default();
    let mut copies: JoinSet<Result<Option<()>>> = JoinSet::new();
    for fan in 0..=u8::MAX {
        let listed = admin.ask(&node, "GET", &format!("/v1/shards?fan={fan:02x}")).await;
        let listed = listed.map_err(|error| failed(5, error.to_string()))?;
        for line in String::from_utf8_lossy(&listed).lines() {
            let id: ChunkId = line.parse().with_context(|| format!("{} lists {line:?}", node.name))?;
            report.shards += 1;
            while copies.len() >= usize::from(args.concurrency) {
                count(&mut report, copies.join_next().await);
                bar.inc(1);
            }
            let Some(to) = heir(&id, &before, &after) else {
                report.needless += 1;
                continue;
            };
            let (transport, from) = (Arc::clone(&admin.transport), node.clone());
            copies.spawn(async move { copy(&*transport, &from, &to, &id).await });
        }
    }
    while let Some(joined) = copies.join_next().await {
        count(&mut report, Some(joined));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.fleet.json {
        print_json(&report)?;
    } else {
        let Report { shards, copied, needless, failed } = report;
        print(format_args!(
            "{}: {shards} shards, {copied} copied, {needless} needless, {failed} failed; \
             it takes no more: remove it from the members file, then stop it",
            node.name
        ))?;
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

fn count(report: &mut Report, joined: Option<Result<Result<Option<()>>, tokio::task::JoinError>>) {
    match joined {
        Some(Ok(Ok(Some(())))) => report.copied += 1,
        Some(Ok(Ok(None))) => report.needless += 1,
        Some(Ok(Err(error))) => {
            tracing::warn!(error = format!("{error:#}"), "a shard was not copied");
            report.failed += 1;
        }
        Some(Err(_)) => report.failed += 1,
        None => {}
    }
}
