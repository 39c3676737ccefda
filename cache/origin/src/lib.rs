//! The store, where writer and readers meet: sealed chunks, manifests, references, roots.

pub mod catalog;
pub mod counting;
pub mod dir;
pub mod faulty;
pub mod intercept;
pub mod keyring;
pub mod memory;
pub mod retry;
pub mod s3;
pub mod settings;
pub mod store;
pub mod throttle;
