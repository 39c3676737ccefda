//! What the dispatcher decides by: how many invocations share a sandbox, whether one more
//! sandbox is started, and how long an idle one is kept.
//!
//! Everything here is pure: no I/O, no clock, no chance. Time comes in as
//! [`Instant`](std::time::Instant), measurements as plain numbers, and the same calls in the
//! same order give the same answers. The dispatcher owns the values and does what they say.

pub mod admission;
pub mod concurrency;
pub mod keepalive;
