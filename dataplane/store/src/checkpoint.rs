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
//! | start | captures the states of all replicas and the place in the log that they belong to |
//! | Captured | waits; a delta changes its map when its record is persisted, and must be in the pages |
//! | Pages | writes the dirty pages, as they are by then, into free slots, a few at a time |
//! | Directory | writes states and page places into the directory area that is not in use |
//! | the others | make the new checkpoint the valid one |
//! | end | frees the slots of the checkpoint before, cuts the log to where this one started |
//!
//! The design record `design/0001-one-log.md` argues why pages may be written while entries go on
//! being applied.

use std::collections::VecDeque;

use ogive_buf::{Buf, BufMut};
use ogive_types::{CopysetId, Index};

use crate::directory::{self, PagePlace};
use crate::io::DiskOp;
use crate::limits::{CHECKPOINT_AT, CHECKPOINT_PAGES_IN_FLIGHT, DIRECTORY_WRITE_BYTES};
use crate::map::{PAGE_BYTES, PageKey};
use crate::store::{Kind, Store};
use crate::superblock::{Directory, Superblock};
use crate::writer::{Ends, Seq};

pub(crate) struct Checkpoint {
    /// The newest superblock that is on stable storage.
    pub(crate) superblock: Superblock,
    /// Slots of pages that are gone; the next directory no longer names them.
    pub(crate) dropped_slots: Vec<u32>,
    pub(crate) completed: u64,
    /// The last one could not start since its directory would not fit.
    too_large: bool,
    phase: Phase,
    in_flight: usize,
    /// Memory put aside for when the pool has none.
    reserve: Option<BufMut>,
}

enum Phase {
    Idle,
    Captured(Pages),
    Pages(Pages),
    Directory(Writing),
    FlushDirectory(Ending),
    Superblock(Ending),
    FlushSuperblock(Ending),
}

/// What the start captured, and what is left to write.
struct Pages {
    tail: u64,
    tail_crc: u32,
    skip: u32,
    captured: Seq,
    states: Vec<Captured>,
    queue: VecDeque<(CopysetId, PageKey)>,
    old_slots: Vec<u32>,
}

/// A replica's state as it was at the start.
struct Captured {
    id: CopysetId,
    born: Seq,
    state: Vec<u8>,
}

struct Writing {
    bytes: Vec<u8>,
    at: usize,
    ending: Ending,
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
            too_large: false,
            phase: Phase::Idle,
            in_flight: 0,
            reserve: Some(reserve),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }
}

impl Store {
    /// Starts a checkpoint now, unless one is under way.
    pub fn start_checkpoint(&mut self) {
        if !self.checkpoint.is_idle() || self.failed.is_some() {
            return;
        }
        let Ends { head: tail, crc: tail_crc, .. } = self.log.ends();
        let states = self.replicas.iter().map(|(&id, replica)| Captured {
            id,
            born: replica.born,
            state: directory::encode_state(id, replica),
        });
        let states: Vec<Captured> = states.collect();
        let pages_max = self.slots.len() as usize / 2;
        let bytes = directory::size_max(states.iter().map(|s| &s.state[..]), pages_max);
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
        // The states hold what waits for a batch, and all of it comes after the tail.
        let (skip, captured) = (self.log.pending() as u32, self.log.last_seq());
        let (queue, old_slots) = (VecDeque::new(), Vec::new());
        let pages = Pages { tail, tail_crc, skip, captured, states, queue, old_slots };
        self.checkpoint.phase = Phase::Captured(pages);
    }

