//! The devices of images and of writable instances.
//!
//! [`ImageDevice`] reads an image; [`ComposedDevice`] puts an [`Overlay`] over it.

mod base;
mod composed;
mod overlay;

pub use base::ImageDevice;
pub use composed::ComposedDevice;
pub use overlay::Overlay;
