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
    let mut report = Report { json: arguments.json, sections: Vec::new() };
    if !arguments.json {
        println!("base: {}", arguments.base.as_deref().unwrap_or("made from this host's /usr"));
    }
    runtime.block_on(async {
        let family = claims::family(&mut setting, steps).await?;
        report.add("a new version against the one before: unique chunks", family);
        report.add("two applications on one base: new chunks", claims::two_applications(&mut setting).await?);
        report.add("an update of the base: unique chunks", claims::base_update(&mut setting).await?);
        report.add("large files: shared chunks", claims::large_files(&mut setting).await?);
        let packages = claims::packages(&mut setting, packages).await?;
        report.add("a package in other images: shared bytes", packages);
        anyhow::Ok(())
    })?;
    let missed = report.finish();
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The figures so far; text is printed as they come, JSON at the end.
struct Report {
    json: bool,
    sections: Vec<(&'static str, Vec<Figure>)>,
}

impl Report {
    fn add(&mut self, title: &'static str, figures: Vec<Figure>) {
        if !self.json {
            println!("\n{title}");
            figures.iter().for_each(print);
            if self.sections.is_empty() {
                print_distribution(&figures);
            }
        }
        self.sections.push((title, figures));
    }

    /// How many promises were missed.
    fn finish(&self) -> usize {
        let figures = self.sections.iter().flat_map(|(_, figures)| figures);
        let missed = figures.filter(|figure| !figure.is_met()).count();
        if self.json {
            let sections =
                self.sections.iter().map(|(title, figures)| json!({"title": title, "figures": figures}));
            println!("{:#}", json!({"sections": sections.collect::<Vec<_>>(), "missed": missed}));
        } else {
            println!("\n{missed} promises missed");
        }
        missed
    }
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
    print_blame(figure);
}

/// The changed bytes in new chunks and what stands beside them; of a missed figure also
/// where.
fn print_blame(figure: &Figure) {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let sum = |of: fn(&measure::Blame) -> u64| figure.blame.iter().map(of).sum();
    if figure.blame.is_empty() {
        return;
    }
    let (changed, beside) = (sum(|part| part.changed_bytes), sum(|part| part.beside_bytes));
    println!("      {:.1} MiB changed, {:.1} MiB beside them", mebibytes(changed), mebibytes(beside));
    let shown = if figure.is_met() { 0 } else { 12 };
    for part in figure.blame.iter().take(shown) {
        println!(
            "      {:>4} data chunks: {:>7.2} MiB changed, {:>7.2} beside  {}",
            part.chunks,
            mebibytes(part.changed_bytes),
            mebibytes(part.beside_bytes),
            part.directory.as_deref().unwrap_or("(nothing changed)")
        );
    }
}

/// The family's figures in order, as bars.
fn print_distribution(figures: &[Figure]) {
    let mut pairs: Vec<&Figure> = figures.iter().filter(|figure| figure.chunks > 0).collect();
    pairs.sort_by(|a, b| a.part.total_cmp(&b.part));
    println!("  distribution over {} pairs:", pairs.len());
    for figure in pairs {
        let bar: String =
            (0..100).take_while(|&at| f64::from(at) < figure.part * 1000.0).map(|_| '#').collect();
        println!("    {:>6.2} %  {bar}", figure.part * 100.0);
    }
}
