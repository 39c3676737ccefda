//! The read path: memory, SSD and origin, one fetch per chunk at a time, verified before use.

pub mod memory;
pub mod metrics;
pub mod policy;
pub mod prefetch;
pub mod read_path;
pub mod simulate;
pub mod size;
pub mod ssd;
pub mod tier;
