//! The worker: images as block devices whose blocks arrive on demand, mounted, and commands
//! run on them.

pub mod api;
pub mod config;
pub mod cpus;
pub mod daemon;
pub mod device;
pub mod functions;
pub mod image;
pub mod open_files;
pub mod report;
pub mod report_kind;
pub mod run_dir;
pub mod starts;
pub mod worker;
