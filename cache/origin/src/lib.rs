//! The store, where writer and readers meet: sealed chunks, manifests, references, roots.

pub mod store;
