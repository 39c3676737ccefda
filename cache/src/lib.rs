//! The read path: memory, SSD, the remote fleet and the origin, one fetch per chunk at a time,
//! verified before use; and the nodes of the fleet.

pub mod l2;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod policy;
pub mod prefetch;
pub mod prometheus;
pub mod read_path;
pub mod simulate;
pub mod size;
pub mod ssd;
pub mod tier;
