//! Checkpoints: they write what changed in the maps and cut the log, in the background, in bounded
//! steps.
//!
//! ```text
//! Idle ─(log half full)─▶ Captured ─(all captured records are persisted)─▶ Pages ─(all written)─▶
//! Directory ─▶ FlushDirectory ─▶ Superblock ─▶ FlushSuperblock ─▶ Idle
//! ```
//!
//! | phase | does |
//! |---|---|
//! | start | notes the place in the log that the checkpoint belongs to |
//! | Captured | captures the states of all replicas, each before it changes; waits until what they hold is persisted: a delta changes its map only then, and must be in the pages |
//! | Pages | writes the dirty pages, as they are by then, into free slots, a few at a time |
//! | Directory | writes states and page places into the directory area that is not in use, piece by piece |
//! | the others | make the new checkpoint the valid one |
//! | end | frees the slots of the checkpoint before, cuts the log to where this one started |
//!
//! No step takes longer than a piece of the directory, whatever the number of pages.
//!
//! The design record `design/0001-one-log.md` argues why pages may be written while entries go on
//! being applied.

use std::collections::{BTreeSet, VecDeque};

use ogive_buf::{Buf, BufMut};
use ogive_types::{ChunkId, CopysetId};

use crate::directory;
use crate::io::DiskOp;
use crate::limits::{
    CAPTURE_BYTES, CHECKPOINT_AT, CHECKPOINT_PAGES_IN_FLIGHT, DIRECTORY_WRITE_BYTES,
    SLOTS_FREED_MAX,
};
use crate::map::{PAGE_BYTES, PageKey};
use crate::store::{Kind, Store};
use crate::superblock::{Directory, Superblock, VERSION};
use crate::writer::{Ends, Seq};

pub(crate) struct Checkpoint {
    /// The newest superblock that is on stable storage.
    pub(crate) superblock: Superblock,
    /// Slots of pages that are gone; the next directory no longer names them.
    pub(crate) dropped_slots: Vec<u32>,
    pub(crate) completed: u64,
    /// Slots that the last checkpoint freed, and that are not given back yet.
    freed: Vec<u32>,
    /// The last one could not start since its directory would not fit.
    too_large: bool,
    phase: Phase,
    /// Replicas whose state the checkpoint still needs; they are captured before they change.
    uncaptured: BTreeSet<CopysetId>,
    states: Vec<Captured>,
    in_flight: usize,
    /// Memory put aside for when the pool has none.
    reserve: Option<BufMut>,
}

enum Phase {
    Idle,
    Captured(Start),
    Pages(Pages),
    Directory(Writing),
    FlushDirectory(Ending),
    Superblock(Ending),
    FlushSuperblock(Ending),
}

/// The place in the log that a checkpoint belongs to.
#[derive(Clone, Copy)]
struct Start {
    tail: u64,
    tail_crc: u32,
    skip: u32,
    captured: Seq,
}

/// What is left to write.
struct Pages {
    start: Start,
    queue: VecDeque<(CopysetId, std::vec::IntoIter<PageKey>)>,
    /// Pages that are being read, to be joined with what is new.
    later: VecDeque<(CopysetId, PageKey)>,
    old_slots: Vec<u32>,
}

/// A replica's state as it was at the start.
struct Captured {
    id: CopysetId,
    born: Seq,
    state: Vec<u8>,
}

/// A directory on its way.
struct Writing {
    start: Start,
    old_slots: Vec<u32>,
    /// Replicas whose pages are to be listed, the next first, and the chunks that are.
    left: VecDeque<(CopysetId, Seq)>,
    after: Option<ChunkId>,
    /// What is encoded and not written.
    bytes: Vec<u8>,
    area: u8,
    written: u64,
    crc: u32,
}

struct Ending {
    superblock: Superblock,
    old_slots: Vec<u32>,
}

