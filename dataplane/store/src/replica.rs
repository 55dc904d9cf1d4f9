//! One replica in memory: its retained log, its map, its fences.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ogive_buf::Buf;
use ogive_types::message::Op;
use ogive_types::{ChunkId, Epoch, Index, LogPos, ShardAddr, Term, VolumeId};

use crate::map::{Map, MapUse, Mapping, OutPage, Removed};
use crate::record::Extent;
use crate::writer::Seq;

pub use ogive_types::HardState;

/// An entry of the retained log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Term in which it was proposed.
    pub term: Term,
    /// What it does.
    pub op: Op,
    /// The data of a write, while it is kept in memory.
    pub payload: Option<Buf>,
    pub(crate) extents: Vec<Extent>,
    /// Device blocks of an applied entry that the map does not show any more.
    pub(crate) orphans: Vec<u32>,
    /// Map pages that were promised to it.
    pub(crate) pages_reserved: usize,
    /// Its record; 0 when recovery found it.
    pub(crate) seq: Seq,
    /// Bytes of its record.
    pub(crate) record_bytes: usize,
}

impl LogEntry {
    /// Device blocks with their block numbers in the chunk, of a write.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        let start = match &self.op {
            Op::Write { range, .. } => range.start(),
            _ => 0,
        };
        (start..).zip(self.extents.iter().flat_map(|e| e.iter()))
    }

    /// Blocks that only this entry names, not the map.
    pub(crate) fn unmapped(&self, applied: bool) -> Vec<u32> {
        match applied {
            true => self.orphans.clone(),
            false => self.blocks().map(|(_, place)| place).collect(),
        }
    }

    /// Number of device blocks.
    pub(crate) fn block_count(&self) -> u64 {
        self.extents.iter().map(|e| u64::from(e.blocks)).sum()
    }
}

/// State of a replica, as the layers above see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// All members of the copyset, as at its creation; the first is the preferred leader.
    pub members: Vec<ShardAddr>,
    /// Newest hard state, saved or being saved.
    pub hard: HardState,
    /// First retained entry, or the one to come when none is.
    pub first: Index,
    /// Position of the last entry.
    pub last: LogPos,
    /// What the map shows.
    pub applied: LogPos,
    /// Everything up to here is on stable storage.
    pub persisted: Index,
}

pub(crate) struct Replica {
    /// The record that made it; 0 when recovery found it.
    pub(crate) born: Seq,
    pub(crate) members: Vec<ShardAddr>,
    pub(crate) hard: HardState,
    pub(crate) entries: VecDeque<LogEntry>,
    /// Position before the first retained entry.
    pub(crate) prev: LogPos,
    pub(crate) applied: LogPos,
    pub(crate) persisted: Index,
    pub(crate) fences: BTreeMap<VolumeId, Epoch>,
    pub(crate) map: Map,
    /// Blocks of truncated entries; freed with the record of what replaces them.
    pub(crate) truncated: Vec<u32>,
    /// The record of the newest reset, and what was applied before it.
    pub(crate) reset: (Seq, Index),
}

/// Blocks that were replaced, with their former mappings.
pub(crate) type Replaced = Vec<(ChunkId, u16, Mapping)>;

/// What a change of a map leaves over.
#[derive(Default)]
pub(crate) struct Gone {
    pub(crate) replaced: Replaced,
    /// Places of a delta that were older than what is there.
    pub(crate) unused: Vec<u32>,
    /// Slots of pages that are gone.
    pub(crate) slots: Vec<u32>,
    /// Pages that are gone, with blocks that only their slots name.
    pub(crate) out: Vec<OutPage>,
}

impl Gone {
    pub(crate) fn chunk(&mut self, chunk: ChunkId, removed: Removed) {
        let replaced = removed.blocks.into_iter().map(|(block, old)| (chunk, block, old));
        self.replaced.extend(replaced);
        self.slots.extend(removed.slots);
        self.out.extend(removed.out);
    }
}

