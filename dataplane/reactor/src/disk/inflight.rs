//! One operation while the kernel has it: what is left to do, and what a completion means.

use io_uring::{opcode, squeue, types};
use ogive_buf::{ArenaId, Buf, BufMut};

use super::Target;
use super::registered::Registered;
use crate::limits;
use ogive_store::{DiskDone, DiskError, DiskOp, OpId};

/// An operation and its progress.
pub(super) struct InFlight {
    id: OpId,
    /// Byte on the device where the rest begins.
    addr: u64,
    /// The memory of the rest; empty for a flush.
    rest: Rest,
    retries: u8,
    kind: Kind,
}

enum Kind {
    /// The buffers are held, not read: the kernel reads them through `rest`.
    Write(#[expect(dead_code, reason = "keeps the memory alive")] Vec<Buf>),
    Read(BufMut),
    Flush,
}

/// What a completion leads to.
pub(super) enum Step {
    /// Some is left, or the kernel asks to try again: submit the rest.
    Again,
    Done(Result<(), DiskError>),
}

impl InFlight {
    pub(super) fn new(op: DiskOp) -> InFlight {
        match op {
            DiskOp::Write { id, addr, bufs } => {
                let rest = Rest::new(bufs.iter().map(|b| (piece(b), b.arena())));
                InFlight { id, addr, rest, retries: 0, kind: Kind::Write(bufs) }
            }
            DiskOp::Read { id, addr, mut buf } => {
                let whole = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
                let rest = Rest::new([(whole, buf.arena())].into_iter());
                InFlight { id, addr, rest, retries: 0, kind: Kind::Read(buf) }
            }
            DiskOp::Flush { id } => {
                let rest = Rest::new(std::iter::empty());
                InFlight { id, addr: 0, rest, retries: 0, kind: Kind::Flush }
            }
        }
    }

    /// The submission entry for what is left.
    pub(super) fn entry(&self, to: Target, registered: &Registered) -> squeue::Entry {
        let pieces = self.rest.pieces();
        let first = pieces.first().copied();
        let first = first.unwrap_or(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        let (start, len) = (first.iov_base.cast::<u8>(), first.iov_len as u32);
        let (file, addr) = (to.file, self.addr);
        let fixed = self.rest.arena().and_then(|arena| registered.index(arena, start));
        let entry = match (&self.kind, fixed) {
            (Kind::Flush, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Kind::Write(_), Some(index)) => {
                opcode::WriteFixed::new(file, start, len, index).offset(addr).build()
            }
            (Kind::Write(_), None) if pieces.len() <= 1 => {
                opcode::Write::new(file, start, len).offset(addr).build()
            }
            (Kind::Write(_), None) => {
                let count = pieces.len().min(limits::IOVECS_MAX) as u32;
                opcode::Writev::new(file, pieces.as_ptr(), count).offset(addr).build()
            }
            (Kind::Read(_), Some(index)) => {
                opcode::ReadFixed::new(file, start, len, index).offset(addr).build()
            }
            (Kind::Read(_), None) => opcode::Read::new(file, start, len).offset(addr).build(),
        };
        entry.flags(to.flags)
    }

    /// What the completion `result` (bytes, or a negated errno) means.
    pub(super) fn step(&mut self, result: i32) -> Step {
        match result {
            0 if self.rest.bytes() == 0 => Step::Done(Ok(())),
            // The end of the device (read) or a device that takes nothing (write): trying again
            // would not end.
            0 => Step::Done(Err(DiskError::Io(libc::EIO))),
            n if n > 0 => {
                self.addr += n as u64;
                self.rest.advance(n as usize);
                if self.rest.bytes() == 0 { Step::Done(Ok(())) } else { Step::Again }
            }
            e if is_passing(-e) && self.retries < limits::RETRIES_MAX => {
                self.retries += 1;
                Step::Again
            }
            e => Step::Done(Err(error_of(-e))),
        }
    }

    /// The report, with a read's buffer given back.
    pub(super) fn end(self, outcome: Result<(), DiskError>) -> DiskDone {
        let buf = match self.kind {
            Kind::Read(buf) => Some(buf),
            Kind::Write(_) | Kind::Flush => None,
        };
        DiskDone { id: self.id, result: outcome.map(|()| buf) }
    }
}

fn piece(buf: &Buf) -> libc::iovec {
    libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() }
}

fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::EINTR | libc::EAGAIN)
}

/// A file that may not grow is a full device to the store.
fn error_of(errno: i32) -> DiskError {
    if errno == libc::EFBIG { DiskError::Full } else { DiskError::from_errno(errno) }
}

/// Memory still to be read or written, in order; empty pieces are left out.
struct Rest {
    pieces: Vec<libc::iovec>,
    /// The first piece that is not done.
    at: usize,
    bytes: usize,
    /// The arena of the first piece; only single pieces use it.
    arena: Option<ArenaId>,
}

impl Rest {
    fn new(pieces: impl Iterator<Item = (libc::iovec, ArenaId)>) -> Rest {
        let mut rest = Rest { pieces: Vec::new(), at: 0, bytes: 0, arena: None };
        for (piece, arena) in pieces.filter(|(p, _)| p.iov_len > 0) {
            rest.arena.get_or_insert(arena);
            rest.bytes += piece.iov_len;
            rest.pieces.push(piece);
        }
        rest
    }

    fn pieces(&self) -> &[libc::iovec] {
        &self.pieces[self.at..]
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    /// The arena of a single piece.
    fn arena(&self) -> Option<ArenaId> {
        self.arena.filter(|_| self.pieces.len() == 1)
    }

    /// Drops the first `done` bytes.
    fn advance(&mut self, done: usize) {
        assert!(done <= self.bytes, "the kernel did more than it was asked");
        self.bytes -= done;
        let mut left = done;
        while left > 0 {
            let piece = &mut self.pieces[self.at];
            let step = left.min(piece.iov_len);
            piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(step).cast();
            piece.iov_len -= step;
            left -= step;
            if piece.iov_len == 0 {
                self.at += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "inflight_tests.rs"]
mod tests;
