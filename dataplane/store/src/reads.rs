//! Reads: from maps to device operations and back, every block checked against its checksum.

use std::collections::VecDeque;

use ogive_buf::{Buf, BufMut};
use ogive_types::message::{DeltaChunk, Op};
use ogive_types::{BLOCK_BYTES, BlockRange, BlockSum, ChunkId, CopysetId, Index, block_sum};

use crate::io::{DiskError, DiskOp};
use crate::limits::READS_WAITING_MAX;
use crate::slab::Slab;
use crate::store::{Kind, Store, StoreEvent};

/// Why a read has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What the device holds is not what was written.
    #[error("stored data does not match its checksum")]
    Checksum,
    /// The device cannot read it.
    #[error("the device cannot read it: {0}")]
    Device(DiskError),
    /// What was to be read is not there any more.
    #[error("not there any more")]
    Gone,
    /// Too many reads wait for memory.
    #[error("too many reads wait for memory")]
    Busy,
}

/// One block of a result.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Where it lies; `None` reads as zeroes.
    place: Option<u32>,
    sum: BlockSum,
}

/// What a read is for, to name the damage that it finds.
#[derive(Clone, Debug)]
struct Subject {
    copyset: CopysetId,
    /// Chunk and block of each wanted block.
    blocks: Vec<(ChunkId, u16)>,
}

struct Read {
    token: u64,
    subject: Subject,
    wanted: Vec<Wanted>,
    /// Number within [`crate::space::Space`].
    guard: u64,
    /// Runs of neighbouring device blocks: first block of the result, number, data once it is
    /// there.
    parts: Vec<(usize, usize, Option<Buf>)>,
    left: usize,
    error: Option<ReadError>,
    /// The result, when it is put together from several parts.
    whole: Option<BufMut>,
}

struct Waiting {
    token: u64,
    subject: Subject,
    wanted: Vec<Wanted>,
    guard: u64,
}

#[derive(Default)]
pub(crate) struct Reads {
    active: Slab<Read>,
    waiting: VecDeque<Waiting>,
}

impl Store {
    /// Reads blocks as the applied entries left them; unmapped ones are zeroes.
    /// [`StoreEvent::ReadDone`] follows.
    pub fn read(&mut self, token: u64, id: CopysetId, chunk: ChunkId, range: BlockRange) {
        let map = self.replicas.get(&id).map(|r| &r.map);
        let wanted = range.iter().map(|block| {
            let mapping = map.map(|m| m.get(chunk, block));
            Wanted {
                place: mapping.and_then(|m| m.block()),
                sum: mapping.map(|m| m.sum).unwrap_or_default(),
            }
        });
        let wanted = wanted.collect();
        let blocks = range.iter().map(|block| (chunk, block)).collect();
        self.begin_read(token, Subject { copyset: id, blocks }, wanted);
    }

    /// Reads the data of a retained write entry. [`StoreEvent::ReadDone`] follows.
    pub fn read_entry(&mut self, token: u64, id: CopysetId, index: Index) {
        let entry = self.replicas.get(&id).and_then(|r| r.entry(index));
        let Some((entry, Op::Write { chunk, range, sums })) = entry.map(|e| (e, &e.op)) else {
            let result = Err(ReadError::Gone);
            return self.events.push_back(StoreEvent::ReadDone { token, result });
        };
        let places = entry.blocks().map(|(_, place)| place).zip(sums);
        let wanted = places.map(|(place, &sum)| Wanted { place: Some(place), sum }).collect();
        let blocks = range.iter().map(|block| (*chunk, block)).collect();
        self.begin_read(token, Subject { copyset: id, blocks }, wanted);
    }

    /// Reads the data of a scanned delta page, as the map is now. [`StoreEvent::ReadDone`] follows,
    /// with [`ReadError::Gone`] when a block has changed since the scan.
    pub fn delta_read(&mut self, token: u64, id: CopysetId, chunks: &[DeltaChunk]) {
        let mut blocks = Vec::new();
        let mut wanted = Vec::new();
        let map = self.replicas.get(&id).map(|r| &r.map);
        let mut changed = map.is_none();
        for (chunk, extent) in chunks.iter().flat_map(|c| c.extents.iter().map(|e| (c.chunk, e))) {
            for (block, &sum) in extent.range.iter().zip(&extent.sums) {
                let Some(mapping) = map.map(|m| m.get(chunk, block)) else { break };
                changed |= mapping.index != extent.index || mapping.sum != sum;
                wanted.push(Wanted { place: mapping.block(), sum });
                blocks.push((chunk, block));
            }
        }
        if changed {
            let result = Err(ReadError::Gone);
            return self.events.push_back(StoreEvent::ReadDone { token, result });
        }
        self.begin_read(token, Subject { copyset: id, blocks }, wanted);
    }

