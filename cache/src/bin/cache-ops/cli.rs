//! Arguments of the `cache-ops` command.

use cache::size::size;
use clap::{Parser, Subcommand};
use fleet::settings::L2Args;
use origin::settings::StoreArgs;

const EXAMPLES: &str = "\
Examples:
  cache-ops status --l2 file:/etc/lantern/fleet.toml --watch 2
  cache-ops ring --without node-3
  cache-ops warm app --store s3://bucket/lantern
  cache-ops drain node-3 && edit the members file
  cache-ops bench --seconds 10

The fleet is named by --l2, LANTERN_L2 or the [l2] table of the settings file.

Exit codes: 0 done; 2 bad arguments; 3 no such image or node; 4 bad data was found; 5 a node
or the store did not answer; 1 anything else.";

/// See and run the remote cache.
#[derive(Debug, Parser)]
#[command(name = "cache-ops", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the nodes: zone, load, memory and disk, hits, errors
    #[command(
        after_help = "Examples:\n  cache-ops status --watch 2\n  cache-ops status --json | jq '.[].status.ssd'"
    )]
    Status(StatusArgs),
    /// Show where chunks lie, and what moves when a node joins or leaves
    #[command(
        after_help = "Examples:\n  cache-ops ring\n  cache-ops ring --chunk 3f…\n  cache-ops ring --without node-3\n  cache-ops ring --with node-9=10.0.0.9:7400@zone-b"
    )]
    Ring(RingArgs),
    /// Fetch an image's chunks from the store and write those that the fleet lacks
    #[command(after_help = "Examples:\n  cache-ops warm app --store s3://bucket/lantern")]
    Warm(ImageArgs),
    /// Have the fleet forget an image's chunks; they stay in the store
    #[command(after_help = "Examples:\n  cache-ops drop app --store s3://bucket/lantern")]
    Drop(ImageArgs),
    /// Copy a node's shards to where they belong without it, and have it take no more
    #[command(
        after_help = "Examples:\n  cache-ops drain node-3   # then remove it from the members file and stop it\n  cache-ops drain node-3 --undo"
    )]
    Drain(DrainArgs),
    /// Check every stored shard, delete the bad ones and say which
    #[command(after_help = "Examples:\n  cache-ops scrub\n  cache-ops scrub node-3 --json")]
    Scrub(ScrubArgs),
    /// Load the fleet with chunks of random bytes, print percentiles, remove them again
    #[command(
        after_help = "Examples:\n  cache-ops bench --seconds 10 --concurrency 4\n  cache-ops bench --chunks 2000 --size 512K --json"
    )]
    Bench(BenchArgs),
    /// Simulate a fleet: hit rates, the store's load, starts; what an emptied cache or a lost zone does
    #[command(
        after_help = "Examples:\n  cache-ops simulate --print-scenario > region.toml\n  cache-ops simulate --scenario region.toml --node-bytes 2G\n  cache-ops simulate --scenario region.toml --wipe-at 80 --plot wiped.svg\n  cache-ops simulate --trace invocations.csv --copies 100 --json"
    )]
    Simulate(cache::simulate::SimulateArgs),
    /// Print shell completions
    #[command(after_help = "Examples:\n  cache-ops completions bash > /etc/bash_completion.d/cache-ops")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Which fleet, and how to print.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FleetArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) l2: L2Args,
    /// Settings file [default: /etc/lantern/lantern.toml if it exists]
    #[arg(long, env = "LANTERN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<std::path::PathBuf>,
}

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Print again every so many seconds, with rates
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// Arguments of `ring`.
#[derive(Debug, clap::Args)]
pub(crate) struct RingArgs {
    /// Where this chunk lies
    #[arg(long, value_name = "ID")]
    pub(crate) chunk: Option<String>,
    /// What moves if this node leaves
    #[arg(long, value_name = "NODE", conflicts_with = "with")]
    pub(crate) without: Option<String>,
    /// What moves if this node joins
    #[arg(long, value_name = "NAME=ADDRESS[@ZONE]")]
    pub(crate) with: Option<String>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// Arguments of `warm` and `drop`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// Name or digest (sha256:…)
    pub(crate) image: String,
    /// Chunks at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) l2: L2Args,
}

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Name of the node in the members file
    pub(crate) node: String,
    /// Have it take shards again
    #[arg(long)]
    pub(crate) undo: bool,
    /// Shards copied at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// Arguments of `scrub`.
#[derive(Debug, clap::Args)]
pub(crate) struct ScrubArgs {
    /// Names of the nodes [default: all]
    pub(crate) nodes: Vec<String>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Distinct chunks
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) chunks: u32,
    /// Bytes of each
    #[arg(long, default_value = "512K", value_parser = size)]
    pub(crate) size: u64,
    /// Reads at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// How long to read
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}