impl Checkpoint {
    pub(crate) fn new(superblock: Superblock, reserve: BufMut) -> Checkpoint {
        Checkpoint {
            superblock,
            dropped_slots: Vec::new(),
            completed: 0,
            freed: Vec::new(),
            too_large: false,
            phase: Phase::Idle,
            uncaptured: BTreeSet::new(),
            states: Vec::new(),
            in_flight: 0,
            reserve: Some(reserve),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }
}

impl Pages {
    /// The next page that may have to be written.
    fn next(&mut self) -> Option<(CopysetId, PageKey)> {
        while let Some((id, keys)) = self.queue.front_mut() {
            if let Some(key) = keys.next() {
                return Some((*id, key));
            }
            self.queue.pop_front();
        }
        self.later.pop_front()
    }
}

impl Store {
    /// Starts a checkpoint now, unless one is under way.
    pub fn start_checkpoint(&mut self) {
        self.free_slots();
        let busy = !self.checkpoint.is_idle() || !self.checkpoint.freed.is_empty();
        if busy || self.failed.is_some() {
            return;
        }
        let states: usize = self.replicas.values().map(directory::state_max).sum();
        let pages_max = self.slots.len() as usize / 2;
        let bytes = directory::size_max(states + self.unapplied_bytes, pages_max);
        if bytes > self.layout.directory_bytes {
            if !std::mem::replace(&mut self.checkpoint.too_large, true) {
                tracing::error!(
                    bytes,
                    "no checkpoint: too many entries wait for their commit; \
                     are the other replicas of this shard's copysets up?"
                );
            }
            return;
        }
        self.checkpoint.too_large = false;
        let Ends { head: tail, crc: tail_crc, .. } = self.log.ends();
        // The states hold what waits for a batch, and all of it comes after the tail.
        let (skip, captured) = (self.log.pending() as u32, self.log.last_seq());
        self.checkpoint.uncaptured = self.replicas.keys().copied().collect();
        self.checkpoint.states = Vec::with_capacity(self.replicas.len());
        self.checkpoint.phase = Phase::Captured(Start { tail, tail_crc, skip, captured });
    }

    /// Captures the state of a replica that is about to change, for the checkpoint that needs it as
    /// it was at its start.
    pub(crate) fn about_to_change(&mut self, id: CopysetId) {
        if !self.checkpoint.uncaptured.is_empty() && self.checkpoint.uncaptured.remove(&id) {
            self.capture(id);
        }
    }

    /// A replica is about to be dropped: the checkpoint leaves it out.
    pub(crate) fn checkpoint_forgets(&mut self, id: CopysetId) {
        self.checkpoint.uncaptured.remove(&id);
    }

    fn capture(&mut self, id: CopysetId) -> usize {
        let Some(replica) = self.replicas.get(&id) else { return 0 };
        let state = directory::encode_state(id, replica);
        let bytes = state.len();
        self.checkpoint.states.push(Captured { id, born: replica.born, state });
        bytes
    }

    /// Captures some replicas; true when all are.
    fn capture_some(&mut self) -> bool {
        let mut bytes = 0;
        while bytes < CAPTURE_BYTES {
            let Some(id) = self.checkpoint.uncaptured.pop_first() else { return true };
            bytes += self.capture(id);
        }
        self.checkpoint.uncaptured.is_empty()
    }

    /// Gives back some of the slots that the last checkpoint freed.
    fn free_slots(&mut self) {
        let left = self.checkpoint.freed.len().saturating_sub(SLOTS_FREED_MAX);
        self.checkpoint.freed.drain(left..).for_each(|slot| self.slots.give(slot));
    }

    /// Goes on with the checkpoint under way, or starts one when the log is half full.
    pub(crate) fn advance_checkpoint(&mut self) {
        self.free_slots();
        let long = self.log.used() > self.layout.log_bytes / CHECKPOINT_AT;
        if self.checkpoint.is_idle() && (long || self.maps_want_checkpoint()) {
            self.start_checkpoint();
        }
        loop {
            let phase = std::mem::replace(&mut self.checkpoint.phase, Phase::Idle);
            let (phase, again) = self.step(phase);
            self.checkpoint.phase = phase;
            if !again {
                break;
            }
        }
    }

