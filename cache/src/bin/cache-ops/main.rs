//! The `cache-ops` command: what operators of the remote cache see and do.
//!
//! Exit codes: 0 done; 2 bad arguments; 3 no such image or node; 4 bad data was found;
//! 5 a node or the store did not answer; 1 anything else.

mod admin;
mod bench;
mod cli;
mod drain;
mod image;
mod ring;
mod scrub;
mod simulate;
mod status;

use anyhow::{Context, Result};
use cache::simulate::ArgsError;
use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use fleet::settings::L2Error;
use origin::catalog::CatalogError;
use origin::settings::SettingsError;
use origin::store::ErrorKind;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("LANTERN_LOG").unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("the async runtime could not be started").and_then(|runtime| {
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = run(cli) => outcome,
                _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
            }
        });
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "cache-ops: {error:#}");
        ExitCode::from(exit_code(&error))
    })
}

/// A failure with its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Failed {
    message: String,
    code: u8,
}

fn failed(code: u8, message: impl Into<String>) -> anyhow::Error {
    Failed { message: message.into(), code }.into()
}

fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(failed) = cause.downcast_ref::<Failed>() {
            return failed.code;
        }
        if cause.is::<SettingsError>() || cause.is::<L2Error>() || cause.is::<ArgsError>() {
            return 2;
        }
        if let Some(error) = cause.downcast_ref::<CatalogError>() {
            return match error.kind() {
                ErrorKind::NotFound => 3,
                ErrorKind::Corrupt => 4,
                ErrorKind::Unavailable => 5,
                _ => 1,
            };
        }
    }
    1
}

/// Prints a line of a result.
fn print(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Status(args) => status::run(&args).await,
        Command::Ring(args) => ring::run(&args).await,
        Command::Warm(args) => image::warm(&args).await,
        Command::Drop(args) => image::drop_image(&args).await,
        Command::Drain(args) => drain::run(&args).await,
        Command::Scrub(args) => scrub::run(&args).await,
        Command::Bench(args) => bench::run(&args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "cache-ops", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
