//! Arguments of the `flattener` command.

pub(crate) mod inspect;
pub(crate) mod list;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flattener::layer::Limits;
use fleet::settings::L2Args;
use image_format::seal;
use origin::settings::StoreArgs;
use std::path::PathBuf;

/// Turn container images into lazily loadable, deduplicated, encrypted chunks.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print results as JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  flattener push docker.io/library/python:3.12 --store file:///var/lib/images
  flattener push oci:./layout:v1 --name app --store s3://bucket/lantern
  flattener ls --store file:///var/lib/images
  flattener verify app --store file:///var/lib/images
  flattener export app --output app.ext4 --store file:///var/lib/images

Exit codes: 0 done, 1 checked and found wrong, 2 bad arguments, 3 not found,
4 invalid or corrupt, 5 unavailable, 6 denied, 7 out of space or over a limit.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Flatten an image and store what is new of it
    #[command(after_help = PUSH_EXAMPLES)]
    Push(Box<PushArgs>),
    /// List the images of the store
    #[command(after_help = "Examples:\n  flattener ls\n  flattener ls --json | jq -r '.[].name'")]
    Ls(StoreArgs),
    /// Show an image's manifest and configuration
    #[command(
        after_help = "Examples:\n  flattener inspect app\n  flattener inspect app --json | jq .config.Env"
    )]
    Inspect {
        /// Name or digest (sha256:…)
        image: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Fetch and check every chunk of an image
    #[command(
        after_help = "Examples:\n  flattener verify app\n  flattener verify sha256:2c9a… --quiet || echo damaged"
    )]
    Verify {
        /// Name or digest (sha256:…)
        image: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write an image as a plain ext4 file
    #[command(
        after_help = "Examples:\n  flattener export app -o app.ext4 && mount -o ro,loop,noload app.ext4 /mnt"
    )]
    Export {
        /// Name or digest (sha256:…)
        image: String,
        /// The file to write; replaced if it exists
        #[arg(long, short)]
        output: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Say what two images share, chunk by chunk and byte by byte
    #[command(
        after_help = "Examples:\n  flattener diff app-v1 app-v2\n  flattener diff app-v1 app-v2 --chunks-only --json"
    )]
    Diff {
        /// The image that is there: name or digest
        a: String,
        /// The image that is compared with it
        b: String,
        /// Compare chunk lists only; fetch nothing
        #[arg(long)]
        chunks_only: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Make a private dedup domain with a secret salt in the keyring
    #[command(
        after_help = "Examples:\n  flattener add-domain team-a && flattener push oci:./layout:v1 --domain team-a"
    )]
    AddDomain {
        /// Its name
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Print shell completions
    #[command(
        after_help = "Examples:\n  flattener completions bash > /usr/share/bash-completion/completions/flattener"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

const PUSH_EXAMPLES: &str = "\
Examples:
  flattener push docker.io/library/python:3.12 --name python
  flattener push oci:./layout:v1 --platform linux/arm64 --compression none
  flattener push docker://127.0.0.1:5000/app:v1 --plain-http 127.0.0.1:5000

Images are named as skopeo and podman do (containers-transports(5)):
  docker://HOST/REPO:TAG or @DIGEST   a registry; docker:// may be left out
  oci:DIRECTORY[:TAG]                 an OCI layout
  oci-archive:FILE[:TAG]              a layout in a tar file
  docker-archive:FILE[:REF]           what docker save writes

Credentials come from REGISTRY_AUTH_FILE, containers' auth.json or Docker's
config.json and its credential helpers.";

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image
    pub(crate) image: String,
    /// Name to run it by [default: from the image's own name]
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Platform to take from an index, e.g. linux/arm64 [default: this host's]
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// The only file to look for registry credentials in
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Registry to speak to without TLS; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) plain_http: Vec<String>,
    /// Certificate to trust besides the system's (PEM); may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Vec<PathBuf>,
    /// Dedup domain; others than `public` have a secret salt in the keyring
    #[arg(long, env = "LANTERN_DOMAIN", default_value = "public")]
    pub(crate) domain: String,
    /// Compression of chunks
    #[arg(long, env = "LANTERN_COMPRESSION", value_enum, default_value_t = Compression::Zstd)]
    pub(crate) compression: Compression,
    /// Also write all chunks to the remote cache (--l2), so that the first start finds them there
    #[arg(long, env = "LANTERN_PRIME")]
    pub(crate) prime: bool,
    #[command(flatten)]
    pub(crate) l2: L2Args,
    /// Threads that render and seal [default: one per core]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Uploads in flight
    #[arg(long, default_value_t = 16)]
    pub(crate) uploads: usize,
    /// Where layers wait, in unlinked files [default: TMPDIR]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Most archive entries in all layers
    #[arg(long, default_value_t = Limits::default().entries)]
    pub(crate) max_entries: u64,
    /// Most bytes of names, link targets and extended attributes in all layers
    #[arg(long, default_value_t = Limits::default().metadata_bytes)]
    pub(crate) max_metadata_bytes: u64,
    /// Most uncompressed bytes in all layers
    #[arg(long, default_value_t = Limits::default().uncompressed_bytes)]
    pub(crate) max_uncompressed_bytes: u64,
    /// Largest file
    #[arg(long, default_value_t = Limits::default().file_bytes)]
    pub(crate) max_file_bytes: u64,
    /// Most disk for waiting layers
    #[arg(long, default_value_t = Limits::default().spool_bytes)]
    pub(crate) max_spool_bytes: u64,
    /// Most data runs in all files
    #[arg(long, default_value_t = Limits::default().segments)]
    pub(crate) max_segments: u64,
}

impl PushArgs {
    /// The bounds on what the image may hold.
    pub(crate) const fn limits(&self) -> Limits {
        Limits {
            entries: self.max_entries,
            metadata_bytes: self.max_metadata_bytes,
            uncompressed_bytes: self.max_uncompressed_bytes,
            file_bytes: self.max_file_bytes,
            spool_bytes: self.max_spool_bytes,
            segments: self.max_segments,
        }
    }
}

/// Compression of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// zstd level 1 where it saves a tenth; chunk sizes then tell how compressible they are
    Zstd,
    /// None: sizes reveal only trailing zeros
    None,
}

impl From<Compression> for seal::Compression {
    fn from(choice: Compression) -> Self {
        match choice {
            Compression::Zstd => Self::Zstd(1),
            Compression::None => Self::Off,
        }
    }
}
