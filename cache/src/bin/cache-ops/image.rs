//! `cache-ops warm` and `drop`: an image's chunks into the fleet and out of it.

use crate::admin;
use crate::cli::ImageArgs;
use crate::{print, print_json};
use anyhow::{Context, Result};
use fleet::client::Fleet;
use fleet::settings::Following;
use image_format::chunk::SealedChunk;
use image_format::manifest::{Entry, Manifest};
use image_format::names::ObjectName;
use origin::catalog::Catalog;
use origin::settings::StoreTable;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What became of an image's chunks.
#[derive(Debug, Default, Serialize)]
struct Report {
    chunks: u64,
    /// In the fleet before.
    present: u64,
    /// Written by this command.
    written: u64,
    /// Forgotten by this command.
    dropped: u64,
    /// Neither there nor written: the store or too many nodes failed.
    failed: u64,
}

enum Became {
    Present,
    Written,
    Dropped,
    Failed(String),
}

#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    store: StoreTable,
}

struct Target {
    catalog: Catalog,
    manifest: Manifest,
    fleet: Fleet,
    _following: Following,
}

async fn open(args: &ImageArgs) -> Result<Target> {
    let config = args.store.config.as_deref();
    let (fleet, following) = admin::settings(&args.l2, config)?.open().await?;
    let file: ConfigFile = origin::settings::read_config(config)?;
    let catalog = args.store.clone().resolve(file.store)?.catalog().await?;
    let manifest = catalog.resolve(&args.image).await?;
    Ok(Target { catalog, manifest, fleet, _following: following })
}

/// Does something to every distinct chunk, a bounded number at a time.
async fn each<F>(
    args: &ImageArgs,
    manifest: &Manifest,
    what: &'static str,
    act: impl Fn(Entry) -> F,
) -> Result<Report>
where
    F: Future<Output = Became> + Send + 'static,
{
    let mut seen = HashSet::new();
    let entries: Vec<Entry> =
        manifest.entries().iter().filter(|entry| seen.insert(entry.id)).copied().collect();
    let progress = admin::progress(what, entries.len() as u64, args.json);
    let mut report = Report { chunks: entries.len() as u64, ..Report::default() };
    let (mut tasks, mut first_failure) = (JoinSet::new(), None);
    let mut entries = entries.into_iter();
    loop {
        while tasks.len() < usize::from(args.concurrency)
            && let Some(entry) = entries.next()
        {
            tasks.spawn(act(entry));
        }
        let Some(joined) = tasks.join_next().await else { break };
        progress.inc(1);
        match joined.context("a task failed")? {
            Became::Present => report.present += 1,
            Became::Written => report.written += 1,
            Became::Dropped => report.dropped += 1,
            Became::Failed(reason) => {
                report.failed += 1;
                first_failure.get_or_insert(reason);
            }
        }
    }
    progress.finish_and_clear();
    if let Some(reason) = first_failure {
        tracing::error!(failed = report.failed, "first failure: {reason}");
    }
    Ok(report)
}

fn outcome(args: &ImageArgs, report: &Report) -> Result<ExitCode> {
    if args.json {
        print_json(report)?;
    } else {
        let Report { chunks, present, written, dropped, failed } = report;
        print(format_args!(
            "{}: {chunks} chunks, {present} there before, {written} written, {dropped} dropped, {failed} failed",
            args.image
        ))?;
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

pub(crate) async fn warm(args: &ImageArgs) -> Result<ExitCode> {
    let target = open(args).await?;
    let (fleet, origin) = (target.fleet.clone(), Arc::clone(target.catalog.origin()));
    let root = target.manifest.head().root.clone();
    let act = |entry: Entry| {
        let (fleet, origin) = (fleet.clone(), Arc::clone(&origin));
        let name = ObjectName::chunk(&root, entry.id);
        async move {
            // a read also repairs what single nodes lack
            if matches!(fleet.get(&entry.id).await, Ok(Some(_))) {
                return Became::Present;
            }
            let bytes = match origin.get(&name, entry.stored_len as usize).await {
                Ok(bytes) => bytes,
                Err(error) => return Became::Failed(error.to_string()),
            };
            let chunk = match SealedChunk::new(bytes).verify(&entry.id) {
                Ok(chunk) => chunk,
                Err(error) => return Became::Failed(error.to_string()),
            };
            let stored = fleet.put(&chunk).await;
            if stored.readable(fleet.code()) {
                Became::Written
            } else {
                Became::Failed(format!("nodes took {} of {} shards", stored.shards, stored.width))
            }
        }
    };
    let report = each(args, &target.manifest, "warming", act).await?;
    fleet.settle().await;
    outcome(args, &report)
}

pub(crate) async fn drop_image(args: &ImageArgs) -> Result<ExitCode> {
    let target = open(args).await?;
    let fleet = target.fleet.clone();
    let width = usize::from(fleet.code().width());
    let act = |entry: Entry| {
        let fleet = fleet.clone();
        async move {
            match fleet.remove(&entry.id).await {
                confirmed if confirmed >= width => Became::Dropped,
                confirmed => Became::Failed(format!("{confirmed} of {width} nodes confirmed")),
            }
        }
    };
    let report = each(args, &target.manifest, "dropping", act).await?;
    outcome(args, &report)
}
