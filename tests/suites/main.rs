//! All end-to-end suites, in one binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests fail by panicking")]

mod architecture;
mod clients;
mod conformance;
mod fleet;
mod front_door;
mod functions;
mod on_s3;
mod pushing;
mod right_bytes;
mod running;
mod runtimes;
