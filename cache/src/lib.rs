//! The read path: memory, SSD and origin, one fetch per chunk at a time, verified before use.

pub mod tier;
