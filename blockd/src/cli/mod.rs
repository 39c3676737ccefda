//! Arguments of the `blockd` command.

pub(crate) mod function;
pub(crate) mod run;

use blockd::config::{ClientArgs, FunctionsArgs, SandboxArgs, WorkerArgs};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use origin::settings::StoreArgs;
use std::path::PathBuf;

/// Run containers whose blocks arrive on demand.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Who does the work of `run` and `mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The daemon, if one answers; else this process.
    Daemon,
    /// This process: the store was named on the command line.
    Alone,
}

impl Cli {
    /// The arguments of this process; ends it when they are wrong.
    pub(crate) fn from_process() -> (Self, By) {
        let matches = Self::command().get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let named = matches.subcommand().is_some_and(|(_, matches)| {
            matches.ids().any(|id| id == "store")
                && matches.value_source("store") == Some(ValueSource::CommandLine)
        });
        (cli, if named { By::Alone } else { By::Daemon })
    }
}

const EXAMPLES: &str = "\
Examples:
  blockd run app --store file:///var/lib/images --stats
  blockd run app --store file:///var/lib/images --rw --memory 512M -- sh -c 'echo hi > /x'
  blockd serve --store s3://bucket/lantern &
  blockd mount app /mnt/app && ls /mnt/app && blockd umount /mnt/app
  blockd ps

With a daemon (`blockd serve`) the other commands use it; without one, or with --store
on the command line, `run` and `mount` do it all in one process.

Exit codes: that of the command that was run; else 2 bad arguments, 3 not found,
4 invalid or corrupt, 5 unavailable, 6 denied, 7 out of space, 125 not started.";

/// What a daemon is started with.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    #[command(flatten)]
    pub(crate) functions: FunctionsArgs,
    #[command(flatten)]
    pub(crate) sandboxes: SandboxArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve images as a daemon, controlled through a Unix socket
    #[command(
        after_help = "Examples:\n  blockd serve --store file:///var/lib/images\n  blockd serve --store s3://bucket/lantern --ssd-cache 100G --memory-cache 4G\n  blockd serve --store file:///var/lib/images --functions-listen 127.0.0.1:9000 --access-keys keys.toml"
    )]
    Serve(Box<ServeArgs>),
    /// Run an image's command in a sandbox
    #[command(
        after_help = "Examples:\n  blockd run python --store file:///var/lib/images --stats\n  blockd run python -e LANG=C --memory 512M --cpus 0.5 -- -c 'print(1)'\n  blockd run app --rw --mount type=bind,source=/srv/data,target=/data,readonly\n  blockd run app --entrypoint /bin/sh -u root"
    )]
    Run(Box<run::RunArgs>),
    /// Mount an image at a directory
    #[command(
        after_help = "Examples:\n  blockd mount app /mnt/app\n  blockd mount app /mnt/app --rw\n  blockd mount app /mnt/app --store file:///var/lib/images   # without a daemon, until Ctrl-C"
    )]
    Mount {
        /// Name or digest (sha256:…)
        image: String,
        /// The directory, which must exist
        directory: PathBuf,
        /// Writable; what is written ends with the mount
        #[arg(long)]
        rw: bool,
        #[command(flatten)]
        store: Box<StoreArgs>,
        #[command(flatten)]
        worker: Box<WorkerArgs>,
    },
    /// Undo a mount of the daemon's
    #[command(after_help = "Examples:\n  blockd umount /mnt/app")]
    Umount {
        /// The directory, or the instance's id
        target: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the daemon's instances
    #[command(after_help = "Examples:\n  blockd ps\n  blockd ps --json | jq -r '.[].directory'")]
    Ps {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what the daemon is doing, as JSON
    #[command(after_help = "Examples:\n  blockd status | jq .tiers")]
    Status {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make, invoke and look after the daemon's functions
    #[command(
        after_help = "Examples:\n  blockd function create hello app --runtime python -- app.handler\n  blockd function invoke hello '{\"name\":\"you\"}'\n  blockd function logs hello"
    )]
    Function {
        #[command(subcommand)]
        command: function::FunctionCommand,
    },
    /// Remove what workers that died left behind
    #[command(after_help = "Examples:\n  blockd cleanup\n  blockd cleanup --run-dir /run/lantern-test")]
    Cleanup {
        /// OCI runtime that ran sandboxes [default: crun]
        #[arg(long, env = "LANTERN_OCI_RUNTIME", value_name = "PROGRAM")]
        oci_runtime: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print shell completions
    #[command(
        after_help = "Examples:\n  blockd completions zsh > /usr/local/share/zsh/site-functions/_blockd"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}