impl Replica {
    pub(crate) fn new(members: Vec<ShardAddr>, born: Seq, usage: &Rc<MapUse>) -> Replica {
        Replica {
            born,
            members,
            hard: HardState::default(),
            entries: VecDeque::new(),
            prev: LogPos::default(),
            applied: LogPos::default(),
            persisted: Index(0),
            fences: BTreeMap::new(),
            map: Map::new(usage),
            truncated: Vec::new(),
            reset: (0, Index(0)),
        }
    }

    pub(crate) fn first(&self) -> Index {
        self.prev.index.next()
    }

    pub(crate) fn last(&self) -> LogPos {
        match self.entries.back() {
            Some(entry) => {
                let index = Index(self.prev.index.0 + self.entries.len() as u64);
                LogPos { term: entry.term, index }
            }
            None => self.prev,
        }
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&LogEntry> {
        let at = index.0.checked_sub(self.first().0)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    pub(crate) fn entry_mut(&mut self, index: Index) -> Option<&mut LogEntry> {
        let at = index.0.checked_sub(self.first().0)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.prev.index {
            return Some(self.prev.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The position of an index that is retained, or just before.
    pub(crate) fn pos(&self, index: Index) -> LogPos {
        LogPos { term: self.term_at(index).expect("retained"), index }
    }

    /// Makes the next entry show. Adds what it replaced.
    pub(crate) fn apply(&mut self, index: Index, gone: &mut Gone) {
        assert_eq!(index, self.applied.index.next(), "entries are applied in order");
        let at = (index.0 - self.first().0) as usize;
        let entry = self.entries.get_mut(at).expect("entries stay until they are applied");
        let map = &mut self.map;
        let mut orphans = Vec::new();
        match &entry.op {
            Op::Noop => {}
            Op::Write { chunk, sums, .. } => {
                for ((block, place), &sum) in entry.blocks().zip(sums) {
                    match map.set(*chunk, block, Mapping::stored(place, sum, index)) {
                        Some(old) => gone.replaced.push((*chunk, block, old)),
                        None => orphans.push(place),
                    }
                }
            }
            Op::Trim { chunk, range } => {
                for block in range.iter() {
                    let old = map.trim(*chunk, block, index);
                    gone.replaced.extend(old.map(|old| (*chunk, block, old)));
                }
            }
            Op::Fence { volume, epoch } => fence(&mut self.fences, *volume, *epoch),
            Op::DropVolume { volume } => {
                fence(&mut self.fences, *volume, Epoch(u64::MAX));
                drop_volume(map, *volume, gone);
            }
        }
        entry.orphans = orphans;
        self.applied = LogPos { term: entry.term, index };
    }

    /// What is applied even if no record after `persisted` is there: a reset moves the applied
    /// position before its record is on stable storage.
    pub(crate) fn applied_for_sure(&self, persisted: Seq) -> Index {
        let (seq, before) = self.reset;
        if seq > persisted { before } else { self.applied.index }
    }

    pub(crate) fn state(&self) -> ReplicaState {
        ReplicaState {
            members: self.members.clone(),
            hard: self.hard,
            first: self.first(),
            last: self.last(),
            applied: self.applied,
            persisted: self.persisted,
        }
    }

    /// Runs of equal terms in the retained log: first index and term of each.
    pub(crate) fn terms(&self) -> Vec<(Index, Term)> {
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for (entry, index) in self.entries.iter().zip(self.first().0..) {
            if runs.last().is_none_or(|&(_, term)| term != entry.term) {
                runs.push((Index(index), entry.term));
            }
        }
        runs
    }
}

/// Removes the chunks of a volume.
pub(crate) fn drop_volume(map: &mut Map, volume: VolumeId, gone: &mut Gone) {
    for chunk in map.chunks_of(volume) {
        gone.chunk(chunk, map.remove(chunk));
    }
}

/// Raises the epoch of a volume; it never falls.
pub(crate) fn fence(fences: &mut BTreeMap<VolumeId, Epoch>, volume: VolumeId, epoch: Epoch) {
    let newest = fences.entry(volume).or_default();
    *newest = (*newest).max(epoch);
}
