//! Reads: from maps to device operations and back, every block checked against its checksum.
//!
//! What a read finds damaged is named block by block ([`Damage`]), before the read ends. A device
//! that refuses a read over many blocks is asked again for each of them, so that one bad sector
//! does not count for its neighbours.
//!
//! Why the checksum in the map is enough to tell a stale or a misdirected block from the right one,
//! without a tag in each block: `dataplane/shard/design/0001-repair.md`.

use std::collections::VecDeque;

use ogive_buf::{Buf, BufMut};
use ogive_types::message::{BlockVersion, DeltaChunk, Op};
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Index, block_sum};

use crate::io::{DiskError, DiskOp};
use crate::limits::READS_WAITING_MAX;
use crate::parked::{Ask, Question};
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

/// What a read found damaged. The read's own end follows.
#[derive(Debug)]
pub struct Damage {
    /// As given to the read.
    pub token: u64,
    /// The copyset.
    pub copyset: CopysetId,
    /// The damaged blocks.
    pub blocks: Vec<DamagedBlock>,
    /// The whole result with holes where the damaged blocks belong; `None` when nobody waits for a
    /// result, or there is no memory for it.
    pub rest: Option<BufMut>,
}

/// One block whose copy on the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Which block of the result, counted from 0.
    pub at: usize,
    /// What it holds.
    pub block: BlockVersion,
    /// The device block, counted from the start of the region's data.
    pub place: u32,
    /// How it was found.
    pub error: ReadError,
}

/// One block of a result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Where it lies; `None` reads as zeroes.
    pub(crate) place: Option<u32>,
    pub(crate) block: BlockVersion,
}

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Result,
    /// They are checked, and that is all.
    Check,
}

/// Neighbouring device blocks of a read, fetched by one operation.
struct Part {
    /// Its first block within the result.
    first: usize,
    count: usize,
    /// What the device returned, once it has.
    data: Option<Result<Buf, DiskError>>,
}

struct Read {
    wish: Wish,
    parts: Vec<Part>,
    left: usize,
    /// The result, when it is put together from several parts.
    whole: Option<BufMut>,
}

/// A read as it was asked for.
pub(crate) struct Wish {
    pub(crate) token: u64,
    pub(crate) copyset: CopysetId,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) for_what: Use,
    /// Number within [`crate::space::Space`].
    pub(crate) guard: u64,
}

#[derive(Default)]
pub(crate) struct Reads {
    active: Slab<Read>,
    waiting: VecDeque<Wish>,
}

impl Store {
    /// Reads blocks as the applied entries left them; unmapped ones are zeroes.
    /// [`StoreEvent::ReadDone`] follows.
    pub fn read(&mut self, token: u64, id: CopysetId, chunk: ChunkId, range: BlockRange) {
        let wanted = range.iter().map(|number| self.wanted(id, chunk, number)).collect();
        self.ask(Question { token, copyset: id, ask: Ask::Newest, wanted });
    }

    /// Finds which blocks of a range hold data. [`StoreEvent::Mapped`] follows.
    pub fn mapped(&mut self, token: u64, id: CopysetId, chunk: ChunkId, range: BlockRange) {
        let wanted = range.iter().map(|number| self.wanted(id, chunk, number)).collect();
        self.ask(Question { token, copyset: id, ask: Ask::Mapped, wanted });
    }

    /// A block as the map has it, as far as memory knows.
    pub(crate) fn wanted(&self, id: CopysetId, chunk: ChunkId, number: u16) -> Wanted {
        let mapping = self.replicas.get(&id).map(|r| r.map.get(chunk, number));
        let (sum, index) = mapping.map(|m| (m.sum, m.index)).unwrap_or_default();
        let place = mapping.and_then(|m| m.block());
        Wanted { place, block: BlockVersion { chunk, number, index, sum } }
    }

    /// Reads the data of a retained write entry. [`StoreEvent::ReadDone`] follows.
    pub fn read_entry(&mut self, token: u64, id: CopysetId, index: Index) {
        let entry = self.replicas.get(&id).and_then(|r| r.entry(index));
        let Some((entry, Op::Write { chunk, sums, .. })) = entry.map(|e| (e, &e.op)) else {
            let result = Err(ReadError::Gone);
            return self.events.push_back(StoreEvent::ReadDone { token, result });
        };
        let blocks = entry.blocks().zip(sums).map(|((number, place), &sum)| {
            let block = BlockVersion { chunk: *chunk, number, index, sum };
            Wanted { place: Some(self.place_now(id, block).unwrap_or(place)), block }
        });
        let wanted = blocks.collect();
        self.ask(Question { token, copyset: id, ask: Ask::These, wanted });
    }

