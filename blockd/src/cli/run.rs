//! `blockd run`: a command in a sandbox on a lazily loaded image, with the daemon or alone.

use super::super::signals;
use super::By;
use anyhow::{Context, Result};
use blockd::api::{Client, Lease};
use blockd::config::{self, ConfigFile, WorkerArgs};
use blockd::cpus::cpus;
use blockd::report::{RunReport, seconds};
use blockd::run_dir::{RunDir, clear_dead};
use blockd::worker::{IfSsdInUse, InstanceInfo, OpenRequest, Worker};
use cache::size::size;
use clap::Args;
use origin::settings::StoreArgs;
use photon::rootfs::DirectoryRootFs;
use photon::sandbox::{self, Mount, Network, Outcome, Request};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a command may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name or digest (sha256:…)
    pub(crate) image: String,
    /// Arguments for the image's entrypoint, or the command
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
    /// Run this instead of the image's entrypoint
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Writable root; what is written ends with the run
    #[arg(long)]
    pub(crate) rw: bool,
    /// Most bytes that may be written with --rw [default: 10G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) rw_size: Option<u64>,
    /// Environment variable; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// type=bind,source=/host,target=/inside[,readonly] or type=tmpfs,target=/inside
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<String>,
    /// user, uid, either with :group
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(long, short)]
    pub(crate) workdir: Option<String>,
    /// Memory limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// CPU limit, such as 1.5
    #[arg(long, value_name = "CPUS", value_parser = cpus)]
    pub(crate) cpus: Option<u64>,
    /// Limit on processes and threads
    #[arg(long)]
    pub(crate) pids: Option<u32>,
    /// Network: none or host
    #[arg(long, value_enum, default_value_t = NetworkArg::None)]
    pub(crate) network: NetworkArg,
    /// Say on standard error what was fetched from where, and how long it took
    #[arg(long)]
    pub(crate) stats: bool,
    /// With --stats: as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
}

/// What network a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkArg {
    /// Loopback only
    None,
    /// The host's
    Host,
}

/// Whoever holds the instance for us.
enum Holder {
    Daemon(Client, Lease),
    Here(Box<Worker>, InstanceInfo),
}

impl Holder {
    fn info(&self) -> &InstanceInfo {
        match self {
            Self::Daemon(_, lease) => lease.info(),
            Self::Here(_, info) => info,
        }
    }

    /// What to tell when the command has begun to speak: the daemon counts it as starting
    /// until then.
    fn tell_when_started(&self) -> Option<Arc<Notify>> {
        let Self::Daemon(client, lease) = self else { return None };
        let (started, client, id) = (Arc::new(Notify::new()), client.clone(), lease.info().id.clone());
        let told = Arc::clone(&started);
        tokio::spawn(async move {
            told.notified().await;
            if let Err(error) = client.started(&id).await {
                tracing::debug!(%error, "the daemon was not told of the start's end");
            }
        });
        Some(started)
    }

    async fn stats_now(&self) -> Option<InstanceInfo> {
        match self {
            Self::Daemon(client, lease) => client.info(&lease.info().id).await.ok(),
            Self::Here(worker, info) => worker.info(&info.id),
        }
    }

    async fn end(self) {
        if let Self::Here(worker, _) = self {
            worker.shutdown().await;
        }
    }
}

impl RunArgs {
    fn request(&self) -> Result<Request> {
        let mounts = self.mount.iter().map(|text| text.parse()).collect::<Result<Vec<Mount>, _>>()?;
        Ok(Request {
            args: self.args.clone(),
            entrypoint: self.entrypoint.clone().map(|program| vec![program]),
            env: self.env.clone(),
            working_dir: self.workdir.clone(),
            user: self.user.clone(),
            mounts,
            network: match self.network {
                NetworkArg::None => Network::None,
                NetworkArg::Host => Network::Host,
            },
            memory_bytes: self.memory,
            cpu_millis: self.cpus,
            pids: self.pids.map(i64::from),
            terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            ..Request::default()
        })
    }

    async fn hold(&self, by: By, file: ConfigFile, run_dir: &Arc<RunDir>) -> Result<Holder> {
        let open = OpenRequest {
            image: self.image.clone(),
            writable: self.rw,
            target: None,
            writable_bytes: self.rw_size,
            starting: true,
        };
        let directories = self.worker.directories(&file.worker);
        if by == By::Daemon
            && let Some(client) = Client::find(&directories.socket()).await
        {
            let lease = client.lease(open).await?;
            return Ok(Holder::Daemon(client, lease));
        }
        let settings = self.worker.clone().resolve(self.store.clone(), file)?;
        let worker = Worker::start(&settings, Arc::clone(run_dir), IfSsdInUse::GoWithout).await?;
        match worker.open(&open).await {
            Ok(info) => Ok(Holder::Here(Box::new(worker), info)),
            Err(error) => {
                worker.shutdown().await;
                Err(error)
            }
        }
    }
}

/// Runs and reports. The exit code is the command's.
pub(crate) async fn run(args: RunArgs, by: By) -> Result<ExitCode> {
    let asked = Instant::now();
    let request = args.request()?;
    let file = config::config_file(&args.store)?;
    let directories = args.worker.directories(&file.worker);
    let runtime = args.worker.oci_runtime(&file.worker);
    clear_dead(&directories.run, &runtime).await?;
    let run_dir = Arc::new(RunDir::make(&directories.run)?);
    // from here on signals are the command's business, or end the preparation
    let mut signals = signals::forwarded()?;
    let held = tokio::select! {
        held = args.hold(by, file, &run_dir) => held,
        Some(number) = signals.recv() => {
            return Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(255)));
        }
    };
    let outcome = match held {
        Ok(holder) => {
            let mounted = asked.elapsed();
            let settings = sandbox::Settings {
                runtime,
                run_dir: run_dir.path().to_path_buf(),
                grace: GRACE,
                started: holder.tell_when_started(),
            };
            let info = holder.info();
            let config = serde_json::to_vec(&info.config).context("the image's configuration")?;
            let rootfs = DirectoryRootFs::new(&info.directory, info.writable, config);
            let outcome = sandbox::run(&request, &rootfs, &settings, signals).await;
            if args.stats
                && let (Ok(outcome), Some(info)) = (&outcome, holder.stats_now().await)
            {
                report(&args, info, mounted, *outcome)?;
            }
            holder.end().await;
            outcome.map_err(anyhow::Error::from)
        }
        Err(error) => Err(error),
    };
    if let Some(run_dir) = Arc::into_inner(run_dir) {
        run_dir.remove();
    }
    Ok(ExitCode::from(outcome?.exit_code))
}

fn report(args: &RunArgs, info: InstanceInfo, mounted: Duration, outcome: Outcome) -> Result<()> {
    let report = RunReport {
        image: args.image.clone(),
        stats: info.stats,
        mounted_seconds: seconds(mounted),
        first_output_seconds: outcome.first_output.map(|first| seconds(mounted + first)),
        total_seconds: seconds(mounted + outcome.total),
        exit_code: outcome.exit_code,
    };
    let mut err = std::io::stderr().lock();
    if args.json {
        serde_json::to_writer(&mut err, &report)?;
        writeln!(err)?;
    } else {
        writeln!(err, "{report}")?;
    }
    Ok(())
}
