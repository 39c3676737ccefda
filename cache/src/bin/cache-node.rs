//! The `cache-node` command: one node of the remote cache.
//!
//! Invariant: on anything but loopback it does not start unless clients must prove who they
//! are, by certificate or by shared secret.

use anyhow::{Context, Result, bail};
use cache::node::{Limits, Node, ShardStore, serve};
use cache::policy::PolicyKind;
use cache::size::size;
use cache::ssd::{Contents, SsdFiles, SsdSettings};
use clap::{CommandFactory, Parser, Subcommand};
use fleet::settings::read_secret;
use fleet::transport::{TlsFiles, server_config};
use serde::Deserialize;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

const EXAMPLES: &str = "\
Examples:
  cache-node serve --ssd 100G --memory 10G
  cache-node serve --listen 10.0.0.7:7400 --zone a --secret-file /etc/lantern/secret
  cache-node serve --listen [::]:7400 --tls-cert node.pem --tls-key node.key --client-ca fleet.pem

Exit codes: 0 stopped by a signal; 2 bad arguments; 1 anything else.";

/// One node of the remote cache: shards in memory over SSD, over HTTP/2.
#[derive(Debug, Parser)]
#[command(name = "cache-node", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT, then finish what is under way
    #[command(after_help = EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Print shell completions
    #[command(after_help = "Examples:\n  cache-node completions bash > /etc/bash_completion.d/cache-node")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Default, clap::Args)]
struct ServeArgs {
    /// Address and port [default: 127.0.0.1:7400]
    #[arg(long, env = "LANTERN_NODE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The node's name in the members file [default: its address and port]
    #[arg(long, env = "LANTERN_NODE_NAME", value_name = "NAME")]
    name: Option<String>,
    /// What it fails together with: a zone, a rack; shown in its status
    #[arg(long, env = "LANTERN_NODE_ZONE", value_name = "ZONE")]
    zone: Option<String>,
    /// Where shards are kept on SSD [default: /var/lib/lantern/node]
    #[arg(long, env = "LANTERN_NODE_STATE_DIR", value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Byte budget on SSD; 0 for none [default: 20G]
    #[arg(long, env = "LANTERN_NODE_SSD", value_name = "SIZE", value_parser = size)]
    ssd: Option<u64>,
    /// Disk that is left free for others [default: 2G]
    #[arg(long, env = "LANTERN_NODE_SSD_HEADROOM", value_name = "SIZE", value_parser = size)]
    ssd_headroom: Option<u64>,
    /// Byte budget in memory [default: a tenth of --ssd, at least 256M]
    #[arg(long, env = "LANTERN_NODE_MEMORY", value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// File with the secret that clients must show
    #[arg(long, env = "LANTERN_NODE_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The node's certificate with its chain (PEM): speak TLS
    #[arg(long, env = "LANTERN_NODE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "LANTERN_NODE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Accept only clients whose certificate this authority signed (PEM)
    #[arg(long, env = "LANTERN_NODE_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Connections at the same time [default: 1024]
    #[arg(long, env = "LANTERN_NODE_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<usize>,
    /// Requests at the same time; more are refused at once [default: 1024]
    #[arg(long, env = "LANTERN_NODE_MAX_REQUESTS", value_name = "N")]
    max_requests: Option<usize>,
    /// Settings file with a table node [default: /etc/lantern/lantern.toml if it exists]
    #[arg(long, env = "LANTERN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The `[node]` table of the settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NodeTable {
    listen: Option<SocketAddr>,
    name: Option<String>,
    zone: Option<String>,
    state_dir: Option<PathBuf>,
    ssd_bytes: Option<u64>,
    ssd_headroom_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    policy: PolicyKind,
    secret_file: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    max_connections: Option<usize>,
    max_requests: Option<usize>,
}

/// The settings file, of which other commands read other tables.
#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    node: NodeTable,
}

/// Least memory for records where nothing is said.
const LEAST_MEMORY: u64 = 256 << 20;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LANTERN_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = match Cli::parse().command {
        Command::Serve(args) => args,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "cache-node", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("the async runtime could not be started").and_then(|runtime| {
        let outcome = runtime.block_on(run(*args));
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cache-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// TLS and secret, as far as they are configured.
type Proofs = (Option<TlsAcceptor>, Option<fleet::transport::Secret>);

fn proofs(args: &ServeArgs, file: &NodeTable, listen: SocketAddr) -> Result<Proofs> {
    let choose = |flag: &Option<PathBuf>, file: &Option<PathBuf>| flag.clone().or_else(|| file.clone());
    let files = TlsFiles {
        authority: choose(&args.client_ca, &file.client_ca),
        certificate: choose(&args.tls_cert, &file.tls_cert),
        key: choose(&args.tls_key, &file.tls_key),
    };
    let secret = choose(&args.secret_file, &file.secret_file).as_deref().map(read_secret).transpose()?;
    if secret.is_none() && files.authority.is_none() && !listen.ip().is_loopback() {
        bail!(
            "{listen} can be reached from other machines: clients must prove who they are; \
             pass --secret-file, or --tls-cert, --tls-key and --client-ca"
        );
    }
    if secret.is_some() && files.certificate.is_none() && !listen.ip().is_loopback() {
        tracing::warn!("the secret crosses the network in clear; use TLS unless the network is your own");
    }
    let tls = if files == TlsFiles::default() { None } else { Some(server_config(&files)?.into()) };
    Ok((tls, secret))
}

fn store(args: &ServeArgs, file: &NodeTable) -> Result<ShardStore> {
    let ssd = args.ssd.or(file.ssd_bytes).unwrap_or(20 << 30);
    let memory = args.memory.or(file.memory_bytes).unwrap_or((ssd / 10).max(LEAST_MEMORY));
    if ssd == 0 {
        return Ok(ShardStore::new(memory, file.policy, None));
    }
    let directory = args.state_dir.clone().or_else(|| file.state_dir.clone());
    let files = SsdFiles::open(SsdSettings {
        directory: directory.unwrap_or_else(|| "/var/lib/lantern/node".into()),
        capacity_bytes: ssd,
        headroom_bytes: args.ssd_headroom.or(file.ssd_headroom_bytes).unwrap_or(2 << 30),
        policy: file.policy,
        contents: Contents::Shards,
    })?;
    Ok(ShardStore::new(memory, file.policy, Some(files)))
}

async fn run(args: ServeArgs) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let file: ConfigFile = origin::settings::read_config(args.config.as_deref())?;
    let file = file.node;
    let listen = args.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7400)));
    let (tls, secret) = proofs(&args, &file, listen)?;
    let store = store(&args, &file)?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let bound = listener.local_addr()?;
    let name = args.name.or(file.name).unwrap_or_else(|| bound.to_string());
    let zone = args.zone.or(file.zone).unwrap_or_default();
    let defaults = Limits::default();
    let limits = Limits {
        connections: args.max_connections.or(file.max_connections).unwrap_or(defaults.connections),
        requests: args.max_requests.or(file.max_requests).unwrap_or(defaults.requests),
        ..defaults
    };
    let node = Arc::new(Node::new(name, zone, secret, store, limits));
    writeln!(std::io::stderr(), "cache-node: serving on {bound}")?;
    let stop = async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    serve(Arc::clone(&node), listener, tls, stop).await.context("the listener failed")?;
    node.settle().await;
    Ok(())
}
