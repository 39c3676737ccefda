//! The store, where writer and readers meet: sealed chunks, manifests, references, roots.

pub mod catalog;
pub mod keyring;
pub mod store;
