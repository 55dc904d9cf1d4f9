//! The store: one shard's region of a device.
//!
//! Like the layers above it is told what happened and says what to do: `complete` takes an ended
//! disk operation, `poll_ops` hands out new ones, `poll_events` what others wait for. It never
//! blocks and knows no clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ogive_buf::{Buf, BufMut, Pool};
use ogive_types::message::Mapped;
use ogive_types::{BLOCK_BYTES, CopysetId, Epoch, Index, LogPos, Term, VolumeId};

use crate::alloc::Allocator;
use crate::checkpoint::Checkpoint;
use crate::codec::Writer;
use crate::io::{DiskDone, DiskError, DiskOp, OpId};
use crate::limits::BATCH_BYTES_MAX;
use crate::map::{MapUse, PageKey};
use crate::paging::Paging;
use crate::reads::{Damage, ReadError, Reads};
use crate::record::encode_entry;
use crate::region::RegionLayout;
use crate::replica::{Gone, HardState, LogEntry, Replica, ReplicaState};
use crate::retain::Retained;
use crate::slab::Slab;
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
    /// Bytes of memory that maps should take; beyond it their pages are read from the device when
    /// they are needed.
    pub map_bytes_max: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            volatile_cache: true,
            retain_entries: 16_384,
            retain_bytes: 32 << 20,
            retain_share: 16,
            // What 80 GiB of data take that were written at random, or 250 GiB in large pieces.
            map_bytes_max: 1 << 30,
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
    /// It was found which blocks hold data.
    Mapped {
        /// As given to the question.
        token: u64,
        /// Runs of blocks that do or do not, without gaps.
        result: Result<Vec<Mapped>, ReadError>,
    },
    /// A page of a map is in memory that was missing when a repair was refused, a scan ended early,
    /// or a peer's question could not be answered.
    MapRead {
        /// The copyset.
        copyset: CopysetId,
    },
    /// A delta page or a log reset is on stable storage, and shows.
    DeltaPersisted {
        /// As given to it.
        token: u64,
        /// The copyset.
        copyset: CopysetId,
    },
    /// Stored blocks do not match their checksums, or cannot be read; a peer must repair them.
    Damaged(Box<Damage>),
    /// A step of a scrub has ended.
    Checked {
        /// As given to it.
        token: u64,
        /// Whether all blocks were as they should be.
        result: Result<(), ReadError>,
    },
    /// Repaired blocks are on stable storage, and show.
    Repaired {
        /// As given to the repair.
        token: u64,
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
    PageWrite { copyset: CopysetId, key: PageKey, slot: u32 },
    PageRead { fetch: u64 },
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
    ops: Slab<Kind>,
    pub(crate) out: Vec<DiskOp>,
    pub(crate) events: VecDeque<StoreEvent>,
    pub(crate) retained: Retained,
    /// Bytes of the records of entries that are not applied.
    pub(crate) unapplied_bytes: usize,
    log_reserve: Option<BufMut>,
    pub(crate) failed: Option<DiskError>,
    pub(crate) written: Written,
    /// Memory used again and again: for a record, and for what entries replaced.
    pub(crate) record: Vec<u8>,
    pub(crate) gone: Gone,
    pub(crate) map_use: Rc<MapUse>,
    pub(crate) paging: Paging,
    /// Pages of maps that someone looked for in vain.
    pub(crate) wishes: RefCell<BTreeSet<(CopysetId, PageKey)>>,
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
    pub(crate) hints: BTreeSet<CopysetId>,
    pub(crate) log_reserve: BufMut,
    pub(crate) map_use: Rc<MapUse>,
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
            hints: parts.hints,
            ops: Slab::default(),
            out: Vec::new(),
            events: VecDeque::new(),
            retained: Retained::default(),
            unapplied_bytes: 0,
            log_reserve: Some(parts.log_reserve),
            failed: None,
            written: Written::default(),
            record: Vec::new(),
            gone: Gone::default(),
            map_use: parts.map_use,
            paging: Paging::default(),
            wishes: RefCell::default(),
        };
        store.count_entries();
        store
    }

    /// Counts the entries that recovery found.
    fn count_entries(&mut self) {
        let ids: Vec<CopysetId> = self.replicas.keys().copied().collect();
        for id in ids {
            let replica = self.replicas.get_mut(&id).expect("just listed");
            for (index, entry) in (replica.prev.index.next().0..).zip(&mut replica.entries) {
                let (index, w) = (Index(index), &mut Writer(&mut self.record));
                encode_entry(w, id, index, entry.term, &entry.op, &entry.extents);
                entry.record_bytes = self.record.len();
                self.record.clear();
                self.unapplied_bytes += entry.record_bytes;
                self.retained.push(id, index, entry);
            }
            self.reserve_again(id);
        }
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

    /// Takes in an ended disk operation.
    pub fn complete(&mut self, done: DiskDone) {
        let kind = self.ops.remove(done.id.0).expect("each operation ends once");
        match (kind, done.result) {
            (Kind::Read { read, part }, result) => return self.read_part_done(read, part, result),
            (Kind::PageRead { fetch }, result) => return self.page_read(fetch, result),
            (_, Err(error)) => return self.fail(error),
            (Kind::Data { seq }, _) => self.log.data_written(seq),
            (Kind::Log, _) => self.log_written(),
            (Kind::Flush, _) => self.log.flushed(),
            (Kind::Checkpoint, _) => return self.checkpoint_step_done(),
            (Kind::PageWrite { copyset, key, slot }, _) => {
                self.page_written(copyset, key, slot);
                return self.checkpoint_step_done();
            }
        }
        if !self.options.volatile_cache {
            self.log.persist_written();
        }
        self.tell_persisted();
    }

    fn log_written(&mut self) {
        self.log.log_written();
        if self.log_reserve.is_none() {
            self.log_reserve = self.pool.alloc(BATCH_BYTES_MAX);
        }
    }

    pub(crate) fn fail(&mut self, error: DiskError) {
        if self.failed.is_none() {
            self.failed = Some(error);
            self.events.push_back(StoreEvent::Failed { error });
            self.fail_parked(error);
        }
    }

    /// Reports what is persisted by now.
    fn tell_persisted(&mut self) {
        self.space.persisted(self.log.persisted_seq());
        while let Some((seq, what)) = self.log.next_notify() {
            match what {
                Notify::Entry { copyset, index } => self.entry_persisted(copyset, index, seq),
                Notify::Hard { copyset, born, hard } if self.is_here(copyset, born) => {
                    self.events.push_back(StoreEvent::HardState { copyset, hard });
                }
                Notify::Delta { token, copyset, born, pieces, pages_reserved } => {
                    self.pages_reserved -= pages_reserved;
                    if self.delta_persisted(copyset, born, pieces) {
                        self.events.push_back(StoreEvent::DeltaPersisted { token, copyset });
                    }
                }
                Notify::Reset { token, copyset, born } if self.is_here(copyset, born) => {
                    self.events.push_back(StoreEvent::DeltaPersisted { token, copyset });
                }
                Notify::Repair { token, copyset, born, pieces } => {
                    self.repair_persisted(copyset, born, pieces);
                    self.events.push_back(StoreEvent::Repaired { token });
                }
                Notify::Hard { .. } | Notify::Reset { .. } => {}
            }
        }
    }

    /// Whether a replica was not dropped meanwhile, and perhaps made again.
    pub(crate) fn is_here(&self, id: CopysetId, born: Seq) -> bool {
        self.replicas.get(&id).is_some_and(|replica| replica.born == born)
    }

    fn entry_persisted(&mut self, copyset: CopysetId, index: Index, seq: Seq) {
        let Some(replica) = self.replicas.get_mut(&copyset) else { return };
        // An entry that was truncated meanwhile says nothing about the one in its place.
        if replica.entry(index).is_none_or(|entry| entry.seq != seq) {
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
            self.advance_paging();
        }
        self.retry_reads();
        out.append(&mut self.out);
    }

    /// Takes what others wait for.
    pub fn poll_events(&mut self, out: &mut Vec<StoreEvent>) {
        if self.failed.is_none() {
            self.take_wishes();
        }
        out.extend(self.events.drain(..));
    }

    /// Starts the write of a batch, if something waits and there is room.
    fn write_log(&mut self) {
        if self.log.is_writing() {
            return;
        }
        if self.log.pending() == 0 {
            if !self.space.wants_batch() {
                return;
            }
            // Nothing to write down but that blocks are free: any position does.
            self.hints.extend(self.replicas.keys().next());
        }
        self.log_hints();
        let Some(plan) = self.log.plan() else { return };
        // Without memory the batch waits; the log write that holds what was put aside gives it back
        // when it ends.
        let Some(mut memory) = self.log_memory(plan.len) else { return };
        self.space.sealing(self.log.last_seq());
        self.log.seal(plan, &mut memory);
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

    /// Names an operation that is about to start.
    pub(crate) fn op(&mut self, kind: Kind) -> OpId {
        OpId(self.ops.insert(kind))
    }

    /// Whether operations are in flight.
    pub fn is_busy(&self) -> bool {
        !self.ops.is_empty()
    }

    /// Nothing waits and nothing is in flight.
    pub fn idle(&self) -> bool {
        self.log.is_idle()
            && self.ops.is_empty()
            && self.out.is_empty()
            && self.checkpoint.is_idle()
            && self.paging.is_idle()
    }

    /// Counters and sizes.
    pub fn stats(&self) -> StoreStats {
        let block = BLOCK_BYTES as u64;
        StoreStats {
            blocks: u64::from(self.space.len()),
            blocks_free: u64::from(self.space.free_blocks()),
            blocks_mapped: self.replicas.values().map(|r| r.map.mapped()).sum(),
            blocks_retired: u64::from(self.space.retired()),
            map_pages: self.pages as u64,
            map_bytes: self.map_use.bytes.get() as u64,
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
