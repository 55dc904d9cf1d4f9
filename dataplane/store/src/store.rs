//! The store: one shard's region of a device.
//!
//! Like the layers above it is told what happened and says what to do: `complete` takes an ended disk operation,
//! `poll_ops` hands out new ones, `poll_events` what others wait for. It never blocks and knows no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ogive_buf::{Buf, BufMut, Pool};
use ogive_types::message::{Mapped, Op};
use ogive_types::{
    BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Epoch, Index, LogPos, ShardAddr, Term, VolumeId,
};

use crate::alloc::Allocator;
use crate::checkpoint::Checkpoint;
use crate::codec::Writer;
use crate::io::{DiskDone, DiskError, DiskOp, OpId};
use crate::limits::BATCH_BYTES_MAX;
use crate::map::Mapping;
use crate::reads::{ReadError, Reads};
use crate::record::{Extent, Record, encode_entry};
use crate::region::RegionLayout;
use crate::replica::{HardState, LogEntry, Replica, ReplicaState};
use crate::space::Space;
use crate::stats::{StoreStats, Written};
use crate::writer::{LogWriter, Notify, Seq};

/// How to run a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The device may lose writes that ended before a flush.
    pub volatile_cache: bool,
    /// Entries kept for followers beyond what recovery needs, over all copysets.
    pub retain_entries: usize,
    /// Bytes of entries' data kept in memory for followers.
    pub retain_bytes: usize,
    /// Share of the data blocks, 1 / n, that kept entries may hold on to.
    pub retain_share: u32,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            volatile_cache: true,
            retain_entries: 16_384,
            retain_bytes: 32 << 20,
            retain_share: 16,
        }
    }
}

/// Why an entry is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No free blocks, or no room for the maps of so scattered data.
    #[error("the device is full; free space on it or add another")]
    NoSpace,
    /// Too much waits for the log.
    #[error("the log is behind; try again soon")]
    Busy,
    /// The device failed.
    #[error("the device failed")]
    Failed,
}

/// Something that others wait for.
#[derive(Debug)]
pub enum StoreEvent {
    /// Entries up to here are on stable storage. In order for each copyset.
    Persisted {
        /// The copyset.
        copyset: CopysetId,
        /// The newest of them.
        index: Index,
    },
    /// A hard state is on stable storage.
    HardState {
        /// The copyset.
        copyset: CopysetId,
        /// The state.
        hard: HardState,
    },
    /// A read has ended.
    ReadDone {
        /// As given to the read.
        token: u64,
        /// The bytes, checked against their checksums.
        result: Result<Buf, ReadError>,
    },
    /// A delta page or a log reset is on stable storage, and shows.
    DeltaPersisted {
        /// As given to it.
        token: u64,
        /// The copyset.
        copyset: CopysetId,
    },
    /// Stored blocks do not match their checksums, or cannot be read; a peer must repair them.
    Damaged {
        /// The copyset.
        copyset: CopysetId,
        /// The chunk.
        chunk: ChunkId,
        /// The blocks among which the damage is.
        range: BlockRange,
    },
    /// The device failed to write: nothing more can be promised.
    Failed {
        /// How.
        error: DiskError,
    },
}

/// What an operation in flight is for.
#[derive(Debug)]
pub(crate) enum Kind {
    Data { seq: Seq },
    Log,
    Flush,
    Read { read: u64, part: usize },
    Checkpoint,
}

/// One shard's part of a device.
pub struct Store {
    pub(crate) layout: RegionLayout,
    pub(crate) region: u64,
    pub(crate) options: StoreOptions,
    pub(crate) pool: Pool,
    pub(crate) replicas: BTreeMap<CopysetId, Replica>,
    pub(crate) space: Space,
    pub(crate) slots: Allocator,
    /// Map pages in memory, and those promised to entries that are not applied.
    pub(crate) pages: usize,
    pub(crate) pages_reserved: usize,
    pub(crate) log: LogWriter,
    pub(crate) reads: Reads,
    pub(crate) checkpoint: Checkpoint,
    /// Copysets whose applied index the log does not know yet.
    pub(crate) hints: BTreeSet<CopysetId>,
    ops: HashMap<OpId, Kind>,
    next_op: u64,
    pub(crate) out: Vec<DiskOp>,
    pub(crate) events: VecDeque<StoreEvent>,
    /// Kept entries in the order of their arrival.
    kept: VecDeque<(CopysetId, Index)>,
    pub(crate) kept_blocks: u64,
    /// Kept data in the order of its arrival.
    payloads: VecDeque<(CopysetId, Index)>,
    payload_bytes: usize,
    log_reserve: Option<BufMut>,
    pub(crate) failed: Option<DiskError>,
    pub(crate) written: Written,
    record: Vec<u8>,
}

