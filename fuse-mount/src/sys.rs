//! The loop device ioctls: all the unsafe code of this crate.
//!
//! The structures are the kernel's (`linux/loop.h`); they have no padding on any 64-bit target.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The loop device accepts no writes.
pub(crate) const LO_FLAGS_READ_ONLY: u32 = 1;
/// The kernel detaches the loop device at its last close.
pub(crate) const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The loop device bypasses the page cache of its file.
pub(crate) const LO_FLAGS_DIRECT_IO: u32 = 16;

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// The number of a loop device that was free a moment ago; made if there was none.
pub(crate) fn loop_get_free(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the request takes no argument and only returns a number; the descriptor is borrowed
    // and so open for the call.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Attaches `backing` to the loop device `device`; `EBUSY` if another was faster.
pub(crate) fn loop_configure(
    device: BorrowedFd<'_>,
    backing: BorrowedFd<'_>,
    block_size: u32,
    flags: u32,
) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let info = LoopInfo64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the request reads one `loop_config`, whose layout `LoopConfig` has, from a valid
    // pointer that lives until the call returns; both descriptors are borrowed and so open.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Detaches what is attached, at the latest when the last user closes the loop device.
pub(crate) fn loop_clear(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes no argument; the descriptor is borrowed and so open for the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
