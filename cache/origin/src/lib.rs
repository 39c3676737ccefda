//! The store, where writer and readers meet: sealed chunks, manifests, references, roots.

pub mod catalog;
pub mod dir;
pub mod keyring;
pub mod memory;
pub mod settings;
pub mod store;