    /// One step of the checkpoint; true when the next can follow at once.
    fn step(&mut self, phase: Phase) -> (Phase, bool) {
        let quiet = self.checkpoint.in_flight == 0;
        match phase {
            Phase::Idle => (Phase::Idle, false),
            Phase::Captured(start) => {
                let captured = self.capture_some();
                if !captured || self.log.persisted_seq() < start.captured {
                    return (Phase::Captured(start), false);
                }
                (Phase::Pages(self.list_pages(start)), true)
            }
            Phase::Pages(mut pages) => {
                let all = self.write_pages(&mut pages);
                if !all || self.checkpoint.in_flight > 0 {
                    return (Phase::Pages(pages), false);
                }
                (Phase::Directory(self.begin_directory(pages)), true)
            }
            Phase::Directory(mut writing) => {
                if !self.write_directory(&mut writing) || self.checkpoint.in_flight > 0 {
                    return (Phase::Directory(writing), false);
                }
                self.flush_checkpoint();
                (Phase::FlushDirectory(self.end_directory(writing)), false)
            }
            Phase::FlushDirectory(ending) if quiet => {
                let bytes = ending.superblock.encode();
                let addr = self.layout.superblock[ending.superblock.slot()];
                if self.write_checkpoint(addr, &bytes, Kind::Checkpoint) {
                    return (Phase::Superblock(ending), false);
                }
                (Phase::FlushDirectory(ending), false)
            }
            Phase::Superblock(ending) if quiet => {
                self.flush_checkpoint();
                (Phase::FlushSuperblock(ending), false)
            }
            Phase::FlushSuperblock(ending) if quiet => {
                self.log.cut(ending.superblock.tail);
                self.checkpoint.freed = ending.old_slots;
                self.free_slots();
                self.checkpoint.superblock = ending.superblock;
                self.checkpoint.completed += 1;
                (Phase::Idle, false)
            }
            waiting => (waiting, false),
        }
    }

    pub(crate) fn checkpoint_step_done(&mut self) {
        self.checkpoint.in_flight -= 1;
        if self.checkpoint.reserve.is_none() {
            self.checkpoint.reserve = self.pool.alloc(DIRECTORY_WRITE_BYTES);
        }
    }

    /// A page was written to a slot.
    pub(crate) fn page_written(&mut self, id: CopysetId, key: PageKey, slot: u32) {
        let page = self.replicas.get_mut(&id).and_then(|r| r.map.page_mut(key));
        if let Some(page) = page.filter(|page| page.slot() == Some(slot)) {
            page.writing = false;
        }
    }

    fn list_pages(&mut self, start: Start) -> Pages {
        let dirty = self.replicas.iter_mut().map(|(&id, r)| (id, r.map.take_dirty().into_iter()));
        Pages { start, queue: dirty.collect(), later: VecDeque::new(), old_slots: Vec::new() }
    }

    /// Starts writes of pages; true when all were started.
    fn write_pages(&mut self, pages: &mut Pages) -> bool {
        let mut bytes = Vec::new();
        // Some are gone, some must be read first: a call looks at so many.
        for _ in 0..CHECKPOINT_PAGES_IN_FLIGHT * 4 {
            if self.checkpoint.in_flight >= CHECKPOINT_PAGES_IN_FLIGHT {
                return false;
            }
            let Some((id, key)) = pages.next() else { return true };
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            if replica.map.page(key).is_some_and(|page| page.dirty && page.out) {
                pages.later.push_back((id, key));
                continue;
            }
            if !replica.map.encode_page(key, self.region, id, &mut bytes) {
                continue; // dropped meanwhile
            }
            let (slot, _) = self.slots.take_run(1).expect("half of the slots are kept free");
            let kind = Kind::PageWrite { copyset: id, key, slot };
            if !self.write_checkpoint(self.layout.slot_addr(slot), &bytes, kind) {
                self.slots.give(slot);
                pages.later.push_front((id, key));
                return false;
            }
            self.written.map_bytes += PAGE_BYTES as u64;
            self.written.directory_bytes -= PAGE_BYTES as u64;
            let map = &mut self.replicas.get_mut(&id).expect("looked up above").map;
            pages.old_slots.extend(map.written_to(key, slot, &bytes));
        }
        pages.queue.is_empty() && pages.later.is_empty()
    }

