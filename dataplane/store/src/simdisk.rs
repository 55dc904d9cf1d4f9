//! A disk in memory with the faults of real ones, for simulators and tests.
//!
//! Three layers hold what was written:
//!
//! ```text
//!   pending     submitted, not ended: reads do not see it, a power cut may keep any of its sectors
//!   unflushed   ended, in the cache: reads see it, a power cut may keep any of its sectors
//!   durable     covered by a flush: survives
//! ```
//!
//! Operations end when the owner says so and in the order that he draws. A flush makes durable
//! exactly the writes that had ended when it was submitted. Without a volatile cache
//! ([`SimDisk::set_volatile_cache`]) a write is durable when it ends. Nothing depends on clocks,
//! addresses in memory or the order of a hash table: equal calls give equal disks.
//!
//! | file | content |
//! |---|---|
//! | `faults.rs` | what goes wrong, asked for or drawn |
//! | `tape.rs` | records a disk's life, and gives every medium that a power cut could leave |
//! | `image.rs` | such a medium |
//! | `pages.rs` | sparse memory, shared between copies |

mod faults;
mod image;
mod pages;
mod tape;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use ogive_buf::Buf;

use crate::io::{DiskDone, DiskError, DiskOp, OpId, RegionIo};

use self::faults::Faults;
use self::pages::Pages;

pub use self::faults::{Fault, FaultCounts, FaultRates};
pub use self::image::Image;
pub use self::tape::{InAir, Player, Tape, TapeEvent};

/// A source of numbers: uniform below its argument, which is never zero.
pub type Draw<'a> = dyn FnMut(u64) -> u64 + 'a;

/// What went through a disk, as its owner submitted it. Blocking accesses count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads that ended well.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Writes that ended well.
    pub writes: u64,
    /// Bytes of them.
    pub write_bytes: u64,
    /// Flushes that ended well.
    pub flushes: u64,
    /// What went wrong, by kind.
    pub faults: FaultCounts,
}

/// The disk.
#[derive(Debug)]
pub struct SimDisk {
    len: u64,
    sector: u64,
    volatile_cache: bool,
    durable: Pages,
    /// Pages of the cache that differ from `durable`: the unflushed writes applied in their order.
    cached: Pages,
    /// In order of their ends.
    unflushed: VecDeque<Written>,
    /// Number of the next write to end.
    next_end: u64,
    pending: Vec<Pending>,
    faults: Faults,
    counters: DiskCounters,
    tape: Option<Tape>,
}

/// A write in the cache.
#[derive(Clone, Debug)]
struct Written {
    /// Its place in the order of ends.
    end: u64,
    addr: u64,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    op: DiskOp,
    /// Writes with a lower number had ended when this was submitted.
    after: u64,
    /// Its number on the tape, of a write; of a flush, the ends on the tape when it was submitted.
    on_tape: usize,
    /// Operations that still overtake it.
    overtakers: u64,
}

impl SimDisk {
    /// A disk of `len` bytes, all zero and durable, that writes whole sectors of `sector` bytes
    /// (512 or 4096). It has a volatile cache.
    pub fn new(len: u64, sector: u32) -> SimDisk {
        assert!(matches!(sector, 512 | 4096), "a sector of {sector} bytes");
        assert!(len.is_multiple_of(pages::PAGE_BYTES as u64), "whole pages");
        SimDisk {
            len,
            sector: u64::from(sector),
            volatile_cache: true,
            durable: Pages::default(),
            cached: Pages::default(),
            unflushed: VecDeque::new(),
            next_end: 0,
            pending: Vec::new(),
            faults: Faults::default(),
            counters: DiskCounters::default(),
            tape: None,
        }
    }

    /// With `false` writes are durable when they end, from now on, and those in the cache at once.
    pub fn set_volatile_cache(&mut self, volatile: bool) {
        self.volatile_cache = volatile;
        if !volatile {
            self.make_durable(self.next_end);
        }
    }

    /// Whether an ended write may be lost.
    pub fn volatile_cache(&self) -> bool {
        self.volatile_cache
    }

    /// Bytes that are written at once.
    pub fn sector(&self) -> u32 {
        self.sector as u32
    }

    /// What went through so far.
    pub fn counters(&self) -> DiskCounters {
        self.counters
    }

