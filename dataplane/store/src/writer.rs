//! The log writer: collects records into batches, writes one at a time, and knows when they are persisted.
//!
//! ```text
//! record ─▶ pending ─seal─▶ batch: log write and data writes in flight ─▶ written ─flush─▶ persisted
//! ```
//!
//! - Records that come while a log write is in flight share the next one.
//! - A batch is written when its log write and all data writes that its records name have ended.
//! - On a device with a volatile cache it is persisted once a flush that began after that has ended; one flush serves all
//!   batches written before it. On others it is persisted at once.
//! - Batches are persisted in their order.

use std::collections::{BTreeMap, VecDeque};

use ogive_types::message::DeltaPage;
use ogive_types::{CopysetId, Index, Term};

use crate::batch::{self, HEADER_BYTES, Header};
use crate::limits::{BATCH_BYTES_MAX, PENDING_BYTES_MAX};
use crate::record::Piece;
use crate::replica::HardState;

/// Who wants to know that a record is persisted.
#[derive(Debug)]
pub(crate) enum Notify {
    Entry {
        copyset: CopysetId,
        index: Index,
        term: Term,
    },
    Hard {
        copyset: CopysetId,
        hard: HardState,
    },
    Delta {
        token: u64,
        copyset: CopysetId,
        dropped: Vec<ogive_types::ChunkId>,
        pieces: Vec<Piece>,
    },
    Reset {
        token: u64,
        copyset: CopysetId,
    },
    /// Blocks that nothing names any more.
    Free(Vec<u32>),
}

/// Number of a record within this run of the store, from 1.
pub(crate) type Seq = u64;

struct Pending {
    bytes: usize,
    seq: Seq,
    notify: Vec<Notify>,
}

struct Batch {
    end: u64,
    last_seq: Seq,
    log_written: bool,
    notify: Vec<Notify>,
}

pub(crate) struct LogWriter {
    region: u64,
    mount: u64,
    sector: u32,
    log_bytes: u64,
    /// Position after the newest batch.
    head: u64,
    /// Everything before this may be overwritten.
    tail: u64,
    /// Checksum of the newest batch.
    crc: u32,
    persisted: u64,
    persisted_seq: Seq,
    records: VecDeque<u8>,
    pending: VecDeque<Pending>,
    next_seq: Seq,
    /// Data writes in flight, by record.
    data: BTreeMap<Seq, u32>,
    batches: VecDeque<Batch>,
    log_write_in_flight: bool,
    /// Batches from the front that the flush in flight covers.
    flush: Option<usize>,
}

/// A batch to be made with [`LogWriter::seal`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Its position.
    pub(crate) at: u64,
    /// Its bytes on the device.
    pub(crate) len: usize,
    count: usize,
    bytes: usize,
}

impl LogWriter {
    /// A writer that goes on at `head`, behind a batch with checksum `crc`; everything before is persisted.
    pub(crate) fn new(
        region: u64,
        mount: u64,
        sector: u32,
        log_bytes: u64,
        tail: u64,
        head: u64,
        crc: u32,
    ) -> LogWriter {
        LogWriter {
            region,
            mount,
            sector,
            log_bytes,
            head,
            tail,
            crc,
            persisted: head,
            persisted_seq: 0,
            records: VecDeque::new(),
            pending: VecDeque::new(),
            next_seq: 1,
            data: BTreeMap::new(),
            batches: VecDeque::new(),
            log_write_in_flight: false,
            flush: None,
        }
    }