    /// Where the map has exactly this block, as far as memory knows: a repair may have moved it
    /// away from where its entry put it.
    pub(crate) fn place_now(&self, id: CopysetId, block: BlockVersion) -> Option<u32> {
        let mapping = self.replicas.get(&id)?.map.get(block.chunk, block.number);
        let same = mapping.index == block.index && mapping.sum == block.sum;
        mapping.block().filter(|_| same)
    }

    /// Reads the data of a scanned delta page, as the map is now. [`StoreEvent::ReadDone`] follows,
    /// with [`ReadError::Gone`] when a block has changed since the scan.
    pub fn delta_read(&mut self, token: u64, id: CopysetId, chunks: &[DeltaChunk]) {
        let mut wanted = Vec::new();
        let mut changed = !self.replicas.contains_key(&id);
        for (chunk, extent) in chunks.iter().flat_map(|c| c.extents.iter().map(|e| (c.chunk, e))) {
            for (number, &sum) in extent.range.iter().zip(&extent.sums) {
                let found = self.wanted(id, chunk, number);
                changed |= found.block.index != extent.index || found.block.sum != sum;
                changed |= self.page_out(id, chunk, number).is_some();
                wanted.push(found);
            }
        }
        if changed {
            let result = Err(ReadError::Gone);
            return self.events.push_back(StoreEvent::ReadDone { token, result });
        }
        self.begin_read(token, id, wanted, Use::Result);
    }

    pub(crate) fn begin_read(
        &mut self,
        token: u64,
        copyset: CopysetId,
        wanted: Vec<Wanted>,
        for_what: Use,
    ) {
        let guard = self.space.read_begins();
        self.begin_guarded(Wish { token, copyset, wanted, for_what, guard });
    }

    pub(crate) fn begin_guarded(&mut self, wish: Wish) {
        let Wish { token, for_what, guard, .. } = wish;
        if let Err(wish) = self.start_read(wish) {
            if self.reads.waiting.len() >= READS_WAITING_MAX {
                self.space.read_ended(guard);
                return self.read_ends(token, for_what, Err(ReadError::Busy));
            }
            self.reads.waiting.push_back(wish);
        }
    }

    /// Starts the reads that wait for memory, in their order.
    pub(crate) fn retry_reads(&mut self) {
        while let Some(wish) = self.reads.waiting.pop_front() {
            if let Err(wish) = self.start_read(wish) {
                self.reads.waiting.push_front(wish);
                break;
            }
        }
    }

    /// Starts a read; gives it back when there is no memory for it.
    fn start_read(&mut self, wish: Wish) -> Result<(), Wish> {
        let wanted = &wish.wanted;
        let runs = runs(wanted);
        let covered = runs.len() == 1 && runs[0].1 == wanted.len();
        let mut whole = None;
        if !covered && wish.for_what == Use::Result {
            // Zeroes in between, or pieces from several places: the result is put together in
            // memory of its own.
            whole = self.pool.alloc_zeroed(wanted.len() * BLOCK_BYTES);
            if whole.is_none() {
                return Err(wish);
            }
        }
        let buffers: Option<Vec<BufMut>> =
            runs.iter().map(|&(_, count)| self.pool.alloc(count * BLOCK_BYTES)).collect();
        let Some(buffers) = buffers else { return Err(wish) };
        let left = runs.len();
        let part = |&(first, count): &(usize, usize)| Part { first, count, data: None };
        let parts = runs.iter().map(part).collect();
        let read = Read { wish, parts, left, whole };
        if left == 0 {
            self.end_read(read);
            return Ok(());
        }
        let places: Vec<u32> = runs.iter().map(|&(first, _)| read.place(first)).collect();
        let number = self.reads.active.insert(read);
        for (part, (place, buf)) in places.into_iter().zip(buffers).enumerate() {
            self.fetch(number, part, place, buf);
        }
        Ok(())
    }

    fn fetch(&mut self, read: u64, part: usize, place: u32, buf: BufMut) {
        let id = self.op(Kind::Read { read, part });
        self.out.push(DiskOp::Read { id, addr: self.layout.block_addr(place), buf });
    }

    /// A part of a read has ended.
    pub(crate) fn read_part_done(
        &mut self,
        id: u64,
        part: usize,
        result: Result<Option<BufMut>, DiskError>,
    ) {
        let read = self.reads.active.get_mut(id).expect("reads stay until all parts ended");
        read.left -= 1;
        let failed = result.is_err();
        read.parts[part].data =
            Some(result.map(|buf| buf.expect("a read returns its buffer").freeze()));
        if failed && self.fetch_singly(id, part) {
            return;
        }
        let read = self.reads.active.get_mut(id).expect("looked up above");
        if read.left == 0 {
            let read = self.reads.active.remove(id).expect("looked up above");
            self.end_read(read);
        }
    }