/// The parts of a store that recovery finds.
pub(crate) struct Parts {
    pub(crate) layout: RegionLayout,
    pub(crate) region: u64,
    pub(crate) options: StoreOptions,
    pub(crate) pool: Pool,
    pub(crate) replicas: BTreeMap<CopysetId, Replica>,
    pub(crate) space: Space,
    pub(crate) slots: Allocator,
    pub(crate) log: LogWriter,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) log_reserve: BufMut,
}

impl Store {
    pub(crate) fn assemble(parts: Parts) -> Store {
        let pages = parts.replicas.values().map(|r| r.map.pages()).sum();
        let mut store = Store {
            layout: parts.layout,
            region: parts.region,
            options: parts.options,
            pool: parts.pool,
            replicas: parts.replicas,
            space: parts.space,
            slots: parts.slots,
            pages,
            pages_reserved: 0,
            log: parts.log,
            reads: Reads::default(),
            checkpoint: parts.checkpoint,
            hints: BTreeSet::new(),
            ops: HashMap::new(),
            next_op: 0,
            out: Vec::new(),
            events: VecDeque::new(),
            kept: VecDeque::new(),
            kept_blocks: 0,
            payloads: VecDeque::new(),
            payload_bytes: 0,
            log_reserve: Some(parts.log_reserve),
            failed: None,
            written: Written::default(),
            record: Vec::new(),
        };
        let mut kept = VecDeque::new();
        for (&id, replica) in &store.replicas {
            let first = replica.first().0;
            kept.extend((first..).take(replica.entries.len()).map(|index| (id, Index(index))));
            let extents = replica.entries.iter().flat_map(|e| &e.extents);
            store.kept_blocks += extents.map(|e| u64::from(e.blocks)).sum::<u64>();
        }
        store.kept = kept;
        store
    }

