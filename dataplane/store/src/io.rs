//! What the store asks of a disk: operations that end later, and a small blocking interface for
//! format and recovery.
//!
//! The engine emits [`DiskOp`]s and is told of their ends as [`DiskDone`]s, in any order. Nothing
//! is ordered between operations in flight; a [`DiskOp::Flush`] covers exactly the writes that had
//! ended when it was submitted. The disk ring runs them on a device, [`crate::simdisk`] in memory.

use std::io;

use ogive_buf::{Buf, BufMut};

/// Names an operation from its submission to its end; given by whoever submits, unique while in
/// flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// An operation on the device. Addresses are byte offsets on the device; they and all lengths are
/// multiples of the sector.
#[derive(Debug)]
pub enum DiskOp {
    /// Writes `bufs` one after the other from `addr` on.
    Write {
        /// Its name.
        id: OpId,
        /// Byte offset on the device.
        addr: u64,
        /// What to write; none is empty.
        bufs: Vec<Buf>,
    },
    /// Fills `buf` from `addr` on.
    Read {
        /// Its name.
        id: OpId,
        /// Byte offset on the device.
        addr: u64,
        /// Where to; its length is the length of the read. Comes back with the [`DiskDone`].
        buf: BufMut,
    },
    /// Makes every write that ended before this was submitted survive a power cut.
    Flush {
        /// Its name.
        id: OpId,
    },
}

impl DiskOp {
    /// The operation's name.
    pub fn id(&self) -> OpId {
        match self {
            DiskOp::Write { id, .. } | DiskOp::Read { id, .. } | DiskOp::Flush { id } => *id,
        }
    }

    /// Bytes that it moves; zero for a flush.
    pub fn bytes(&self) -> u64 {
        match self {
            DiskOp::Write { bufs, .. } => bufs.iter().map(|buf| buf.len() as u64).sum(),
            DiskOp::Read { buf, .. } => buf.len() as u64,
            DiskOp::Flush { .. } => 0,
        }
    }
}

/// The end of an operation. Every operation ends exactly once.
#[derive(Debug)]
pub struct DiskDone {
    /// Which operation.
    pub id: OpId,
    /// The filled buffer of a read, `None` for a write or a flush; or why it failed. After a failed
    /// write the range holds anything; after a failed flush none of the writes that it was to cover
    /// may be counted as stable.
    pub result: Result<Option<BufMut>, DiskError>,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DiskError {
    /// The device or the kernel refused; the number is an errno.
    #[error(
        "disk error: {}; see the kernel log for the device's health",
        io::Error::from_raw_os_error(*.0)
    )]
    Io(i32),
    /// No space behind the device: a file without preallocation, or a thin device whose pool is
    /// full.
    #[error("no space behind the device; free some in its file system or thin pool")]
    Full,
}

impl DiskError {
    /// The error for an errno: [`DiskError::Full`] for ENOSPC and EDQUOT, otherwise
    /// [`DiskError::Io`].
    pub fn from_errno(errno: i32) -> DiskError {
        match errno {
            libc::ENOSPC | libc::EDQUOT => DiskError::Full,
            errno => DiskError::Io(errno),
        }
    }
}

/// Blocking access to a whole device, for format, recovery and inspection. Any address, length and
/// alignment inside the device is accepted; a range that passes its end is an error of kind
/// `UnexpectedEof` (read) or `WriteZero` (write).
#[allow(clippy::len_without_is_empty)] // a device is never empty
pub trait RegionIo {
    /// Fills `buf` from byte `addr` on.
    ///
    /// # Errors
    /// When the device does not give all bytes.
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes `data` from byte `addr` on. Not stable before [`RegionIo::flush`].
    ///
    /// # Errors
    /// When the device does not take all bytes; the range then holds anything.
    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything written before stable.
    ///
    /// # Errors
    /// When the device cannot promise it.
    fn flush(&mut self) -> io::Result<()>;

    /// Length in bytes, a multiple of 4096.
    fn len(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_space_are_told_apart() {
        assert_eq!(DiskError::from_errno(libc::ENOSPC), DiskError::Full);
        assert_eq!(DiskError::from_errno(libc::EDQUOT), DiskError::Full);
        assert_eq!(DiskError::from_errno(libc::EIO), DiskError::Io(libc::EIO));
        assert!(DiskError::Io(libc::EIO).to_string().contains("Input/output error"));
    }
}