    /// Asks for each block of a part that failed; false when it was one block, or there is no
    /// memory: then all of its blocks count as damaged.
    fn fetch_singly(&mut self, id: u64, part: usize) -> bool {
        let pool = self.pool.clone();
        let read = self.reads.active.get_mut(id).expect("the caller looked");
        let Part { first, count, .. } = read.parts[part];
        if count == 1 {
            return false;
        }
        if read.whole.is_none() && read.wish.for_what == Use::Result {
            read.whole = pool.alloc_zeroed(read.wish.wanted.len() * BLOCK_BYTES);
            if read.whole.is_none() {
                return false;
            }
        }
        let buffers: Option<Vec<BufMut>> = (0..count).map(|_| pool.alloc(BLOCK_BYTES)).collect();
        let Some(buffers) = buffers else { return false };
        read.parts[part].count = 0;
        read.left += count;
        let begin = read.parts.len();
        read.parts.extend((first..first + count).map(|f| Part { first: f, count: 1, data: None }));
        let places: Vec<u32> = (first..first + count).map(|at| read.place(at)).collect();
        for ((part, place), buf) in (begin..).zip(places).zip(buffers) {
            self.fetch(id, part, place, buf);
        }
        true
    }

    fn end_read(&mut self, mut read: Read) {
        self.space.read_ended(read.wish.guard);
        let damaged = read.damaged();
        let Wish { token, copyset, for_what, .. } = read.wish;
        let Some(first) = damaged.first() else {
            let data = (for_what == Use::Result).then(|| read.assemble());
            return self.read_ends(token, for_what, Ok(data));
        };
        let error = first.error;
        for block in damaged.iter().filter(|b| matches!(b.error, ReadError::Device(_))) {
            self.space.avoid(block.place);
        }
        let rest = match for_what {
            Use::Check => None,
            Use::Result => {
                let bytes = read.wish.wanted.len() * BLOCK_BYTES;
                let whole = read.whole.take().or_else(|| self.pool.alloc_zeroed(bytes));
                whole.map(|whole| read.fill(whole))
            }
        };
        let damage = Box::new(Damage { token, copyset, blocks: damaged, rest });
        self.events.push_back(StoreEvent::Damaged(damage));
        self.read_ends(token, for_what, Err(error));
    }

    /// `data` is there when it was asked for.
    fn read_ends(&mut self, token: u64, for_what: Use, data: Result<Option<Buf>, ReadError>) {
        self.events.push_back(match for_what {
            Use::Result => {
                let result = data.map(|data| data.expect("a result was asked for"));
                StoreEvent::ReadDone { token, result }
            }
            Use::Check => StoreEvent::Checked { token, result: data.map(|_| ()) },
        });
    }
}

impl Read {
    /// Where a block of a part lies.
    fn place(&self, at: usize) -> u32 {
        self.wish.wanted[at].place.expect("parts hold mapped blocks")
    }

    /// The blocks that cannot be used, in the order of the result.
    fn damaged(&self) -> Vec<DamagedBlock> {
        let mut damaged = Vec::new();
        for part in &self.parts {
            let data = part.data.as_ref().expect("all parts ended");
            for at in part.first..part.first + part.count {
                let error = match data {
                    Err(error) => ReadError::Device(*error),
                    Ok(data) => {
                        let from = (at - part.first) * BLOCK_BYTES;
                        let found = block_sum(&data[from..from + BLOCK_BYTES]);
                        if found == self.wish.wanted[at].block.sum {
                            continue;
                        }
                        ReadError::Checksum
                    }
                };
                let (block, place) = (self.wish.wanted[at].block, self.place(at));
                damaged.push(DamagedBlock { at, block, place, error });
            }
        }
        damaged.sort_unstable_by_key(|block| block.at);
        damaged
    }

    /// The result of a read without errors: its only part, or its parts between zeroes.
    fn assemble(mut self) -> Buf {
        match self.whole.take() {
            Some(whole) => self.fill(whole).freeze(),
            None => {
                let data = self.parts.pop().and_then(|part| part.data);
                data.and_then(Result::ok).expect("one part, which ended well")
            }
        }
    }

    /// Puts the parts that were read into their places.
    fn fill(&self, mut whole: BufMut) -> BufMut {
        for Part { first, count, data } in &self.parts {
            if let Some(Ok(data)) = data {
                let at = first * BLOCK_BYTES;
                whole[at..at + count * BLOCK_BYTES].copy_from_slice(data);
            }
        }
        whole
    }
}

/// Blocks of a chunk.
pub(crate) fn range(start: u16, blocks: usize) -> BlockRange {
    BlockRange::new(start, blocks as u16).expect("blocks of a chunk")
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
