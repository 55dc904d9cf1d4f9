//! The log writer: collects records into batches, writes one at a time, and knows when they are
//! persisted.
//!
//! ```text
//! record ─▶ pending ─seal─▶ batch: log and data writes in flight ─▶ written ─flush─▶ persisted
//! ```
//!
//! - Records that come while a log write is in flight share the next one.
//! - A batch is written when its log write and all data writes that its records name have ended.
//! - On a device with a volatile cache it is persisted once a flush that began after that has
//!   ended; one flush serves all batches written before it. On others it is persisted at once.
//! - Batches are persisted in their order.

use std::collections::VecDeque;

use ogive_types::message::DeltaPage;
use ogive_types::{ChunkId, CopysetId, Index};

use crate::batch::{self, HEADER_BYTES, Header};
use crate::limits::{PENDING_BYTES_MAX, PENDING_SHARE};
use crate::record::Piece;
use crate::replica::HardState;

/// Number of a record within this run of the store, from 1.
pub(crate) type Seq = u64;

/// Who wants to know that a record is persisted. `born` tells a replica from one of the same
/// copyset that was made after the first was dropped.
#[derive(Debug)]
pub(crate) enum Notify {
    Entry { copyset: CopysetId, index: Index },
    Hard { copyset: CopysetId, born: Seq, hard: HardState },
    Delta { token: u64, copyset: CopysetId, born: Seq, pieces: Vec<Piece>, pages_reserved: usize },
    Reset { token: u64, copyset: CopysetId, born: Seq },
    Repair { token: u64, copyset: CopysetId, born: Seq, pieces: Vec<Piece> },
}

struct Batch {
    end: u64,
    last_seq: Seq,
    log_written: bool,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Everything before this may be overwritten.
    pub(crate) tail: u64,
    /// Position after the newest batch.
    pub(crate) head: u64,
    /// Checksum of the newest batch.
    pub(crate) crc: u32,
}

pub(crate) struct LogWriter {
    region: u64,
    mount: u64,
    sector: u32,
    log_bytes: u64,
    ends: Ends,
    persisted: u64,
    persisted_seq: Seq,
    /// Records that wait, one after the other, and their lengths.
    records: VecDeque<u8>,
    pending: VecDeque<usize>,
    /// The newest record in a batch.
    sealed_seq: Seq,
    notify: VecDeque<(Seq, Notify)>,
    /// Data writes in flight of each record from `data_from` on.
    data: VecDeque<u32>,
    data_from: Seq,
    batches: VecDeque<Batch>,
    log_write_in_flight: bool,
    /// Batches from the front that the flush in flight covers.
    flush: Option<usize>,
}

/// A batch to be made with [`LogWriter::seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its position.
    pub(crate) at: u64,
    /// Its bytes on the device.
    pub(crate) len: usize,
    count: usize,
    bytes: usize,
}

impl LogWriter {
    /// A writer that goes on where a log ends; everything in it is persisted.
    pub(crate) fn new(region: u64, mount: u64, sector: u32, log_bytes: u64, ends: Ends) -> Self {
        LogWriter {
            region,
            mount,
            sector,
            log_bytes,
            ends,
            persisted: ends.head,
            persisted_seq: 0,
            records: VecDeque::new(),
            pending: VecDeque::new(),
            sealed_seq: 0,
            notify: VecDeque::new(),
            data: VecDeque::new(),
            data_from: 1,
            batches: VecDeque::new(),
            log_write_in_flight: false,
            flush: None,
        }
    }

    /// So many bytes of records wait that no more should be added.
    pub(crate) fn is_full(&self) -> bool {
        let share = self.log_bytes / PENDING_SHARE;
        self.records.len() as u64 >= share.min(PENDING_BYTES_MAX as u64)
    }

    /// Adds a record with `data_writes` data writes that were started for it.
    pub(crate) fn add(&mut self, record: &[u8], data_writes: u32) -> Seq {
        let seq = self.next_seq();
        self.records.extend(record);
        self.pending.push_back(record.len());
        self.data.push_back(data_writes);
        seq
    }

