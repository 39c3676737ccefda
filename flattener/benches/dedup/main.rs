//! What images share in the store: the promises on deduplication, measured.
//!
//! `cargo bench -p flattener --bench dedup [-- --base oci:DIR[:TAG]] [--base-layers N]
//! [--quick] [--json]`. Builds image pairs as OCI layouts in a temporary directory, pushes
//! them through the real pipeline into a store in memory, and prints which part of each
//! image is new. The base is `--base`, `LANTERN_BENCH_IMAGE`, or made from this host's
//! `/usr`. Exits with 1 if a promised limit is missed.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a bench prints its result and stops on error")]

mod app;
mod base;
mod claims;
#[path = "../support/layout.rs"]
mod layout;
mod measure;
#[path = "../support/random.rs"]
mod random;

use anyhow::{Context, Result, bail};
use claims::{Figure, Limit, Setting};
use serde_json::json;
use std::process::ExitCode;

/// What the command line says.
struct Arguments {
    base: Option<String>,
    base_layers: usize,
    quick: bool,
    json: bool,
}

fn arguments() -> Result<Arguments> {
    let base = std::env::var("LANTERN_BENCH_IMAGE").ok();
    let mut found = Arguments { base, base_layers: usize::MAX, quick: false, json: false };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--base" => found.base = Some(value()?),
            "--base-layers" => found.base_layers = value()?.parse()?,
            "--quick" => found.quick = true,
            "--json" => found.json = true,
            "--bench" => {} // from cargo
            _ => bail!("unknown argument {argument}; see the head of this bench"),
        }
    }
    Ok(found)
}

fn main() -> Result<ExitCode> {
    let arguments = arguments()?;
    let work = tempfile::tempdir()?;
    let layout = layout::LayoutDir::create(&work.path().join("layout"))?;
    let base = base::base(&layout, arguments.base.as_deref(), arguments.base_layers)?;
    let bench = measure::Bench::new(work.path().to_path_buf())?;
    let mut setting = Setting { layout, bench, base };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (steps, packages) = if arguments.quick { (12, 2) } else { (app::FAMILY.len(), 6) };
    let sections = runtime.block_on(async {
        anyhow::Ok([
            (
                "a new version against the one before: unique chunks",
                claims::family(&mut setting, steps).await?,
            ),
            ("two applications on one base: new chunks", claims::two_applications(&mut setting).await?),
            ("an update of the base: unique chunks", claims::base_update(&mut setting).await?),
            ("large files: shared chunks", claims::large_files(&mut setting).await?),
            ("a package in other images: shared bytes", claims::packages(&mut setting, packages).await?),
        ])
    })?;
    let missed = sections.iter().flat_map(|(_, figures)| figures).filter(|figure| !figure.is_met()).count();
    if arguments.json {
        let sections: Vec<_> =
            sections.iter().map(|(title, figures)| json!({"title": title, "figures": figures})).collect();
        println!("{:#}", json!({"sections": sections, "missed": missed}));
    } else {
        println!("base: {}", arguments.base.as_deref().unwrap_or("made from this host's /usr"));
        for (title, figures) in &sections {
            println!("\n{title}");
            figures.iter().for_each(print);
        }
        print_distribution(&sections[0].1);
        println!("\n{missed} promises missed");
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(figure: &Figure) {
    let verdict = match figure.limit {
        None => String::new(),
        Some(limit) => {
            let (word, bound) = match limit {
                Limit::AtMost(most) => ("at most", most),
                Limit::AtLeast(least) => ("at least", least),
            };
            format!("{word} {:.1} %: {}", bound * 100.0, if figure.is_met() { "met" } else { "MISSED" })
        }
    };
    let by_use: Vec<String> = figure.by_use.iter().map(|(what, count)| format!("{count} {what}")).collect();
    let of = if figure.chunks > 0 { format!("of {} chunks", figure.chunks) } else { String::new() };
    println!(
        "  {:<62} {:>6.2} %  {verdict}{of:>16}  {}",
        figure.what,
        figure.part * 100.0,
        by_use.join(", ")
    );
}

/// The family's figures in order, as bars.
fn print_distribution(figures: &[Figure]) {
    let mut pairs: Vec<&Figure> = figures.iter().filter(|figure| figure.chunks > 0).collect();
    pairs.sort_by(|a, b| a.part.total_cmp(&b.part));
    println!("\ndistribution over {} pairs", pairs.len());
    for figure in pairs {
        let bar: String =
            (0..100).take_while(|&at| f64::from(at) < figure.part * 1000.0).map(|_| '#').collect();
        println!("  {:>6.2} %  {bar}", figure.part * 100.0);
    }
}