    fn begin_read(&mut self, token: u64, subject: Subject, wanted: Vec<Wanted>) {
        let guard = self.space.read_begins();
        let waiting = Waiting { token, subject, wanted, guard };
        if let Err(waiting) = self.start_read(waiting) {
            if self.reads.waiting.len() >= READS_WAITING_MAX {
                self.space.read_ended(guard);
                let result = Err(ReadError::Busy);
                return self.events.push_back(StoreEvent::ReadDone { token, result });
            }
            self.reads.waiting.push_back(waiting);
        }
    }

    /// Starts the reads that wait for memory, in their order.
    pub(crate) fn retry_reads(&mut self) {
        while let Some(waiting) = self.reads.waiting.pop_front() {
            if let Err(waiting) = self.start_read(waiting) {
                self.reads.waiting.push_front(waiting);
                break;
            }
        }
    }

    /// Starts a read; gives it back when there is no memory for it.
    fn start_read(&mut self, read: Waiting) -> Result<(), Waiting> {
        let Waiting { token, subject, wanted, guard } = read;
        let give_back = |subject, wanted| Err(Waiting { token, subject, wanted, guard });
        let runs = runs(&wanted);
        let bytes = wanted.len() * BLOCK_BYTES;
        let covered = runs.len() == 1 && runs[0].1 == wanted.len();
        let mut whole = None;
        if !covered {
            // Zeroes in between, or pieces from several places: the result is put together in
            // memory of its own.
            whole = self.pool.alloc_zeroed(bytes);
            if whole.is_none() {
                return give_back(subject, wanted);
            }
        }
        let buffers: Option<Vec<BufMut>> =
            runs.iter().map(|&(_, count)| self.pool.alloc(count * BLOCK_BYTES)).collect();
        let Some(buffers) = buffers else { return give_back(subject, wanted) };
        let place = |first: usize| wanted[first].place.expect("runs hold mapped blocks");
        let addrs: Vec<u64> =
            runs.iter().map(|&(first, _)| self.layout.block_addr(place(first))).collect();
        let left = runs.len();
        let parts = runs.into_iter().map(|(first, count)| (first, count, None)).collect();
        let read = Read { token, subject, wanted, guard, parts, left, error: None, whole };
        if left == 0 {
            self.end_read(read);
            return Ok(());
        }
        let read = self.reads.active.insert(read);
        for (part, (addr, buf)) in addrs.into_iter().zip(buffers).enumerate() {
            let id = self.op(Kind::Read { read, part });
            self.out.push(DiskOp::Read { id, addr, buf });
        }
        Ok(())
    }

    /// A part of a read has ended.
    pub(crate) fn read_part_done(
        &mut self,
        id: u64,
        part: usize,
        result: Result<Option<BufMut>, DiskError>,
    ) {
        let read = self.reads.active.get_mut(id).expect("reads stay until all parts ended");
        match result {
            Ok(buf) => read.parts[part].2 = buf.map(BufMut::freeze),
            Err(error) => read.error = Some(ReadError::Device(error)),
        }
        read.left -= 1;
        if read.left == 0 {
            let read = self.reads.active.remove(id).expect("looked up above");
            self.end_read(read);
        }
    }

    fn end_read(&mut self, mut read: Read) {
        self.space.read_ended(read.guard);
        let mut damaged = Vec::new();
        for (first, count, data) in &read.parts {
            let Some(data) = data else {
                damaged.extend(*first..first + count);
                continue;
            };
            for (at, bytes) in (*first..).zip(data.chunks_exact(BLOCK_BYTES)) {
                if block_sum(bytes) != read.wanted[at].sum {
                    read.error.get_or_insert(ReadError::Checksum);
                    damaged.push(at);
                }
            }
        }
        self.report_damage(&read.subject, &damaged);
        let token = read.token;
        let result = read.error.map_or_else(|| Ok(assemble(read)), Err);
        self.events.push_back(StoreEvent::ReadDone { token, result });
    }

    fn report_damage(&mut self, subject: &Subject, damaged: &[usize]) {
        for &at in damaged {
            let (chunk, block) = subject.blocks[at];
            let range = BlockRange::new(block, 1).expect("a block of a chunk");
            let copyset = subject.copyset;
            self.events.push_back(StoreEvent::Damaged { copyset, chunk, range });
        }
    }
}

/// Runs of wanted blocks that lie next to each other on the device: first wanted block and number.
fn runs(wanted: &[Wanted]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, place) in wanted.iter().enumerate().filter_map(|(at, w)| Some((at, w.place?))) {
        if let Some((first, count)) = runs.last_mut()
            && *first + *count == at
            && wanted[*first].place.is_some_and(|p| p + *count as u32 == place)
        {
            *count += 1;
        } else {
            runs.push((at, 1));
        }
    }
    runs
}

/// The result of a read without errors: its only part, or its parts between zeroes.
fn assemble(mut read: Read) -> Buf {
    let Some(mut whole) = read.whole.take() else {
        return read.parts.pop().and_then(|(_, _, data)| data).expect("one part, which ended well");
    };
    for (first, _, data) in &read.parts {
        let data = data.as_ref().expect("no error");
        let at = first * BLOCK_BYTES;
        whole[at..at + data.len()].copy_from_slice(data);
    }
    whole.freeze()
}