    /// The copysets with a replica here, in order.
    pub fn replicas(&self) -> impl Iterator<Item = CopysetId> + '_ {
        self.replicas.keys().copied()
    }

    /// The state of a replica.
    pub fn replica(&self, id: CopysetId) -> Option<ReplicaState> {
        self.replicas.get(&id).map(Replica::state)
    }

    /// What a replica's map shows.
    pub fn applied(&self, id: CopysetId) -> LogPos {
        self.replicas.get(&id).map(|r| r.applied).unwrap_or_default()
    }

    /// First retained index, and the newest that is on stable storage.
    pub fn log_bounds(&self, id: CopysetId) -> Option<(Index, Index)> {
        self.replicas.get(&id).map(|r| (r.first(), r.persisted))
    }

    /// Position before the first retained entry.
    pub fn prev(&self, id: CopysetId) -> LogPos {
        self.replicas.get(&id).map(|r| r.prev).unwrap_or_default()
    }

    /// Runs of equal terms in the retained log: first index and term of each.
    pub fn terms(&self, id: CopysetId) -> Vec<(Index, Term)> {
        self.replicas.get(&id).map(Replica::terms).unwrap_or_default()
    }

    /// The term of a retained entry, or of the position before the first.
    pub fn term_at(&self, id: CopysetId, index: Index) -> Option<Term> {
        self.replicas.get(&id)?.term_at(index)
    }

    /// A retained entry.
    pub fn entry(&self, id: CopysetId, index: Index) -> Option<&LogEntry> {
        self.replicas.get(&id)?.entry(index)
    }

    /// The newest epoch of a volume that is applied; `Epoch(u64::MAX)` for a deleted volume.
    pub fn fence_of(&self, id: CopysetId, volume: VolumeId) -> Option<Epoch> {
        self.replicas.get(&id)?.fences.get(&volume).copied()
    }

    /// All epochs applied.
    pub fn fences(&self, id: CopysetId) -> Vec<(VolumeId, Epoch)> {
        let replica = self.replicas.get(&id);
        replica.map(|r| r.fences.iter().map(|(&v, &e)| (v, e)).collect()).unwrap_or_default()
    }

    /// Which blocks of a range hold data, without gaps.
    pub fn mapped(&self, id: CopysetId, chunk: ChunkId, range: BlockRange) -> Vec<Mapped> {
        let mut runs: Vec<Mapped> = Vec::new();
        let map = self.replicas.get(&id).map(|r| &r.map);
        for block in range.iter() {
            let mapped = map.is_some_and(|m| m.get(chunk, block).block().is_some());
            let start = match runs.last_mut() {
                Some(last) if last.mapped == mapped => {
                    let start = last.range.start();
                    runs.pop();
                    start
                }
                _ => block,
            };
            let range = BlockRange::new(start, block + 1 - start).expect("part of a valid range");
            runs.push(Mapped { range, mapped });
        }
        runs
    }

    /// Makes a replica. It is on stable storage before anything that is appended to it.
    pub fn create_replica(&mut self, id: CopysetId, members: &[ShardAddr]) {
        assert!(!self.replicas.contains_key(&id), "{id} is here already");
        self.replicas.insert(id, Replica::new(members.to_vec()));
        self.log_record(&Record::Create { copyset: id, members: members.to_vec() }, Vec::new());
    }

    /// Removes a replica with all of its data.
    pub fn drop_replica(&mut self, id: CopysetId) {
        let Some(mut replica) = self.replicas.remove(&id) else { return };
        self.hints.remove(&id);
        let mut freed: BTreeSet<u32> = BTreeSet::new();
        for entry in &replica.entries {
            freed.extend(entry.extents.iter().flat_map(|e| e.iter()));
            self.pages_reserved -= entry.pages_reserved;
        }
        let chunks: Vec<ChunkId> = replica.map.chunks_after(None).collect();
        self.pages -= replica.map.pages();
        for chunk in chunks {
            let (blocks, slots) = replica.map.remove(chunk);
            freed.extend(blocks.iter().filter_map(|(_, m)| m.block()));
            self.checkpoint.dropped_slots.extend(slots);
        }
        let freed = vec![Notify::Free(freed.into_iter().collect())];
        self.log_record(&Record::Drop { copyset: id }, freed);
    }

    /// Saves a hard state; [`StoreEvent::HardState`] follows when it is on stable storage.
    pub fn save_hard_state(&mut self, id: CopysetId, hard: HardState) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.hard = hard;
        let notify = vec![Notify::Hard { copyset: id, hard }];
        self.log_record(&Record::Hard { copyset: id, hard }, notify);
    }

    /// Appends an entry at `index`, which must follow the last one, with the data of a write. Its disk writes start at
    /// once; [`StoreEvent::Persisted`] follows.
    pub fn append(
        &mut self,
        id: CopysetId,
        index: Index,
        term: Term,
        op: Op,
        payload: Option<Buf>,
    ) -> Result<(), AppendError> {
        if self.failed.is_some() {
            return Err(AppendError::Failed);
        }
        if self.log.is_full() {
            return Err(AppendError::Busy);
        }
        let replica = self.replicas.get(&id).expect("entries are appended to replicas that exist");
        assert_eq!(index, replica.last().index.next(), "entries are appended in order");
        assert!(term >= replica.last().term, "terms never fall");
        let pages_reserved = self.pages_needed(replica, &op)?;
        let (extents, data_writes) = match (&op, &payload) {
            (Op::Write { range, .. }, Some(data)) => {
                assert_eq!(data.len(), range.bytes(), "as much data as blocks");
                let extents = self.space.take(range.blocks()).ok_or(AppendError::NoSpace)?;
                let writes = self.write_data(&extents, data);
                (extents, writes)
            }
            (Op::Write { .. }, None) => panic!("a write comes with its data"),
            _ => (Vec::new(), 0),
        };
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        encode_entry(&mut Writer(&mut record), id, index, term, &op, &extents);
        let mut notify = vec![Notify::Entry { copyset: id, index, term }];
        let replica = self.replicas.get_mut(&id).expect("looked up above");
        let replaced = std::mem::take(&mut replica.truncated);
        if !replaced.is_empty() {
            notify.push(Notify::Free(replaced));
        }
        let blocks: u64 = extents.iter().map(|e| u64::from(e.blocks)).sum();
        let bytes = payload.as_ref().map_or(0, |p| p.len());
        replica.entries.push_back(LogEntry { term, op, payload, extents, pages_reserved });
        self.pages_reserved += pages_reserved;
        self.add_data_record(record, data_writes, notify);
        self.keep(id, index, blocks, bytes);
        Ok(())
    }

    /// Map pages that an operation may add; refused when they could not all be written by a checkpoint.
    fn pages_needed(&self, replica: &Replica, op: &Op) -> Result<usize, AppendError> {
        let Op::Write { chunk, range, .. } = op else { return Ok(0) };
        let missing = replica.map.pages_missing(*chunk, *range);
        self.pages_fit(missing).then_some(missing).ok_or(AppendError::NoSpace)
    }

    pub(crate) fn pages_fit(&self, more: usize) -> bool {
        // Half of the slots: a checkpoint writes every page anew before it frees the old slots.
        self.pages + self.pages_reserved + more <= self.slots.len() as usize / 2
    }

    /// Starts the writes of data into extents; how many.
    pub(crate) fn write_data(&mut self, extents: &[Extent], data: &Buf) -> u32 {
        let seq = self.log.next_seq();
        let mut at = 0;
        for extent in extents {
            let len = usize::from(extent.blocks) * BLOCK_BYTES;
            let addr = self.layout.block_addr(extent.block);
            let id = self.op(Kind::Data { seq });
            self.out.push(DiskOp::Write { id, addr, bufs: vec![data.slice(at..at + len)] });
            at += len;
        }
        self.written.data_bytes += data.len() as u64;
        extents.len() as u32
    }

    pub(crate) fn add_data_record(&mut self, record: Vec<u8>, writes: u32, notify: Vec<Notify>) {
        self.log.add(&record, writes, notify);
        self.record = record;
    }

    fn log_record(&mut self, record: &Record, notify: Vec<Notify>) {
        let mut bytes = std::mem::take(&mut self.record);
        bytes.clear();
        record.encode(&mut bytes);
        self.add_data_record(bytes, 0, notify);
    }

    pub(crate) fn op(&mut self, kind: Kind) -> OpId {
        self.next_op += 1;
        let id = OpId(self.next_op);
        self.ops.insert(id, kind);
        id
    }

    /// Notes an entry as kept for followers, and lets go of the oldest beyond the limits.
    fn keep(&mut self, id: CopysetId, index: Index, blocks: u64, payload_bytes: usize) {
        self.kept.push_back((id, index));
        self.kept_blocks += blocks;
        let blocks_max = u64::from(self.space.len() / self.options.retain_share.max(1));
        let mut tries = 8; // entries that are not applied cannot be let go; look behind a few of them
        while tries > 0
            && (self.kept.len() > self.options.retain_entries || self.kept_blocks > blocks_max)
        {
            let Some((id, index)) = self.kept.pop_front() else { break };
            let Some(replica) = self.replicas.get(&id) else { continue };
            if replica.entry(index).is_none() {
                continue;
            }
            if index <= replica.applied.index {
                self.release(id, index);
            } else {
                self.kept.push_back((id, index));
                tries -= 1;
            }
        }
        if payload_bytes > 0 {
            self.payloads.push_back((id, index));
            self.payload_bytes += payload_bytes;
        }
        while self.payload_bytes > self.options.retain_bytes {
            let Some((id, index)) = self.payloads.pop_front() else { break };
            self.forget_payload(id, index);
        }
    }

    fn forget_payload(&mut self, id: CopysetId, index: Index) {
        let entry = self.replicas.get_mut(&id).and_then(|r| r.entry_mut(index));
        if let Some(data) = entry.and_then(|e| e.payload.take()) {
            self.payload_bytes -= data.len();
        }
    }

    pub(crate) fn forget_bytes(&mut self, payload: Option<Buf>) {
        self.payload_bytes -= payload.map_or(0, |p| p.len());
    }

    /// Drops the entries from `index` on, before others take their place. They must not be applied.
    pub fn truncate_from(&mut self, id: CopysetId, index: Index) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        assert!(index > replica.applied.index, "{id}: applied entries are never truncated");
        while replica.last().index >= index && !replica.entries.is_empty() {
            let entry = replica.entries.pop_back().expect("not empty");
            // Their blocks stay as they are until the record of a replacement is persisted: before that a restart
            // brings the entries back.
            replica.truncated.extend(entry.extents.iter().flat_map(|e| e.iter()));
            self.pages_reserved -= entry.pages_reserved;
            self.kept_blocks -= entry.extents.iter().map(|e| u64::from(e.blocks)).sum::<u64>();
            self.payload_bytes -= entry.payload.map_or(0, |p| p.len());
        }
        replica.persisted = replica.persisted.min(index.prev());
    }

    /// Makes the entries up to `upto` show. They must be persisted, and committed by their copyset.
    pub fn apply(&mut self, id: CopysetId, upto: Index) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        assert!(upto <= replica.persisted, "{id}: only persisted entries are applied");
        if upto <= replica.applied.index {
            return;
        }
        while let Some(next) = Some(self.replicas[&id].applied.index.next()).filter(|&n| n <= upto)
        {
            self.apply_one(id, next);
        }
        self.hints.insert(id);
    }

    fn apply_one(&mut self, id: CopysetId, index: Index) {
        let replica = self.replicas.get_mut(&id).expect("checked by apply");
        let entry = replica.entry_mut(index).expect("entries stay until they are applied");
        let reserved = std::mem::take(&mut entry.pages_reserved);
        let pages_before = replica.map.pages();
        let mut replaced = Vec::new();
        let mut slots = Vec::new();
        replica.apply(index, &mut replaced, &mut slots);
        self.pages = self.pages + replica.map.pages() - pages_before;
        self.pages_reserved -= reserved;
        self.checkpoint.dropped_slots.extend(slots);
        for (chunk, block, old) in replaced {
            self.free_unless_kept(id, chunk, block, old);
        }
    }

    /// Frees a block that is mapped no more, unless a retained entry still names it.
    pub(crate) fn free_unless_kept(
        &mut self,
        id: CopysetId,
        chunk: ChunkId,
        block: u16,
        old: Mapping,
    ) {
        let Some(place) = old.block() else { return };
        let entry = self.replicas.get(&id).and_then(|r| r.entry(old.index));
        let kept = entry.is_some_and(|e| {
            matches!(&e.op, Op::Write { chunk: c, .. } if *c == chunk)
                && e.blocks().any(|(b, p)| b == block && p == place)
        });
        if !kept {
            self.space.give(place);
        }
    }

    /// Lets go of entries up to `upto` that are applied: no follower needs them any more.
    pub fn release(&mut self, id: CopysetId, upto: Index) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let upto = upto.min(replica.applied.index);
        while replica.first() <= upto {
            let pos = replica.pos(replica.first());
            let Some(entry) = replica.entries.pop_front() else { break };
            replica.prev = pos;
            if let Op::Write { chunk, .. } = &entry.op {
                for (block, place) in entry.blocks() {
                    if replica.map.get(*chunk, block).block() != Some(place) {
                        self.space.give(place);
                    }
                }
            }
            self.kept_blocks -= entry.extents.iter().map(|e| u64::from(e.blocks)).sum::<u64>();
            self.payload_bytes -= entry.payload.map_or(0, |p| p.len());
        }
    }

    /// Takes in an ended disk operation.
    pub fn complete(&mut self, done: DiskDone) {
        let kind = self.ops.remove(&done.id).expect("each operation ends once");
        let result = match (kind, done.result) {
            (Kind::Read { read, part }, result) => return self.read_part_done(read, part, result),
            (kind, Ok(_)) => kind,
            (_, Err(error)) => return self.fail(error),
        };
        match result {
            Kind::Data { seq } => self.log.data_written(seq),
            Kind::Log => {
                self.log.log_written();
                if self.log_reserve.is_none() {
                    self.log_reserve = self.pool.alloc(BATCH_BYTES_MAX);
                }
            }
            Kind::Flush => {
                let notify = self.log.flushed();
                self.on_persisted(notify);
            }
            Kind::Checkpoint => self.checkpoint_step_done(),
            Kind::Read { .. } => unreachable!("handled above"),
        }
        if !self.options.volatile_cache {
            let notify = self.log.persist_written();
            self.on_persisted(notify);
        }
    }

    pub(crate) fn fail(&mut self, error: DiskError) {
        if self.failed.is_none() {
            self.failed = Some(error);
            self.events.push_back(StoreEvent::Failed { error });
        }
    }

    fn on_persisted(&mut self, notify: Vec<Notify>) {
        for what in notify {
            match what {
                Notify::Entry { copyset, index, term } => {
                    self.entry_persisted(copyset, index, term)
                }
                Notify::Hard { copyset, hard } => {
                    self.events.push_back(StoreEvent::HardState { copyset, hard });
                }
                Notify::Delta { token, copyset, dropped, pieces } => {
                    self.delta_persisted(copyset, &dropped, pieces);
                    self.events.push_back(StoreEvent::DeltaPersisted { token, copyset });
                }
                Notify::Reset { token, copyset } => {
                    self.events.push_back(StoreEvent::DeltaPersisted { token, copyset });
                }
                Notify::Free(blocks) => blocks.into_iter().for_each(|b| self.space.give(b)),
            }
        }
    }

    fn entry_persisted(&mut self, copyset: CopysetId, index: Index, term: Term) {
        let Some(replica) = self.replicas.get_mut(&copyset) else { return };
        // An entry that was truncated meanwhile says nothing about the one in its place.
        if index <= replica.persisted || replica.term_at(index) != Some(term) {
            return;
        }
        replica.persisted = index;
        match self.events.back_mut() {
            Some(StoreEvent::Persisted { copyset: c, index: i }) if *c == copyset => *i = index,
            _ => self.events.push_back(StoreEvent::Persisted { copyset, index }),
        }
    }

    /// Hands out the operations to start.
    pub fn poll_ops(&mut self, out: &mut Vec<DiskOp>) {
        if self.failed.is_none() {
            self.write_log();
            if self.options.volatile_cache && self.log.start_flush() {
                let id = self.op(Kind::Flush);
                self.written.flushes += 1;
                self.out.push(DiskOp::Flush { id });
            }
            self.advance_checkpoint();
        }
        self.retry_reads();
        out.append(&mut self.out);
    }

    /// Takes what others wait for.
    pub fn poll_events(&mut self, out: &mut Vec<StoreEvent>) {
        out.extend(self.events.drain(..));
    }

    fn write_log(&mut self) {
        if !self.log.has_pending() {
            return;
        }
        let mut hints = Vec::new();
        for &id in &self.hints {
            let applied = self.replicas.get(&id).map(|r| r.applied.index).unwrap_or_default();
            Record::Applied { copyset: id, index: applied }.encode(&mut hints);
        }
        let Some(plan) = self.log.plan(hints.len()) else { return };
        // Without memory the batch waits; the log write that holds what was put aside gives it back when it ends.
        let Some(mut memory) = self.log_memory(plan.len) else { return };
        self.log.seal(plan, &hints, self.hints.len() as u32, &mut memory);
        self.hints.clear();
        let addr = self.layout.log_start + plan.at % self.layout.log_bytes;
        let id = self.op(Kind::Log);
        self.written.log_bytes += plan.len as u64;
        self.written.log_writes += 1;
        self.out.push(DiskOp::Write { id, addr, bufs: vec![memory.freeze()] });
    }

    /// Memory for a batch: from the pool, or what was put aside for when it has none.
    fn log_memory(&mut self, len: usize) -> Option<BufMut> {
        if let Some(memory) = self.pool.alloc(len) {
            return Some(memory);
        }
        let mut memory = self.log_reserve.take_if(|reserve| reserve.len() >= len)?;
        memory.truncate(len);
        Some(memory)
    }

    /// Nothing waits and nothing is in flight.
    pub fn idle(&self) -> bool {
        self.log.is_idle()
            && self.ops.is_empty()
            && self.out.is_empty()
            && self.checkpoint.is_idle()
    }

    /// Counters and sizes.
    pub fn stats(&self) -> StoreStats {
        let block = BLOCK_BYTES as u64;
        StoreStats {
            blocks: u64::from(self.space.len()),
            blocks_free: u64::from(self.space.free_blocks()),
            blocks_mapped: self.replicas.values().map(|r| r.map.mapped()).sum(),
            map_pages: self.pages as u64,
            map_pages_max: u64::from(self.slots.len()) / 2,
            log_bytes_used: self.log.used(),
            log_bytes: self.layout.log_bytes,
            checkpoints: self.checkpoint.completed,
            entries_kept: self.replicas.values().map(|r| r.entries.len() as u64).sum(),
            block_bytes: block,
            written: self.written,
        }
    }
}
