//! `cache-ops scrub`: every stored shard of the nodes is read and checked by its node.

use crate::admin::{Admin, progress};
use crate::cli::ScrubArgs;
use crate::{print, print_json};
use anyhow::Result;
use cache::node::ScrubStatus;
use fleet::members::Node;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

/// How often a node is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(300);

#[derive(Debug, Serialize)]
struct Scrubbed {
    node: String,
    scrub: Option<ScrubStatus>,
    error: Option<String>,
}

pub(crate) async fn run(args: &ScrubArgs) -> Result<ExitCode> {
    let admin = Admin::open(&args.fleet).await?;
    let mut nodes: Vec<Node> = Vec::new();
    for name in &args.nodes {
        nodes.push(admin.node(name)?.clone());
    }
    if nodes.is_empty() {
        nodes = admin.members.nodes().to_vec();
    }
    let bar = progress("scrubbing", nodes.len() as u64 * 1000, args.fleet.json);
    let scrubs = nodes.iter().map(|node| scrub(&admin, node, &bar));
    let done = futures_util::future::join_all(scrubs).await;
    bar.finish_and_clear();
    if args.fleet.json {
        print_json(&done)?;
    } else {
        for one in &done {
            print(describe(one))?;
        }
    }
    let away = done.iter().any(|one| one.error.is_some());
    let bad = done.iter().any(|one| one.scrub.as_ref().is_some_and(|scrub| scrub.bad + scrub.failed > 0));
    Ok(ExitCode::from(if bad { 4 } else { u8::from(away) * 5 }))
}

async fn scrub(admin: &Admin, node: &Node, bar: &indicatif::ProgressBar) -> Scrubbed {
    let outcome = async {
        let mut status: ScrubStatus = admin.json(node, "POST", "/v1/scrub").await?;
        let mut shown = 0;
        while status.running {
            tokio::time::sleep(ASK_EVERY).await;
            status = admin.json(node, "GET", "/v1/scrub").await?;
            bar.inc(status.done_permille.saturating_sub(shown));
            shown = status.done_permille.max(shown);
        }
        Ok::<_, fleet::transport::CallError>(status)
    };
    match outcome.await {
        Ok(status) => Scrubbed { node: node.name.clone(), scrub: Some(status), error: None },
        Err(error) => Scrubbed { node: node.name.clone(), scrub: None, error: Some(error.message) },
    }
}

fn describe(one: &Scrubbed) -> String {
    let Some(scrub) = &one.scrub else {
        return format!("{}: {}", one.node, one.error.as_deref().unwrap_or("no answer"));
    };
    let ScrubStatus { checked, bytes, bad, failed, bad_ids, .. } = scrub;
    let bytes = indicatif::BinaryBytes(*bytes);
    let mut text = format!(
        "{}: {checked} shards checked ({bytes}), {bad} bad and deleted, {failed} unreadable",
        one.node
    );
    for id in bad_ids {
        text.push_str("\n  ");
        text.push_str(id);
    }
    text
}
