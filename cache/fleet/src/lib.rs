//! The remote cache fleet as its clients see it (ATC'23 section 4): which nodes hold a chunk,
//! how a chunk becomes a stripe of shards and back, what goes over the wire.

pub mod members;
pub mod ring;
pub mod stripe;
