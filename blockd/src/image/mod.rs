//! Images and instances on this worker: what is mounted, by whom it is used, and how it goes.

mod registry;

pub use registry::{Images, MountedImage};
