//! The `flattener` command: reads arguments, wires things up, prints results.
//!
//! Exit codes: 0 done; 1 checked and found wrong; 2 bad arguments; 3 not found; 4 invalid
//! or corrupt; 5 unavailable; 6 denied; 7 out of space or over a limit; 70 a fault of ours.

mod cli;
mod exit;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use cli::{Cli, Command, PushArgs};
use flattener::commands::{diff, export, verify};
use flattener::oci::{self, ImageRef, SourceOptions};
use flattener::pipeline::StoreSettings as StageSettings;
use flattener::progress::Progress;
use flattener::push::{self, PushSettings};
use fleet::client::Fleet;
use fleet::settings::{Following, L2Error, L2Table};
use image_format::manifest::Manifest;
use image_format::names::ImageName;
use image_format::seal::Salt;
use origin::catalog::Catalog;
use origin::settings::{self, StoreArgs, StoreSettings, StoreTable};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The tables of the settings file that concern this command; those of others are left.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct ConfigFile {
    store: StoreTable,
    l2: L2Table,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("LANTERN_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("the async runtime could not be started").and_then(|runtime| {
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = run(cli) => outcome,
                signal = interrupted() => Ok(signal),
            }
        });
        // stages on blocking threads end with their current chunk; do not wait for them
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "flattener: {error:#}");
            exit::code(&error)
        }
    }
}

/// Ends with the conventional exit code when a signal asks to stop. What was uploaded is
/// garbage at worst; unlinked work files go with the process.
async fn interrupted() -> ExitCode {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let number = tokio::select! { _ = int.recv() => 2, _ = term.recv() => 15 };
    let _ = writeln!(std::io::stderr(), "flattener: stopped by signal {number}; nothing was committed");
    ExitCode::from(128 + number)
}

fn store_settings(args: StoreArgs) -> Result<StoreSettings> {
    let file: ConfigFile = settings::read_config(args.config.as_deref())?;
    Ok(args.resolve(file.store)?)
}

/// Prints a result: JSON for programs, or text.
fn print<T: Serialize + std::fmt::Display>(json: bool, value: &T) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, value)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{value}")?;
    }
    Ok(())
}

async fn resolve(catalog: &Catalog, image: &str) -> Result<Arc<Manifest>> {
    Ok(Arc::new(catalog.resolve(image).await?))
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let progress = Progress::new(cli.quiet || cli.json);
    match cli.command {
        Command::Push(args) => push_image(*args, cli.json, &progress).await?,
        Command::Ls(args) => cli::list::list(&store_settings(args)?.catalog().await?, cli.json).await?,
        Command::Inspect { image, store } => {
            let catalog = store_settings(store)?.catalog().await?;
            print(cli.json, &cli::inspect::Inspection::of(&*resolve(&catalog, &image).await?)?)?;
        }
        Command::Verify { image, store } => {
            let catalog = store_settings(store)?.catalog().await?;
            let manifest = resolve(&catalog, &image).await?;
            let report = verify::verify(Arc::clone(catalog.origin()), manifest, &progress).await;
            print(cli.json, &report)?;
            if !report.is_sound() {
                return Ok(ExitCode::from(1));
            }
        }
        Command::Export { image, output, store } => {
            let catalog = store_settings(store)?.catalog().await?;
            let manifest = resolve(&catalog, &image).await?;
            let bytes = export::export(Arc::clone(catalog.origin()), manifest, &output, &progress).await?;
            print(cli.json, &cli::inspect::Exported { output, bytes })?;
        }
        Command::Diff { a, b, chunks_only, store } => {
            let catalog = store_settings(store)?.catalog().await?;
            let (a, b) = (resolve(&catalog, &a).await?, resolve(&catalog, &b).await?);
            let mut report = diff::chunks(&a, &b);
            if !chunks_only {
                report.blocks = Some(diff::blocks(Arc::clone(catalog.origin()), a, b, &progress).await?);
            }
            print(cli.json, &report)?;
        }
        Command::AddDomain { name, store } => {
            store_settings(store)?.keyring().ensure_domain(&name)?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "flattener", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn push_image(args: PushArgs, json: bool, progress: &Progress) -> Result<()> {
    let settings = store_settings(args.store.clone())?;
    let image: ImageRef = args.image.parse()?;
    let name: ImageName = match &args.name {
        Some(name) => name.parse()?,
        None => default_name(&image).parse()?,
    };
    let work_dir = args.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    let options = SourceOptions {
        platform: args.platform.as_deref().map(str::parse).transpose()?,
        work_dir: work_dir.clone(),
        auth_file: args.authfile.clone(),
        plain_http: args.plain_http.clone(),
        ca_certs: args.ca_cert.clone(),
        ..SourceOptions::default()
    };
    let keyring = settings.keyring();
    keyring.ensure_tenant(&settings.tenant)?;
    let secret = keyring.domain_secret(&args.domain)?;
    let catalog = settings.catalog().await?;
    let source = Arc::new(oci::open(&image, &options).await?);
    let fleet = if args.prime { Some(open_fleet(&args).await?) } else { None };
    let push_settings = PushSettings {
        store: StageSettings {
            threads: args.threads.unwrap_or_else(default_threads),
            uploads: args.uploads,
            salt: Salt::derive(&settings.root, &secret),
            compression: args.compression.into(),
            root: settings.root.clone(),
            prime: fleet.as_ref().map(|(fleet, _following)| fleet.clone()),
        },
        limits: args.limits(),
        work_dir,
    };
    let report = push::push(source, &name, &catalog, &push_settings, progress).await?;
    print(json, &report)
}

async fn open_fleet(args: &PushArgs) -> Result<(Fleet, Following)> {
    let file: ConfigFile = settings::read_config(args.store.config.as_deref())?;
    let settings = args.l2.clone().resolve(file.l2)?;
    let settings = settings.ok_or(L2Error::Missing)?;
    Ok(settings.open().await?)
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// What an image is called where `--name` does not say: its name in the registry or
/// archive, else the file's or directory's name.
fn default_name(image: &ImageRef) -> String {
    let stem = |path: &Path| {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        path.file_stem().map_or_else(|| "image".into(), |stem| stem.to_string_lossy().into_owned())
    };
    match image {
        ImageRef::Registry(reference) => reference.to_string(),
        ImageRef::Layout { directory, tag } => tag.clone().unwrap_or_else(|| stem(directory)),
        ImageRef::LayoutArchive { file, tag } => tag.clone().unwrap_or_else(|| stem(file)),
        ImageRef::DockerArchive { file, image } => image.clone().unwrap_or_else(|| stem(file)),
    }
}
