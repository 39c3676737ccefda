//! The FUSE file system: one directory, one regular file per device.
//!
//! Reads that the device can answer from memory are answered on the FUSE thread; everything else
//! goes through `bridge.rs`. No request can panic a FUSE thread, and none touches the file system
//! itself. Lengths never change, so attributes and pages stay cached as long as the kernel likes.

use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::bridge::Bridge;
use crate::device::{DeviceBytes, DeviceError, ErrorKind, SECTOR_SIZE};
use crate::table::{ROOT_INODE, Slot, Table};

/// How long the kernel may keep names and attributes: they do not change while a device is shown,
/// and removal invalidates them.
const CACHE_FOR: Duration = Duration::from_secs(3600);

/// Largest request in bytes; the kernel's own limit for FUSE (256 pages).
pub(crate) const MAX_REQUEST_BYTES: u32 = 1024 * 1024;

/// Read-ahead and direct requests the kernel may have outstanding. Each holds at most
/// [`MAX_REQUEST_BYTES`]; fewer starve the loop device's queue, more only wait in ours.
const MAX_BACKGROUND: u16 = 64;

/// The file system over one table of devices.
pub(crate) struct DeviceFs {
    table: Arc<Table>,
    bridge: Bridge,
    flags: FopenFlags,
}

impl DeviceFs {
    /// Serves `table`; with `direct_io` the kernel keeps no pages of the files.
    pub(crate) fn new(table: Arc<Table>, bridge: Bridge, direct_io: bool) -> Self {
        let cached = if direct_io {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        };
        Self { table, bridge, flags: cached | FopenFlags::FOPEN_NOFLUSH }
    }

    /// The device of `inode` and how much of `size` bytes at `offset` lies inside it.
    fn range(&self, inode: INodeNo, offset: u64, size: u64) -> Result<(Arc<Slot>, u64), Errno> {
        // A device removed by force may still have handles: their requests are I/O errors.
        let slot = self.table.by_inode(inode.into()).ok_or(Errno::EIO)?;
        if slot.is_failed() {
            return Err(Errno::EIO);
        }
        let inside = size.min(slot.device.length().saturating_sub(offset));
        Ok((slot, inside))
    }

    /// As [`range`](Self::range) for changes: writable, and the whole range inside.
    fn writable_range(&self, inode: INodeNo, offset: u64, size: u64) -> Result<Arc<Slot>, Errno> {
        let (slot, inside) = self.range(inode, offset, size)?;
        if !slot.device.is_writable() {
            return Err(Errno::EROFS);
        }
        if inside == size { Ok(slot) } else { Err(Errno::ENOSPC) }
    }
}

