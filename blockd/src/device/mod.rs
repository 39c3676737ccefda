//! The devices of images: what a guest reads, cut into chunks.

mod base;

pub use base::ImageDevice;
