//! What the subcommands do, apart from reading arguments and printing: each module takes
//! opened things and returns a report.

pub mod diff;
pub mod export;
pub mod verify;
