//! Where images come from: registries, OCI layouts and archives, by one interface.
//!
//! A name ([`ImageRef`]) is opened to an [`ImageSource`], which resolves to one [`Image`]
//! (one platform) and hands out its layer blobs as readers. Invariants: every document
//! (index, manifest, config) is verified against the digest that named it before it is
//! parsed further; layer blobs are verified by whoever reads them
//! ([`crate::layer::read_layer`]); no document is longer than 4 MiB.

mod challenge;
mod credentials;
mod docker_archive;
mod download;
mod error;
mod files;
mod http;
mod layout;
mod manifest;
mod platform;
mod reference;
mod registry;
mod source;
#[cfg(test)]
mod tests;

pub use error::{SourceError, SourceFault};
pub use platform::{Platform, PlatformError};
pub use reference::{ImageRef, ReferenceError, RegistryRef};
pub use source::{Image, ImageSource, SourceOptions, open};
