//! Images and instances on this worker: what is mounted, by whom it is used, and how it goes.

mod functions;
mod registry;

pub use functions::FunctionImages;
pub use registry::{Images, MountedImage};