    /// Asks to be told when everything up to record `seq` is persisted. Wishes come in order.
    pub(crate) fn notify(&mut self, seq: Seq, what: Notify) {
        debug_assert!(self.notify.back().is_none_or(|(last, _)| *last <= seq));
        self.notify.push_back((seq, what));
    }

    /// The next of those who wanted to know what is persisted by now.
    pub(crate) fn next_notify(&mut self) -> Option<(Seq, Notify)> {
        let due = self.notify.front().is_some_and(|(seq, _)| *seq <= self.persisted_seq);
        if due { self.notify.pop_front() } else { None }
    }

    /// The number that the next record will get.
    pub(crate) fn next_seq(&self) -> Seq {
        self.last_seq() + 1
    }

    /// The number of the newest record.
    pub(crate) fn last_seq(&self) -> Seq {
        self.sealed_seq + self.pending.len() as u64
    }

    pub(crate) fn persisted_seq(&self) -> Seq {
        self.persisted_seq
    }

    /// Where the log stands, without the records that wait.
    pub(crate) fn ends(&self) -> Ends {
        self.ends
    }

    pub(crate) fn persisted(&self) -> u64 {
        self.persisted
    }

    /// Bytes of the ring in use.
    pub(crate) fn used(&self) -> u64 {
        self.ends.head - self.ends.tail
    }

    /// Lets the ring be overwritten up to `tail`.
    pub(crate) fn cut(&mut self, tail: u64) {
        let Ends { tail: before, head, .. } = self.ends;
        assert!(before <= tail && tail <= head, "the log is cut within what was written");
        self.ends.tail = tail;
    }