    /// Goes on with the checkpoint under way, or starts one when the log is half full.
    pub(crate) fn advance_checkpoint(&mut self) {
        if self.checkpoint.is_idle() && self.log.used() > self.layout.log_bytes / CHECKPOINT_AT {
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
            Phase::Captured(mut pages) if self.log.persisted_seq() >= pages.captured => {
                for (&id, replica) in &self.replicas {
                    let dirty = replica.map.iter().filter(|(_, page)| page.dirty);
                    pages.queue.extend(dirty.map(|(key, _)| (id, key)));
                }
                (Phase::Pages(pages), true)
            }
            Phase::Pages(mut pages) => {
                self.write_pages(&mut pages);
                if !pages.queue.is_empty() || self.checkpoint.in_flight > 0 {
                    return (Phase::Pages(pages), false);
                }
                (Phase::Directory(self.build_directory(pages)), true)
            }
            Phase::Directory(mut writing) => {
                if !self.write_directory(&mut writing) || self.checkpoint.in_flight > 0 {
                    return (Phase::Directory(writing), false);
                }
                self.flush_checkpoint();
                (Phase::FlushDirectory(writing.ending), false)
            }
            Phase::FlushDirectory(ending) if quiet => {
                let bytes = ending.superblock.encode();
                let addr = self.layout.superblock[ending.superblock.slot()];
                if self.write_checkpoint(addr, &bytes) {
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
                ending.old_slots.into_iter().for_each(|slot| self.slots.give(slot));
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

    fn write_pages(&mut self, pages: &mut Pages) {
        let mut bytes = Vec::new();
        while self.checkpoint.in_flight < CHECKPOINT_PAGES_IN_FLIGHT {
            let Some(&(id, key)) = pages.queue.front() else { break };
            let map = self.replicas.get_mut(&id).map(|replica| &mut replica.map);
            if !map.is_some_and(|map| map.encode_page(key, self.region, id, &mut bytes)) {
                pages.queue.pop_front(); // dropped meanwhile
                continue;
            }
            let (slot, _) = self.slots.take_run(1).expect("half of the slots are kept free");
            let addr = self.layout.slot_addr(slot);
            if !self.write_checkpoint(addr, &bytes) {
                self.slots.give(slot);
                break;
            }
            self.written.map_bytes += PAGE_BYTES as u64;
            self.written.directory_bytes -= PAGE_BYTES as u64;
            let page = self.replicas.get_mut(&id).and_then(|r| r.map.page_mut(key));
            let page = page.expect("looked up above");
            pages.old_slots.extend(page.written_to(slot, &bytes));
            pages.queue.pop_front();
        }
    }

    fn build_directory(&mut self, pages: Pages) -> Writing {
        let Pages { tail, tail_crc, skip, states, mut old_slots, .. } = pages;
        let persisted = self.log.persisted_seq();
        // A replica that was dropped meanwhile is left out, even if it was made again: its pages
        // are gone, and the log has the rest.
        let states = states.into_iter().filter_map(|Captured { id, born, state }| {
            let replica = self.replicas.get(&id).filter(|replica| replica.born == born)?;
            Some((id, state, replica.applied_for_sure(persisted)))
        });
        let states: Vec<(CopysetId, Vec<u8>, Index)> = states.collect();
        let mut places: Vec<PagePlace> = Vec::new();
        for &(id, _, _) in &states {
            let pages = self.replicas[&id].map.iter();
            places.extend(pages.filter_map(|(key, page)| {
                let (slot, sum) = (page.slot()?, Some(page.sum()));
                Some(PagePlace { copyset: id, key, slot, sum })
            }));
        }
        let mut bytes = directory::encode(self.region, &states, &places);
        let crc = crc32c::crc32c(&bytes);
        let len = bytes.len() as u64;
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        assert!(bytes.len() as u64 <= self.layout.directory_bytes, "checked at the start");
        old_slots.append(&mut self.checkpoint.dropped_slots);
        let before = self.checkpoint.superblock;
        let area = before.directory.map_or(0, |d| 1 - d.area);
        let superblock = Superblock {
            generation: before.generation + 1,
            tail,
            tail_crc,
            skip,
            persisted: self.log.persisted(),
            directory: Some(Directory { area, bytes: len, crc }),
            ..before
        };
        Writing { bytes, at: 0, ending: Ending { superblock, old_slots } }
    }

    /// Starts writes of the directory; true when all were started.
    fn write_directory(&mut self, writing: &mut Writing) -> bool {
        let area = writing.ending.superblock.directory.expect("just made").area;
        let start = self.layout.directory[usize::from(area)];
        while writing.at < writing.bytes.len() {
            let end = (writing.at + DIRECTORY_WRITE_BYTES).min(writing.bytes.len());
            let addr = start + writing.at as u64;
            let full = self.checkpoint.in_flight >= CHECKPOINT_PAGES_IN_FLIGHT;
            if full || !self.write_checkpoint(addr, &writing.bytes[writing.at..end]) {
                return false;
            }
            writing.at = end;
        }
        true
    }

    fn flush_checkpoint(&mut self) {
        // Even where nothing is volatile: it costs nothing there, and keeps the order plain.
        let id = self.op(Kind::Checkpoint);
        self.checkpoint.in_flight += 1;
        self.written.flushes += 1;
        self.out.push(DiskOp::Flush { id });
    }

    /// Starts a write of the checkpoint; false when there is no memory for it now.
    fn write_checkpoint(&mut self, addr: u64, bytes: &[u8]) -> bool {
        let memory = self.pool.alloc(bytes.len()).or_else(|| {
            let mut memory = self.checkpoint.reserve.take()?;
            memory.truncate(bytes.len());
            Some(memory)
        });
        let Some(mut memory) = memory else { return false };
        memory.copy_from_slice(bytes);
        let buf: Buf = memory.freeze();
        let id = self.op(Kind::Checkpoint);
        self.checkpoint.in_flight += 1;
        self.written.directory_bytes += bytes.len() as u64;
        self.out.push(DiskOp::Write { id, addr, bufs: vec![buf] });
        true
    }
}
