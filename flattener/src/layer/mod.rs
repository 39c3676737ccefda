//! What one layer of an image says: its entries and where the bytes of its files wait.
//!
//! A layer blob is read once, front to back: decompressed, digested, parsed. Metadata
//! becomes [`entry::LayerEntry`] values in tar order; file contents go to a spool (one
//! unlinked temporary file per layer), from which chunks are rendered later in any order.

pub mod entry;