    /// Records that wait.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.batches.is_empty()
    }

    /// Whether a log write is in flight; there is one at a time.
    pub(crate) fn is_writing(&self) -> bool {
        self.log_write_in_flight
    }

    /// What the next batch would be; `None` when nothing waits, a log write is in flight, or the
    /// ring has no room until the next checkpoint.
    pub(crate) fn plan(&self) -> Option<Plan> {
        if self.log_write_in_flight || self.pending.is_empty() {
            return None;
        }
        let room = batch::batch_bytes_max(self.log_bytes) - HEADER_BYTES;
        let (mut count, mut bytes) = (0, 0);
        for &record in &self.pending {
            if count > 0 && bytes + record > room {
                break;
            }
            bytes += record;
            count += 1;
        }
        let len = batch::batch_bytes(bytes, self.sector);
        let at = batch::place(self.ends.head, len, self.log_bytes);
        let fits = at + len - self.ends.tail <= self.log_bytes;
        // What a power cut may take of the log is bounded.
        let near = self.ends.head - self.persisted <= batch::unpersisted_max(self.log_bytes);
        (fits && near).then_some(Plan { at, len: len as usize, count, bytes })
    }

    /// Makes the planned batch in `memory`, which is exactly as long as it. Its write must start
    /// now.
    pub(crate) fn seal(&mut self, plan: Plan, memory: &mut [u8]) {
        assert_eq!(memory.len(), plan.len);
        let (front, back) = self.records.as_slices();
        let from_front = plan.bytes.min(front.len());
        let mut end = HEADER_BYTES;
        for part in [&front[..from_front], &back[..plan.bytes - from_front]] {
            memory[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        memory[end..].fill(0);
        let mut header = Header {
            region: self.region,
            at: plan.at,
            after: self.ends.head,
            persisted: self.persisted,
            mount: self.mount,
            prev_crc: self.ends.crc,
            records_bytes: plan.bytes as u32,
            records: plan.count as u32,
            crc: 0,
        };
        header.seal(memory);
        self.records.drain(..plan.bytes);
        self.pending.drain(..plan.count);
        self.sealed_seq += plan.count as u64;
        self.ends.head = plan.at + plan.len as u64;
        self.ends.crc = header.crc;
        let (end, last_seq) = (self.ends.head, self.sealed_seq);
        self.batches.push_back(Batch { end, last_seq, log_written: false });
        self.log_write_in_flight = true;
    }

    /// The log write in flight has ended.
    pub(crate) fn log_written(&mut self) {
        assert!(std::mem::take(&mut self.log_write_in_flight), "a log write was in flight");
        self.batches.back_mut().expect("it belongs to the newest batch").log_written = true;
    }

    /// A data write of record `seq` has ended.
    pub(crate) fn data_written(&mut self, seq: Seq) {
        let at = seq.checked_sub(self.data_from).expect("records wait for their data");
        self.data[at as usize] -= 1;
    }

    /// Batches from the front that are written.
    fn written(&mut self) -> usize {
        while self.data.front() == Some(&0) {
            self.data.pop_front();
            self.data_from += 1;
        }
        let oldest = self.data_from;
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
    pub(crate) fn flushed(&mut self) {
        let count = self.flush.take().expect("a flush was in flight");
        self.persist(count);
    }

    /// On a device without a volatile cache: what is written is persisted.
    pub(crate) fn persist_written(&mut self) {
        let count = self.written();
        self.persist(count);
    }

    fn persist(&mut self, count: usize) {
        for batch in self.batches.drain(..count) {
            self.persisted = batch.end;
            self.persisted_seq = batch.last_seq;
        }
    }
}

/// Chunks that a delta page covers: after the first bound, up to and including the second.
pub(crate) fn covered(page: &DeltaPage, chunk: ChunkId) -> bool {
    page.after.is_none_or(|after| chunk > after)
        && page.through.is_none_or(|through| chunk <= through)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(log_bytes: u64) -> LogWriter {
        LogWriter::new(1, 1, 512, log_bytes, Ends { tail: 0, head: 0, crc: 0 })
    }

    fn add(w: &mut LogWriter, record: &[u8], writes: u32) -> Seq {
        let seq = w.add(record, writes);
        w.notify(seq, Notify::Entry { copyset: CopysetId(1), index: Index(seq) });
        seq
    }

    /// Numbers of the records that are reported as persisted.
    fn told(w: &mut LogWriter) -> Vec<Seq> {
        std::iter::from_fn(|| w.next_notify()).map(|(seq, _)| seq).collect()
    }

    fn seal(w: &mut LogWriter) -> Option<(Plan, Header)> {
        let plan = w.plan()?;
        let mut memory = vec![0; plan.len];
        w.seal(plan, &mut memory);
        Some((plan, Header::decode(&memory).expect("just sealed").0))
    }

    #[test]
    fn records_wait_for_their_data_and_for_those_before() {
        let mut w = writer(1 << 20);
        let first = add(&mut w, b"one", 1);
        seal(&mut w).expect("something waits");
        add(&mut w, b"two", 0);
        assert!(seal(&mut w).is_none(), "one log write at a time");
        w.log_written();
        assert!(!w.start_flush(), "the data of the first record is not written");
        seal(&mut w).expect("the second batch");
        w.log_written();
        assert!(!w.start_flush(), "order is kept");
        w.data_written(first);
        assert!(w.start_flush());
        assert!(!w.start_flush(), "one flush at a time");
        add(&mut w, b"three", 0);
        seal(&mut w);
        w.log_written();
        w.flushed();
        assert_eq!(told(&mut w), [1, 2], "the third was written after the flush began");
        assert!(w.start_flush());
        w.flushed();
        assert_eq!(told(&mut w), [3]);
        assert!(w.is_idle());
    }

    #[test]
    fn waiting_records_share_a_batch() {
        let mut w = writer(1 << 20);
        for _ in 0..100 {
            add(&mut w, &[0; 50], 0);
        }
        let (plan, header) = seal(&mut w).expect("something waits");
        assert_eq!((header.records, plan.len), (100, 5120));
    }

    #[test]
    fn a_full_ring_waits_for_the_cut() {
        let mut w = writer(16384);
        let mut batches = 0;
        loop {
            w.add(&[0; 900], 0);
            if seal(&mut w).is_none() {
                break;
            }
            w.log_written();
            w.persist_written();
            batches += 1;
        }
        assert_eq!(batches, 16);
        w.cut(1024);
        let (plan, _) = seal(&mut w).expect("there is room now");
        assert_eq!(plan.at, 16384, "at the ring's beginning");
    }
}
