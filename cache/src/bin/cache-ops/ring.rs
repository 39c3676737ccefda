//! `cache-ops ring`: where chunks lie, and what moves when the fleet changes.

use crate::admin::Admin;
use crate::cli::RingArgs;
use crate::{failed, print, print_json};
use anyhow::Result;
use fleet::members::{Members, Node};
use fleet::ring::Ring;
use image_format::ids::ChunkId;
use serde::Serialize;
use std::process::ExitCode;

/// A node's part of all shards.
#[derive(Debug, Serialize)]
struct Part {
    node: String,
    zone: String,
    share_percent: f64,
    /// Against an even share by weight.
    of_fair: f64,
    /// With a change: what the share is then.
    then_percent: Option<f64>,
}

#[derive(Debug, Serialize)]
struct View {
    nodes: Vec<Part>,
    /// With a change: the part of all shards that have another node then.
    moved_percent: Option<f64>,
    /// With a chunk: the names of the nodes that hold it.
    chunk: Option<Vec<String>>,
}

fn joining(text: &str) -> Result<Node> {
    let wrong = || failed(2, format!("{text:?}: use NAME=ADDRESS[@ZONE]"));
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (address, zone) = rest.split_once('@').unwrap_or((rest, ""));
    Ok(Node { name: name.into(), zone: zone.into(), ..Node::at(address) })
}

/// The fleet after the change that the arguments ask about.
fn changed(args: &RingArgs, admin: &Admin) -> Result<Option<Members>> {
    if let Some(name) = &args.without {
        admin.node(name)?;
        let left = admin.members.without(name);
        return left.map(Some).ok_or_else(|| failed(2, "it is the only node"));
    }
    let Some(text) = &args.with else { return Ok(None) };
    let nodes = admin.members.nodes().iter().cloned().chain([joining(text)?]).collect();
    Ok(Some(Members::new(nodes).map_err(|error| failed(2, error.to_string()))?))
}

fn percent(ring: &Ring, name: &str) -> Option<f64> {
    let loads = ring.loads();
    let total: u64 = loads.iter().map(|&load| u64::from(load)).sum();
    let (at, _) = ring.members().find(name)?;
    Some(100.0 * f64::from(loads[at]) / total.max(1) as f64)
}

pub(crate) async fn run(args: &RingArgs) -> Result<ExitCode> {
    let admin = Admin::open(&args.fleet).await?;
    let ring = admin.ring(admin.members.clone());
    let then = changed(args, &admin)?.map(|members| admin.ring(members));
    let chunk = match &args.chunk {
        Some(text) => {
            let id: ChunkId = text.parse().map_err(|error| failed(2, format!("{error}")))?;
            let nodes = ring.members().nodes();
            Some(ring.place(&id).iter().map(|&at| nodes[usize::from(at)].name.clone()).collect())
        }
        None => None,
    };
    let weights: u32 = admin.members.nodes().iter().map(|node| node.weight).sum();
    let part = |node: &Node| {
        let share_percent = percent(&ring, &node.name).unwrap_or(0.0);
        Part {
            node: node.name.clone(),
            zone: node.zone.clone(),
            share_percent,
            of_fair: share_percent / (100.0 * f64::from(node.weight) / f64::from(weights)),
            then_percent: then.as_ref().map(|then| percent(then, &node.name).unwrap_or(0.0)),
        }
    };
    let mut nodes: Vec<Part> = admin.members.nodes().iter().map(part).collect();
    if let (Some(text), Some(then)) = (&args.with, &then) {
        let node = joining(text)?;
        let then_percent = percent(then, &node.name);
        nodes.push(Part { node: node.name, zone: node.zone, share_percent: 0.0, of_fair: 0.0, then_percent });
    }
    let moved_percent = then.as_ref().map(|then| 100.0 * then.moved_from(&ring));
    let view = View { nodes, moved_percent, chunk };
    if args.fleet.json {
        print_json(&view)?
    } else {
        show(&view)?
    }
    Ok(ExitCode::SUCCESS)
}

fn show(view: &View) -> Result<()> {
    if let Some(chunk) = &view.chunk {
        return print(chunk.join("\n"));
    }
    print("NODE                 ZONE      SHARE %  OF FAIR   THEN %")?;
    for part in &view.nodes {
        let zone = if part.zone.is_empty() { "-" } else { &part.zone };
        let then = part.then_percent.map_or_else(|| "-".into(), |then| format!("{then:.2}"));
        let Part { node, share_percent, of_fair, .. } = part;
        print(format_args!("{node:<20} {zone:<8} {share_percent:>8.2} {of_fair:>8.3} {then:>8}"))?;
    }
    match view.moved_percent {
        Some(moved) => print(format_args!("{moved:.2} % of all shards move")),
        None => Ok(()),
    }
}
