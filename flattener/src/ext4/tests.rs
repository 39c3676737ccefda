//! Images against independent readers and checkers: e2fsck, the ext4-view crate, the kernel.

mod cases;
mod golden;
mod placement;
mod privileged;
mod random;
pub(crate) mod support;
