//! Images against independent readers and checkers: e2fsck, the ext4-view crate, the kernel.

mod cases;
pub(crate) mod support;