impl Filesystem for DeviceFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What an older kernel lacks costs speed, not correctness.
        for wish in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS] {
            if config.add_capabilities(wish).is_err() {
                tracing::debug!(?wish, "kernel lacks a FUSE capability");
            }
        }
        if let Err(nearest) = config.set_max_write(MAX_REQUEST_BYTES) {
            tracing::warn!(nearest, "kernel refused 1 MiB requests");
        }
        if config.set_max_background(MAX_BACKGROUND).is_err() {
            tracing::warn!("kernel refused the number of background requests");
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = name.to_str().filter(|_| u64::from(parent) == ROOT_INODE);
        match found.and_then(|name| self.table.by_name(name)) {
            Some(slot) => reply.entry(&CACHE_FOR, &file_attr(&slot), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        if u64::from(ino) == ROOT_INODE {
            return reply.attr(&CACHE_FOR, &attr(ROOT_INODE, FileType::Directory, 0o700, 0));
        }
        match self.table.by_inode(ino.into()) {
            Some(slot) => reply.attr(&CACHE_FOR, &file_attr(&slot)),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Times are accepted and forgotten; everything else is fixed for life.
        match self.table.by_inode(ino.into()) {
            None => reply.error(Errno::EPERM),
            Some(slot) if size.is_some_and(|size| size != slot.device.length()) => {
                reply.error(Errno::EINVAL);
            }
            Some(_) if mode.is_some() || uid.is_some() || gid.is_some() => reply.error(Errno::EPERM),
            Some(slot) => reply.attr(&CACHE_FOR, &file_attr(&slot)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // ESTALE makes the kernel look the name up again: it may be a new device's by now.
        let Some(slot) = self.table.open(ino.into()) else {
            return reply.error(Errno::ESTALE);
        };
        if flags.acc_mode() != OpenAccMode::O_RDONLY && !slot.device.is_writable() {
            slot.release();
            return reply.error(Errno::EROFS);
        }
        reply.opened(FileHandle(slot.inode), self.flags);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(slot) = self.table.by_inode(ino.into()) {
            slot.release();
        }
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (slot, inside) = match self.range(ino, offset, u64::from(size)) {
            Ok(found) => found,
            Err(error) => return reply.error(error),
        };
        let length = u32::try_from(inside).unwrap_or(size);
        if length == 0 {
            return reply.data(&[]);
        }
        let at_once = catch_unwind(AssertUnwindSafe(|| slot.device.try_read_at(offset, length)));
        match at_once {
            Ok(Some(bytes)) => match checked(bytes, offset, length) {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => {
                    tracing::error!(device = slot.name, %error, "device broke its contract");
                    reply.error(Errno::EIO);
                }
            },
            Ok(None) => self.bridge.dispatch(
                slot,
                "read",
                move |slot| async move {
                    slot.device.read_at(offset, length).await.and_then(|bytes| checked(bytes, offset, length))
                },
                move |outcome| match outcome {
                    Ok(bytes) => reply.data(&bytes),
                    Err(error) => reply.error(error),
                },
            ),
            Err(_) => {
                tracing::error!(device = slot.name, offset, length, "device panicked in a read from memory");
                reply.error(Errno::EIO);
            }
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let slot = match self.writable_range(ino, offset, data.len() as u64) {
            Ok(slot) => slot,
            Err(error) => return reply.error(error),
        };
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let data = Bytes::copy_from_slice(data);
        self.bridge.dispatch(
            slot,
            "write",
            move |slot| async move { slot.device.write_at(offset, data).await },
            move |outcome| match outcome {
                Ok(()) => reply.written(written),
                Err(error) => reply.error(error),
            },
        );
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.range(ino, 0, 0) {
            Err(error) => reply.error(error),
            Ok((slot, _)) if !slot.device.is_writable() => reply.ok(),
            Ok((slot, _)) => self.bridge.dispatch(
                slot,
                "flush",
                |slot| async move { slot.device.flush().await },
                move |outcome| answer(outcome, reply),
            ),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // A discarded range reads as zeros, so both modes are the same here.
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let zero = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        if (mode != punch && mode != zero && mode != libc::FALLOC_FL_ZERO_RANGE) || length == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        match self.writable_range(ino, offset, length) {
            Err(error) => reply.error(error),
            Ok(slot) => self.bridge.dispatch(
                slot,
                "discard",
                move |slot| async move { slot.device.discard(offset, length).await },
                move |outcome| answer(outcome, reply),
            ),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if u64::from(ino) != ROOT_INODE {
            return reply.error(Errno::ENOTDIR);
        }
        // The cookie of an entry is its inode number: removals in between skip nothing else.
        for (cookie, name) in [(1, "."), (2, "..")] {
            let is_full = offset < cookie && reply.add(ino, cookie, FileType::Directory, name);
            if is_full {
                return reply.ok();
            }
        }
        // Inodes begin at 2 and the cookies of files after 2, hence the shift by one.
        for (name, inode) in self.table.list(offset.saturating_sub(1).max(ROOT_INODE)) {
            if reply.add(INodeNo(inode), inode + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        // The block size is what a loop device takes as its discard granularity.
        reply.statfs(0, 0, 0, 0, 0, SECTOR_SIZE, 255, SECTOR_SIZE);
    }
}

fn answer(outcome: Result<(), Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// The bytes as one slice if there are as many as asked for: a short read would become zeros.
fn checked(bytes: DeviceBytes, offset: u64, length: u32) -> Result<Bytes, DeviceError> {
    let got = bytes.len();
    if u64::try_from(got).is_ok_and(|got| got == u64::from(length)) {
        return Ok(bytes.into_contiguous());
    }
    let message = format!("read of {length} bytes at {offset} gave {got}");
    Err(DeviceError::new(ErrorKind::Internal, message))
}

fn file_attr(slot: &Slot) -> FileAttr {
    let perm = if slot.device.is_writable() { 0o600 } else { 0o400 };
    attr(slot.inode, FileType::RegularFile, perm, slot.device.length())
}

fn attr(inode: u64, kind: FileType, perm: u16, size: u64) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size / 512,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: SECTOR_SIZE,
        flags: 0,
    }
}
