//! `cache-ops simulate`: a fleet in virtual time. The simulation is the library's; this
//! prints it.

use crate::{print, print_json};
use anyhow::{Context, Result};
use cache::simulate::{SimulateArgs, table};
use std::process::ExitCode;

pub(crate) async fn run(args: SimulateArgs) -> Result<ExitCode> {
    if args.print_scenario {
        print(toml::to_string(&args.scenario()?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let json = args.json;
    // minutes of computing: off the reactor, so that an interrupt ends it
    let simulation = tokio::task::spawn_blocking(move || args.simulate());
    let outcome = simulation.await.context("the simulation stopped")??;
    if json {
        print_json(&outcome)?;
    } else {
        print(table(&outcome).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
