//! The remote cache fleet as its clients see it (ATC'23 section 4): which nodes hold a chunk,
//! how a chunk becomes a stripe of shards and back, what goes over the wire.

pub mod client;
pub mod members;
pub mod membership;
pub mod ring;
pub mod settings;
pub mod stripe;
pub mod transport;
pub mod wire;