    /// Takes an operation. It does nothing before it is completed.
    ///
    /// # Panics
    /// When an address or a length is not whole sectors, nothing is to be moved, the range passes
    /// the end of the disk, or the id is in flight: a real device refuses these or does the wrong
    /// thing.
    pub fn submit(&mut self, op: DiskOp) {
        assert!(self.pending.iter().all(|p| p.op.id() != op.id()), "{:?} is in flight", op.id());
        if let DiskOp::Write { addr, .. } | DiskOp::Read { addr, .. } = op {
            let bytes = op.bytes();
            let whole = addr.is_multiple_of(self.sector) && bytes.is_multiple_of(self.sector);
            assert!(whole && bytes > 0, "not whole sectors: {op:?}");
            assert!(addr.checked_add(bytes).is_some_and(|end| end <= self.len), "outside: {op:?}");
        }
        let on_tape = match (&mut self.tape, &op) {
            (Some(tape), DiskOp::Write { addr, bufs, .. }) => tape.write(*addr, &joined(bufs)),
            (Some(tape), _) => tape.ends,
            (None, _) => 0,
        };
        let overtakers = self.faults.overtakers();
        if overtakers > 0 {
            self.counters.faults.count(Fault::Slow);
        }
        self.pending.push(Pending { op, after: self.next_end, on_tape, overtakers });
    }

    /// Operations that have not ended.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Ends one of the pending operations, drawn with `rng`; `None` when there is none. Slow ones
    /// are passed by as long as others are there.
    pub fn complete_next(&mut self, rng: &mut Draw<'_>) -> Option<DiskDone> {
        let ready = |pending: &&Pending| pending.overtakers == 0;
        let count = self.pending.iter().filter(ready).count() as u64;
        if count == 0 {
            self.pending.iter_mut().for_each(|slow| slow.overtakers = 0);
            return if self.pending.is_empty() { None } else { self.complete_next(rng) };
        }
        let nth = rng(count) as usize;
        let mut ready = self.pending.iter().enumerate().filter(|(_, p)| p.overtakers == 0);
        let (at, _) = ready.nth(nth).expect("drawn below their number");
        let pending = self.pending.remove(at);
        for slow in &mut self.pending {
            slow.overtakers = slow.overtakers.saturating_sub(1);
        }
        Some(self.end(pending, rng))
    }

    /// Ends the pending operation `id`; `None` when there is none.
    pub fn complete(&mut self, id: OpId) -> Option<DiskDone> {
        let at = self.pending.iter().position(|pending| pending.op.id() == id)?;
        let pending = self.pending.remove(at);
        Some(self.end(pending, &mut |_| 0))
    }

    /// Cuts the power. Every pending and every unflushed write is kept, lost or torn (an arbitrary
    /// set of its sectors is kept), each for itself. What is durable then remains; operations in
    /// flight never end.
    pub fn power_cut(&mut self, rng: &mut Draw<'_>) {
        let mut order: Vec<Written> = self.unflushed.drain(..).collect();
        for pending in std::mem::take(&mut self.pending) {
            let DiskOp::Write { addr, bufs, .. } = pending.op else { continue };
            // It may have reached the medium at any moment since it was submitted.
            let earliest = order.partition_point(|written| written.end < pending.after);
            let at = earliest + rng((order.len() - earliest) as u64 + 1) as usize;
            let end = order.get(at).map_or(u64::MAX, |next| next.end);
            order.insert(at, Written { end, addr, data: joined(&bufs) });
        }
        for written in &order {
            match rng(3) {
                0 => self.durable.write(written.addr, &written.data),
                1 => {}
                _ => write_torn(&mut self.durable, self.sector, written, rng),
            }
        }
        self.cached.clear();
    }

    /// The owner is gone, the power is not: every write in flight is done, not done or torn, and
    /// what is in the cache stays there.
    pub fn abandon(&mut self, rng: &mut Draw<'_>) {
        for pending in std::mem::take(&mut self.pending) {
            let DiskOp::Write { addr, bufs, .. } = pending.op else { continue };
            let data = joined(&bufs);
            match rng(3) {
                0 => self.store(addr, data),
                1 => {}
                _ => {
                    for (addr, data) in sectors_kept(self.sector, addr, &data, rng) {
                        self.store(addr, data.to_vec());
                    }
                }
            }
        }
    }