    fn begin_directory(&mut self, pages: Pages) -> Writing {
        let Pages { start, mut old_slots, .. } = pages;
        let persisted = self.log.persisted_seq();
        let states = std::mem::take(&mut self.checkpoint.states);
        // A replica that was dropped meanwhile is left out, even if it was made again: its pages
        // are gone, and the log has the rest.
        let (mut here, mut left) = (Vec::with_capacity(states.len()), VecDeque::new());
        for Captured { id, born, state } in states {
            let replica = self.replicas.get(&id).filter(|replica| replica.born == born);
            let Some(replica) = replica else { continue };
            here.push((id, state, replica.applied_for_sure(persisted)));
            left.push_back((id, born));
        }
        let mut bytes = directory::encode_head(self.region, &here);
        if left.is_empty() {
            directory::encode_end(&mut bytes);
        }
        // Pages that are dropped from here on may be listed: their slots wait for the next one.
        old_slots.append(&mut self.checkpoint.dropped_slots);
        let area = self.checkpoint.superblock.directory.map_or(0, |d| 1 - d.area);
        Writing { start, old_slots, left, after: None, bytes, area, written: 0, crc: 0 }
    }

    /// Encodes the next piece of a directory, as far as it goes.
    fn extend_directory(&mut self, writing: &mut Writing) {
        while writing.bytes.len() < DIRECTORY_WRITE_BYTES {
            let Some(&(id, born)) = writing.left.front() else { return };
            let replica = self.replicas.get(&id).filter(|replica| replica.born == born);
            let map = replica.map(|replica| &replica.map);
            match map.and_then(|map| map.chunks_after(writing.after).next()) {
                Some(chunk) => {
                    let pages = map.into_iter().flat_map(|map| map.pages_in(chunk));
                    let places = pages.filter_map(|(n, page)| Some((n, page.slot()?, page.sum())));
                    directory::encode_chunk(&mut writing.bytes, id, chunk, places);
                    writing.after = Some(chunk);
                }
                None => {
                    writing.left.pop_front();
                    writing.after = None;
                    if writing.left.is_empty() {
                        directory::encode_end(&mut writing.bytes);
                    }
                }
            }
        }
    }

    /// Starts the write of the next piece of a directory; true when all were started.
    fn write_directory(&mut self, writing: &mut Writing) -> bool {
        if self.checkpoint.in_flight > 0 {
            return false;
        }
        self.extend_directory(writing);
        if writing.bytes.is_empty() {
            return true;
        }
        let len = writing.bytes.len().min(DIRECTORY_WRITE_BYTES);
        let mut piece = writing.bytes[..len].to_vec();
        piece.resize(len.next_multiple_of(PAGE_BYTES), 0);
        let addr = self.layout.directory[usize::from(writing.area)] + writing.written;
        let end = writing.written + piece.len() as u64;
        assert!(end <= self.layout.directory_bytes, "checked at the start");
        if !self.write_checkpoint(addr, &piece, Kind::Checkpoint) {
            return false;
        }
        writing.crc = crc32c::crc32c_append(writing.crc, &piece[..len]);
        writing.written += len as u64;
        writing.bytes.drain(..len);
        false
    }

    fn end_directory(&self, writing: Writing) -> Ending {
        let Writing { start, old_slots, area, written: bytes, crc, .. } = writing;
        let before = self.checkpoint.superblock;
        let superblock = Superblock {
            version: VERSION,
            generation: before.generation + 1,
            tail: start.tail,
            tail_crc: start.tail_crc,
            skip: start.skip,
            persisted: self.log.persisted(),
            directory: Some(Directory { area, bytes, crc }),
            ..before
        };
        Ending { superblock, old_slots }
    }

    fn flush_checkpoint(&mut self) {
        // Even where nothing is volatile: it costs nothing there, and keeps the order plain.
        let id = self.op(Kind::Checkpoint);
        self.checkpoint.in_flight += 1;
        self.written.flushes += 1;
        self.out.push(DiskOp::Flush { id });
    }

    /// Starts a write of the checkpoint; false when there is no memory for it now.
    fn write_checkpoint(&mut self, addr: u64, bytes: &[u8], kind: Kind) -> bool {
        let memory = self.pool.alloc(bytes.len()).or_else(|| {
            let mut memory = self.checkpoint.reserve.take()?;
            memory.truncate(bytes.len());
            Some(memory)
        });
        let Some(mut memory) = memory else { return false };
        memory.copy_from_slice(bytes);
        let buf: Buf = memory.freeze();
        let id = self.op(kind);
        self.checkpoint.in_flight += 1;
        self.written.directory_bytes += bytes.len() as u64;
        self.out.push(DiskOp::Write { id, addr, bufs: vec![buf] });
        true
    }
}