    /// Bytes of records that wait.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= PENDING_BYTES_MAX
    }

    /// Adds a record with `data_writes` data writes that were started for it.
    pub(crate) fn add(&mut self, record: &[u8], data_writes: u32, notify: Vec<Notify>) -> Seq {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.records.extend(record);
        self.pending.push_back(Pending { bytes: record.len(), seq, notify });
        if data_writes > 0 {
            self.data.insert(seq, data_writes);
        }
        seq
    }

    /// The number that the next record will get.
    pub(crate) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    pub(crate) fn persisted_seq(&self) -> Seq {
        self.persisted_seq
    }

    /// Where the log stands: the position after the newest batch, and that batch's checksum.
    pub(crate) fn head(&self) -> (u64, u32) {
        (self.head, self.crc)
    }

    pub(crate) fn persisted(&self) -> u64 {
        self.persisted
    }

    /// Bytes of the ring in use.
    pub(crate) fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Lets the ring be overwritten up to `tail`.
    pub(crate) fn cut(&mut self, tail: u64) {
        assert!(self.tail <= tail && tail <= self.head, "the log is cut within what was written");
        self.tail = tail;
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.batches.is_empty()
    }

    /// What the next batch would be, with so many bytes of hints in front; `None` when nothing waits, a log write is in
    /// flight, or the ring has no room until the next checkpoint.
    pub(crate) fn plan(&self, hints_bytes: usize) -> Option<Plan> {
        if self.log_write_in_flight || self.pending.is_empty() {
            return None;
        }
        let room = BATCH_BYTES_MAX.saturating_sub(HEADER_BYTES + hints_bytes);
        let (mut count, mut bytes) = (0, 0);
        for p in &self.pending {
            if count > 0 && bytes + p.bytes > room {
                break;
            }
            bytes += p.bytes;
            count += 1;
        }
        let len = batch::batch_bytes(hints_bytes + bytes, self.sector);
        let at = batch::place(self.head, len, self.log_bytes);
        let fits = at + len - self.tail <= self.log_bytes;
        fits.then_some(Plan { at, len: len as usize, count, bytes })
    }

    /// Makes the planned batch in `memory`, which is exactly as long as it. Its write must start now.
    pub(crate) fn seal(&mut self, plan: Plan, hints: &[u8], hint_count: u32, memory: &mut [u8]) {
        assert_eq!(memory.len(), plan.len);
        let (front, back) = self.records.as_slices();
        let from_front = plan.bytes.min(front.len());
        let parts = [hints, &front[..from_front], &back[..plan.bytes - from_front]];
        let mut end = HEADER_BYTES;
        for part in parts {
            memory[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        memory[end..].fill(0);
        let mut header = Header {
            region: self.region,
            at: plan.at,
            after: self.head,
            persisted: self.persisted,
            mount: self.mount,
            prev_crc: self.crc,
            records_bytes: (end - HEADER_BYTES) as u32,
            records: plan.count as u32 + hint_count,
            crc: 0,
        };
        header.seal(memory);
        self.records.drain(..plan.bytes);
        let taken: Vec<Pending> = self.pending.drain(..plan.count).collect();
        let last_seq = taken.last().expect("at least one record").seq;
        let notify = taken.into_iter().flat_map(|p| p.notify).collect();
        self.head = plan.at + plan.len as u64;
        self.crc = header.crc;
        self.batches.push_back(Batch { end: self.head, last_seq, log_written: false, notify });
        self.log_write_in_flight = true;
    }

    /// The log write in flight has ended.
    pub(crate) fn log_written(&mut self) {
        assert!(std::mem::take(&mut self.log_write_in_flight), "a log write was in flight");
        self.batches.back_mut().expect("it belongs to the newest batch").log_written = true;
    }

    /// A data write of record `seq` has ended.
    pub(crate) fn data_written(&mut self, seq: Seq) {
        let left = self.data.get_mut(&seq).expect("its record counts it");
        *left -= 1;
        if *left == 0 {
            self.data.remove(&seq);
        }
    }

    /// Batches from the front that are written.
    fn written(&self) -> usize {
        let oldest = self.data.first_key_value().map_or(Seq::MAX, |(&seq, _)| seq);
        self.batches.iter().take_while(|b| b.log_written && b.last_seq < oldest).count()
    }

    /// Whether a flush should start now; it then covers everything written so far.
    pub(crate) fn start_flush(&mut self) -> bool {
        if self.flush.is_some() {
            return false;
        }
        let written = self.written();
        if written > 0 {
            self.flush = Some(written);
        }
        written > 0
    }

    /// The flush has ended: what it covers is persisted.
    pub(crate) fn flushed(&mut self) -> Vec<Notify> {
        let count = self.flush.take().expect("a flush was in flight");
        self.persist(count)
    }

    /// On a device without a volatile cache: what is written is persisted.
    pub(crate) fn persist_written(&mut self) -> Vec<Notify> {
        self.persist(self.written())
    }

    fn persist(&mut self, count: usize) -> Vec<Notify> {
        let mut notify = Vec::new();
        for batch in self.batches.drain(..count) {
            self.persisted = batch.end;
            self.persisted_seq = batch.last_seq;
            notify.extend(batch.notify);
        }
        notify
    }
}

/// Chunks that a delta page covers: after the first bound, up to and including the second.
pub(crate) fn covered(page: &DeltaPage, chunk: ogive_types::ChunkId) -> bool {
    page.after.is_none_or(|after| chunk > after)
        && page.through.is_none_or(|through| chunk <= through)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(log_bytes: u64) -> LogWriter {
        LogWriter::new(1, 1, 512, log_bytes, 0, 0, 0)
    }

    fn hard(n: u64) -> Vec<Notify> {
        vec![Notify::Hard {
            copyset: CopysetId(1),
            hard: HardState { term: Term(n), voted_for: None },
        }]
    }

    fn seal(w: &mut LogWriter) -> Option<(Plan, Header)> {
        let plan = w.plan(0)?;
        let mut memory = vec![0; plan.len];
        w.seal(plan, &[], 0, &mut memory);
        Some((plan, Header::decode(&memory).expect("just sealed").0))
    }

    #[test]
    fn records_wait_for_their_data_and_for_those_before() {
        let mut w = writer(1 << 20);
        let first = w.add(b"one", 1, hard(1));
        seal(&mut w).expect("something waits");
        w.add(b"two", 0, hard(2));
        assert!(seal(&mut w).is_none(), "one log write at a time");
        w.log_written();
        assert!(!w.start_flush(), "the data of the first record is not written");
        seal(&mut w).expect("the second batch");
        w.log_written();
        assert!(!w.start_flush(), "order is kept");
        w.data_written(first);
        assert!(w.start_flush());
        assert!(!w.start_flush(), "one flush at a time");
        w.add(b"three", 0, hard(3));
        seal(&mut w);
        w.log_written();
        assert_eq!(w.flushed().len(), 2, "the third was written after the flush began");
        assert!(w.start_flush());
        assert_eq!(w.flushed().len(), 1);
        assert!(w.is_idle());
    }

    #[test]
    fn waiting_records_share_a_batch() {
        let mut w = writer(1 << 20);
        for n in 0..100 {
            w.add(&[0; 50], 0, hard(n));
        }
        let (plan, header) = seal(&mut w).expect("something waits");
        assert_eq!((header.records, plan.len), (100, 5120));
    }

    #[test]
    fn a_full_ring_waits_for_the_cut() {
        let mut w = writer(4096);
        let mut batches = 0;
        loop {
            w.add(&[0; 900], 0, Vec::new());
            if seal(&mut w).is_none() {
                break;
            }
            w.log_written();
            assert_eq!(w.persist_written().len(), 0);
            batches += 1;
        }
        assert_eq!(batches, 4);
        w.cut(1024);
        let (plan, _) = seal(&mut w).expect("there is room now");
        assert_eq!(plan.at, 4096, "at the ring's beginning");
    }
}
