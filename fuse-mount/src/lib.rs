//! Block devices as files the kernel can use.
//!
//! This crate knows devices and the kernel and nothing of chunks. A device is anything that
//! implements [`BlockDevice`]; [`FuseMount`] shows many of them as regular files of one FUSE
//! file system, [`LoopDevice`] turns such a file into a kernel block device, and [`DeviceMount`]
//! does the whole way: device, FUSE file, loop device, ext4 mounted at a path, and back.
//!
//! Two rules hold everywhere. The process that serves the FUSE mount never touches that mount
//! from a thread that answers requests: every blocking call on it runs on a thread of its own
//! (`off_thread.rs`). And nothing a device answers, or fails to answer, can block an unmount for
//! longer than its deadline.
//!
//! Data plane: `fs.rs`, `bridge.rs`, `table.rs`. Control plane: everything else.

mod bridge;
mod device;
mod device_mount;
mod errno;
mod error;
mod ext4;
mod faulty;
mod fs;
mod loop_attach;
mod mount;
mod mountinfo;
mod off_thread;
mod ram;
mod stale;
mod sys;
mod table;

pub use device::{BlockDevice, DeviceBytes, DeviceError, ErrorKind, SECTOR_SIZE};
pub use device_mount::{DeviceMount, DeviceMountOptions, IfBusy};
pub use error::MountError;
pub use faulty::{Fault, FaultyDevice};
pub use loop_attach::{LoopDevice, LoopOptions};
pub use mount::{FuseMount, FuseMountOptions};
pub use ram::RamDevice;
pub use stale::{Report, clear_stale};