    /// Turns one bit at byte `addr` over, in every layer that holds it: rot, which no write and no
    /// power cut undoes.
    pub fn flip_bit(&mut self, addr: u64, bit: u8) {
        assert!(addr < self.len && bit < 8, "bit {bit} of byte {addr}");
        let mask = 1 << bit;
        self.durable.flip(addr, mask);
        for written in &mut self.unflushed {
            let at = addr.checked_sub(written.addr).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.and_then(|at| written.data.get_mut(at)) {
                *byte ^= mask;
            }
        }
        self.rebuild_cache();
    }

    /// From now on reads that touch `range` fail with EIO.
    pub fn fail_reads(&mut self, range: Range<u64>) {
        self.faults.bad.push(range);
    }

    /// The next `count` writes fail with EIO; any of their sectors may be written all the same.
    pub fn fail_writes(&mut self, count: u64) {
        self.faults.writes_to_fail = count;
    }

    /// The next `count` flushes fail with EIO and make nothing durable.
    pub fn fail_flushes(&mut self, count: u64) {
        self.faults.flushes_to_fail = count;
    }

    /// The next write ends well, but lands at `to`, a multiple of the sector, as far as it fits the
    /// disk.
    pub fn misdirect_next_write(&mut self, to: u64) {
        assert!(to.is_multiple_of(self.sector) && to < self.len, "misdirected to {to}");
        self.faults.misdirect_to = Some(to);
    }

    /// The next `count` writes end well and are never done: they are damage, which no power cut
    /// explains.
    pub fn lose_writes(&mut self, count: u64) {
        self.faults.writes_to_lose = count;
    }

    /// From now on faults happen by chance, besides those that are asked for.
    pub fn set_fault_rates(&mut self, rates: FaultRates) {
        self.faults.rates = rates;
    }

    /// Records from now on what happens; nothing may be in flight or in the cache.
    pub fn start_tape(&mut self) {
        self.make_durable(self.next_end);
        assert!(self.pending.is_empty(), "a tape starts when nothing is in flight");
        self.tape = Some(Tape::new(self));
    }

    /// Whether what happens is recorded.
    pub fn has_tape(&self) -> bool {
        self.tape.is_some()
    }

    /// Things recorded so far.
    pub fn tape_len(&self) -> usize {
        self.tape.as_ref().map_or(0, |tape| tape.events.len())
    }

    /// Ends the recording, if there is one.
    pub fn take_tape(&mut self) -> Option<Tape> {
        self.tape.take()
    }

    /// While `full`, writes fail with [`DiskError::Full`] and change nothing.
    pub fn set_full(&mut self, full: bool) {
        self.faults.full = full;
    }

    /// Takes back every fault that has not happened yet.
    pub fn clear_faults(&mut self) {
        self.faults = Faults::default();
    }

    fn end(&mut self, pending: Pending, rng: &mut Draw<'_>) -> DiskDone {
        let id = pending.op.id();
        let result = match pending.op {
            DiskOp::Write { addr, bufs, .. } => {
                let done = self.end_write(addr, joined(&bufs), rng).map(|()| None);
                if let Some(tape) = &mut self.tape {
                    tape.ended(pending.on_tape);
                }
                done
            }
            DiskOp::Read { addr, mut buf, .. } => self.end_read(addr, &mut buf).map(|()| Some(buf)),
            DiskOp::Flush { .. } => {
                if let Some(tape) = &mut self.tape {
                    tape.flushed(pending.on_tape);
                }
                self.end_flush(pending.after).map(|()| None)
            }
        };
        DiskDone { id, result }
    }

    fn end_write(
        &mut self,
        addr: u64,
        mut data: Vec<u8>,
        rng: &mut Draw<'_>,
    ) -> Result<(), DiskError> {
        assert!(self.tape.is_none() || !self.faults.any(), "a tape knows no faults");
        let (bytes, mut to) = (data.len() as u64, addr);
        let fault = self.faults.of_write();
        fault.iter().for_each(|&fault| self.counters.faults.count(fault));
        match fault {
            Some(Fault::Full) => return Err(DiskError::Full),
            Some(Fault::WriteError) => {
                for (addr, data) in sectors_kept(self.sector, addr, &data, rng) {
                    self.store(addr, data.to_vec());
                }
                return Err(DiskError::Io(libc::EIO));
            }
            Some(Fault::Misdirected) => {
                to = self.faults.elsewhere(self.len / self.sector, self.sector);
                data.truncate((self.len - to).min(bytes) as usize);
            }
            Some(Fault::BitFlip) => {
                let (at, mask) = self.faults.bit_of(data.len());
                data[at] ^= mask;
            }
            _ => {}
        }
        if fault != Some(Fault::Lost) {
            self.store(to, data);
        }
        self.counters.writes += 1;
        self.counters.write_bytes += bytes;
        Ok(())
    }

