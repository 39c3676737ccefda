//! The one table from kinds of failure to what the kernel is told.

use fuser::Errno;

use crate::device::ErrorKind;

/// The errno for a device's failure. Bytes that cannot be had or verified are an I/O error,
/// whatever the reason: the reader must never take them for data.
pub(crate) fn of_kind(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::Invalid => Errno::EINVAL,
        ErrorKind::Exhausted => Errno::ENOSPC,
        ErrorKind::Denied => Errno::EROFS,
        ErrorKind::Busy => Errno::EBUSY,
        // What is missing is a part of the device, not a file: ENOENT would mislead.
        ErrorKind::NotFound
        | ErrorKind::Corrupt
        | ErrorKind::Unavailable
        | ErrorKind::TimedOut
        | ErrorKind::Internal => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_cannot_be_had_are_an_input_output_error() {
        for kind in [ErrorKind::NotFound, ErrorKind::Corrupt, ErrorKind::Unavailable, ErrorKind::TimedOut] {
            assert_eq!(of_kind(kind).code(), libc::EIO, "{kind:?}");
        }
        assert_eq!(of_kind(ErrorKind::Exhausted).code(), libc::ENOSPC);
        assert_eq!(of_kind(ErrorKind::Denied).code(), libc::EROFS);
    }
}
