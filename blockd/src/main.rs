//! The `blockd` command: reads arguments, wires things up, prints results.

mod cli;
mod signals;

use anyhow::{Context, Result, bail};
use blockd::api::Client;
use blockd::config::{self, ClientArgs, WorkerArgs};
use blockd::daemon::{self, DaemonSettings};
use blockd::open_files;
use blockd::report_kind;
use blockd::run_dir::{RunDir, clear_dead};
use blockd::worker::{IfSsdInUse, OpenRequest, Worker};
use clap::CommandFactory;
use cli::{By, Cli, Command, ServeArgs};
use origin::settings::StoreArgs;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let (cli, by) = Cli::from_process();
    let filter = tracing_subscriber::EnvFilter::try_from_env("LANTERN_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("the async runtime could not be started").and_then(|runtime| {
        let outcome = runtime.block_on(run(cli, by));
        // a thread that waits for input must not keep the process
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "blockd: {error:#}");
            ExitCode::from(report_kind::exit_code(&error))
        }
    }
}

async fn run(cli: Cli, by: By) -> Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve(*args).await?,
        Command::Run(args) => return cli::run::run(*args, by).await,
        Command::Mount { image, directory, rw, store, worker } => {
            mount((image, rw, &directory), by, *store, *worker).await?;
        }
        Command::Umount { target, client } => {
            let target = Path::new(&target).canonicalize().map_or(target, |path| path.display().to_string());
            daemon(client).await?.close(&target).await?;
        }
        Command::Ps { json, client } => ps(&daemon(client).await?, json).await?,
        Command::Status { client } => {
            let status = daemon(client).await?.status().await?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&status)?)?;
        }
        Command::Function { command } => return cli::function::run(command).await,
        Command::Cleanup { oci_runtime, client } => {
            let (directories, default) = client.resolve()?;
            let cleared = clear_dead(&directories.run, &oci_runtime.unwrap_or(default)).await?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&cleared)?)?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "blockd", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn daemon(client: ClientArgs) -> Result<Client> {
    let socket = client.resolve()?.0.socket();
    let found = Client::find(&socket).await;
    found.with_context(|| format!("no daemon at {}; start one with `blockd serve`", socket.display()))
}

/// One daemon per run directory.
fn daemon_lock(run: &Path) -> Result<std::fs::File> {
    std::fs::create_dir_all(run).with_context(|| {
        format!("cannot make {}; run as root, or choose another --run-dir", run.display())
    })?;
    let path = run.join("blockd.lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
    lock.try_lock().with_context(|| format!("another daemon serves {}", run.display()))?;
    Ok(lock)
}

async fn serve(args: ServeArgs) -> Result<()> {
    let stop = signals::stop()?;
    let file = config::config_file(&args.store)?;
    let runtime = args.worker.oci_runtime(&file.worker);
    let (functions_table, sandbox_table) = (file.functions.clone(), file.sandboxes.clone());
    let worker = args.worker.resolve(args.store, file)?;
    let functions = args.functions.resolve(functions_table, &worker.directories.state)?;
    let _lock = daemon_lock(&worker.directories.run)?;
    clear_dead(&worker.directories.run, &runtime).await?;
    let run_dir = Arc::new(RunDir::make(&worker.directories.run)?);
    let known = (runtime, run_dir.path(), functions.service.region.clone(), worker.max_starts);
    let sandboxes = args.sandboxes.resolve(sandbox_table, known)?;
    let settings = DaemonSettings { worker, functions, sandboxes };
    open_files::raise(settings.open_files());
    let served = daemon::serve(settings, &run_dir, stop).await;
    if let Some(run_dir) = Arc::into_inner(run_dir) {
        run_dir.remove();
    }
    served
}

/// Mounts through the daemon, or serves the mount from here until a signal.
async fn mount(
    (image, rw, directory): (String, bool, &Path),
    by: By,
    store: StoreArgs,
    worker: WorkerArgs,
) -> Result<()> {
    let directory: PathBuf =
        directory.canonicalize().with_context(|| format!("cannot mount at {}", directory.display()))?;
    if !directory.is_dir() {
        bail!("{} is not a directory", directory.display());
    }
    let open = OpenRequest {
        image,
        writable: rw,
        target: Some(directory.clone()),
        writable_bytes: None,
        starting: false,
    };
    let file = config::config_file(&store)?;
    if by == By::Daemon
        && let Some(client) = Client::find(&worker.directories(&file.worker).socket()).await
    {
        client.open(open).await?;
        return Ok(());
    }
    let stop = signals::stop()?;
    let runtime = worker.oci_runtime(&file.worker);
    let settings = worker.resolve(store, file)?;
    clear_dead(&settings.directories.run, &runtime).await?;
    let run_dir = Arc::new(RunDir::make(&settings.directories.run)?);
    let worker = Worker::start(&settings, Arc::clone(&run_dir), IfSsdInUse::GoWithout).await?;
    let opened = worker.open(&open).await;
    if opened.is_ok() {
        writeln!(std::io::stderr(), "mounted at {}; Ctrl-C unmounts", directory.display())?;
        stop.await;
    }
    worker.shutdown().await;
    drop(worker);
    if let Some(run_dir) = Arc::into_inner(run_dir) {
        run_dir.remove();
    }
    opened.map(drop)
}

async fn ps(client: &Client, json: bool) -> Result<()> {
    let instances = client.list().await?;
    let mut out = std::io::stdout().lock();
    if json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&instances)?)?);
    }
    writeln!(out, "{:<6} {:<4} {:>9} {:<30} DIRECTORY", "ID", "MODE", "FETCHED", "IMAGE")?;
    for instance in instances {
        let stats = instance.stats;
        let fetched = stats.from_origin.bytes + stats.from_ssd.bytes + stats.from_l2.bytes;
        let share = 100 * fetched / stats.image_bytes.max(1);
        let mode = if instance.writable { "rw" } else { "ro" };
        let directory = instance.directory.display();
        writeln!(out, "{:<6} {mode:<4} {share:>7} % {:<30} {directory}", instance.id, instance.image)?;
    }
    Ok(())
}