    fn end_read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        if self.faults.read_fails() || self.look(addr, buf).is_err() {
            self.counters.faults.count(Fault::ReadError);
            return Err(DiskError::Io(libc::EIO));
        }
        self.counters.reads += 1;
        self.counters.read_bytes += buf.len() as u64;
        Ok(())
    }

    fn end_flush(&mut self, before: u64) -> Result<(), DiskError> {
        if self.faults.flush_fails() {
            self.counters.faults.count(Fault::FlushError);
            return Err(DiskError::Io(libc::EIO));
        }
        self.make_durable(before);
        self.counters.flushes += 1;
        Ok(())
    }

    /// Puts an ended write into the cache, or past it.
    fn store(&mut self, addr: u64, data: Vec<u8>) {
        let end = self.next_end;
        self.next_end += 1;
        if self.volatile_cache {
            self.cached.write_over(&self.durable, addr, &data);
            self.unflushed.push_back(Written { end, addr, data });
        } else {
            self.durable.write(addr, &data);
        }
    }

    fn look(&self, addr: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let end = addr + buf.len() as u64;
        if self.faults.bad.iter().any(|bad| bad.start < end && addr < bad.end) {
            return Err(DiskError::Io(libc::EIO));
        }
        self.cached.read_over(&self.durable, addr, buf);
        Ok(())
    }

    /// Makes the writes durable that ended with a number below `before`.
    fn make_durable(&mut self, before: u64) {
        let count = self.unflushed.partition_point(|written| written.end < before);
        for written in self.unflushed.drain(..count) {
            self.durable.write(written.addr, &written.data);
        }
        self.rebuild_cache();
    }

    fn rebuild_cache(&mut self) {
        self.cached.clear();
        for written in &self.unflushed {
            self.cached.write_over(&self.durable, written.addr, &written.data);
        }
    }
}

fn joined(bufs: &[Buf]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum());
    for buf in bufs {
        bytes.extend_from_slice(buf);
    }
    bytes
}

/// The sectors of a write that a draw keeps.
fn sectors_kept<'a>(
    sector: u64,
    addr: u64,
    data: &'a [u8],
    rng: &mut Draw<'_>,
) -> Vec<(u64, &'a [u8])> {
    let sectors = data.chunks(sector as usize).enumerate();
    let mut kept = Vec::new();
    for (n, bytes) in sectors {
        if rng(2) == 1 {
            kept.push((addr + n as u64 * sector, bytes));
        }
    }
    kept
}

fn write_torn(pages: &mut Pages, sector: u64, written: &Written, rng: &mut Draw<'_>) {
    for (addr, bytes) in sectors_kept(sector, written.addr, &written.data, rng) {
        pages.write(addr, bytes);
    }
}

/// Accesses that end at once. Faults apply; a power cut tears what was not flushed.
impl RegionIo for SimDisk {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        if addr.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.look(addr, buf).map_err(to_io)
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        let Some(end) = addr.checked_add(data.len() as u64).filter(|end| *end <= self.len) else {
            return Err(io::ErrorKind::WriteZero.into());
        };
        if data.is_empty() {
            return Ok(());
        }
        let start = addr / self.sector * self.sector;
        let mut whole = vec![0; (end.next_multiple_of(self.sector) - start) as usize];
        if whole.len() != data.len() {
            self.look(start, &mut whole).map_err(to_io)?;
        }
        whole[(addr - start) as usize..][..data.len()].copy_from_slice(data);
        if let Some(tape) = &mut self.tape {
            let write = tape.write(start, &whole);
            tape.ended(write);
        }
        self.end_write(start, whole, &mut |_| 0).map_err(to_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tape) = &mut self.tape {
            tape.flushed(tape.ends);
        }
        self.end_flush(self.next_end).map_err(to_io)
    }

    fn len(&self) -> u64 {
        self.len
    }
}

fn to_io(error: DiskError) -> io::Error {
    match error {
        DiskError::Io(errno) => io::Error::from_raw_os_error(errno),
        DiskError::Full => io::Error::from_raw_os_error(libc::ENOSPC),
    }
}

#[cfg(test)]
mod tests;
