//! What the store asks of a disk.
use ogive_buf::{Buf, BufMut};
/// Id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);
/// An operation.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum DiskOp {
    Write { id: OpId, addr: u64, bufs: Vec<Buf> },
    Read { id: OpId, addr: u64, buf: BufMut },
    Flush { id: OpId },
}
/// Done.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct DiskDone {
    pub id: OpId,
    pub result: Result<Option<BufMut>, DiskError>,
}
/// Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DiskError {
    #[error("no space")]
    NoSpace,
    #[error("io {0}")]
    Io(i32),
}
