//! What happens to replicas and their entries: made, appended, truncated, applied, let go.

use ogive_buf::Buf;
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Index, ShardAddr, Term};

use crate::codec::Writer;
use crate::io::DiskOp;
use crate::limits::UNAPPLIED_SHARE;
use crate::map::Mapping;
use crate::record::{Extent, Record, encode_entry};
use crate::replica::{Gone, HardState, LogEntry, Replaced, Replica};
use crate::space::Short;
use crate::store::{AppendError, Kind, Store};
use crate::writer::{Notify, Seq};

impl Store {
    /// Makes a replica. It is on stable storage before anything that is appended to it.
    pub fn create_replica(&mut self, id: CopysetId, members: &[ShardAddr]) {
        assert!(!self.replicas.contains_key(&id), "{id} is here already");
        let members = members.to_vec();
        let born = self.log_record(&Record::Create { copyset: id, members: members.clone() });
        self.replicas.insert(id, Replica::new(members, born, &self.map_use));
    }

    /// Removes a replica with all of its data.
    pub fn drop_replica(&mut self, id: CopysetId) {
        self.log_hints();
        self.checkpoint_forgets(id);
        let Some(mut replica) = self.replicas.remove(&id) else { return };
        let mut freed = std::mem::take(&mut replica.truncated);
        self.pages -= replica.map.pages();
        for (index, entry) in (replica.first().0..).zip(std::mem::take(&mut replica.entries)) {
            let applied = Index(index) <= replica.applied.index;
            freed.extend(entry.unmapped(applied));
            self.entry_gone(entry, !applied);
        }
        let chunks: Vec<ChunkId> = replica.map.chunks_after(None).collect();
        let mut gone = Gone::default();
        chunks.into_iter().for_each(|chunk| gone.chunk(chunk, replica.map.remove(chunk)));
        self.log_record(&Record::Drop { copyset: id });
        freed.into_iter().for_each(|place| self.space.give(place));
        self.free_gone(id, &mut gone);
    }

    /// Saves a hard state; [`crate::StoreEvent::HardState`] follows when it is on stable storage.
    pub fn save_hard_state(&mut self, id: CopysetId, hard: HardState) {
        self.about_to_change(id);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.hard = hard;
        let born = replica.born;
        let seq = self.log_record(&Record::Hard { copyset: id, hard });
        self.log.notify(seq, Notify::Hard { copyset: id, born, hard });
    }

    /// Appends an entry at `index`, which must follow the last one, with the data of a write. Its
    /// disk writes start at once; [`crate::StoreEvent::Persisted`] follows.
    ///
    /// # Errors
    /// Nothing is changed by an entry that is refused.
    pub fn append(
        &mut self,
        id: CopysetId,
        index: Index,
        term: Term,
        op: Op,
        payload: Option<Buf>,
    ) -> Result<(), AppendError> {
        self.accepts(&op)?;
        self.about_to_change(id);
        let replica = self.replicas.get(&id).expect("entries are appended to replicas that exist");
        assert_eq!(index, replica.last().index.next(), "entries are appended in order");
        assert!(term >= replica.last().term, "terms never fall");
        let pages_reserved = pages_needed(replica, &op);
        if !self.pages_fit(pages_reserved) {
            return Err(AppendError::NoSpace);
        }
        let (extents, data_writes) = match (&op, &payload) {
            (Op::Write { range, .. }, Some(data)) => {
                assert_eq!(data.len(), range.bytes(), "as much data as blocks");
                let extents = self.space.take(range.blocks());
                let extents =
                    extents.map_err(|short| self.short(short, u32::from(range.blocks())))?;
                let writes = self.write_data(&extents, data);
                (extents, writes)
            }
            (Op::Write { .. }, None) => panic!("a write comes with its data"),
            _ => (Vec::new(), 0),
        };
        self.record.clear();
        encode_entry(&mut Writer(&mut self.record), id, index, term, &op, &extents);
        let seq = self.log.add(&self.record, data_writes);
        self.log.notify(seq, Notify::Entry { copyset: id, index });
        let record_bytes = self.record.len();
        self.prefetch(id, &op);
        let orphans = Vec::new();
        let entry =
            LogEntry { term, op, payload, extents, orphans, pages_reserved, seq, record_bytes };
        self.pages_reserved += pages_reserved;
        self.unapplied_bytes += record_bytes;
        self.keep(id, index, &entry);
        let replica = self.replicas.get_mut(&id).expect("looked up above");
        replica.entries.push_back(entry);
        // The record of this entry is what tells a recovery that those truncated are gone.
        for place in std::mem::take(&mut replica.truncated) {
            self.space.give(place);
        }
        self.shed_kept();
        Ok(())
    }

    fn accepts(&self, op: &Op) -> Result<(), AppendError> {
        if self.failed.is_some() {
            return Err(AppendError::Failed);
        }
        // A new leader's no-op is always taken: it is what gets the entries before it applied.
        let behind = self.unapplied_bytes as u64 > self.layout.log_bytes / UNAPPLIED_SHARE;
        if self.log.is_full() || ((behind || self.maps_behind()) && *op != Op::Noop) {
            return Err(AppendError::Busy);
        }
        Ok(())
    }

    /// Blocks ran short: lets go of what is kept for followers, if that helps.
    pub(crate) fn short(&mut self, short: Short, blocks: u32) -> AppendError {
        if short == Short::Full && !self.shed_blocks(blocks) {
            return AppendError::NoSpace;
        }
        AppendError::Busy
    }

    pub(crate) fn pages_fit(&self, more: usize) -> bool {
        // Half of the slots: a checkpoint writes every page anew before it frees the old slots.
        more == 0 || self.pages + self.pages_reserved + more <= self.slots.len() as usize / 2
    }

    /// Starts the writes of data into extents, for the next record; how many.
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

    pub(crate) fn log_record(&mut self, record: &Record) -> Seq {
        self.record.clear();
        record.encode(&mut self.record);
        self.log.add(&self.record, 0)
    }

    /// Writes down how far copysets are applied. A replay then applies them at the same place
    /// between other records.
    pub(crate) fn log_hints(&mut self) {
        for id in std::mem::take(&mut self.hints) {
            let Some(replica) = self.replicas.get(&id) else { continue };
            let index = replica.applied.index;
            self.log_record(&Record::Applied { copyset: id, index });
        }
    }

    /// Drops the entries from `index` on, before others take their place. They must not be applied.
    pub fn truncate_from(&mut self, id: CopysetId, index: Index) {
        self.about_to_change(id);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        assert!(index > replica.applied.index, "{id}: applied entries are never truncated");
        let count = (replica.last().index.0 + 1).saturating_sub(index.0) as usize;
        let gone = replica.entries.split_off(replica.entries.len() - count);
        // Their blocks stay as they are until the record of a replacement is there: before that a
        // restart brings the entries back.
        replica.truncated.extend(gone.iter().flat_map(|e| e.extents.iter().flat_map(|e| e.iter())));
        replica.persisted = replica.persisted.min(index.prev());
        gone.into_iter().for_each(|entry| self.entry_gone(entry, true));
    }

    /// Makes the entries up to `upto` show. They must be persisted, and committed by their copyset.
    pub fn apply(&mut self, id: CopysetId, upto: Index) {
        self.about_to_change(id);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        assert!(upto <= replica.persisted, "{id}: only persisted entries are applied");
        if upto <= replica.applied.index {
            return;
        }
        let pages_before = replica.map.pages();
        let mut gone = std::mem::take(&mut self.gone);
        while replica.applied.index < upto {
            let next = replica.applied.index.next();
            replica.apply(next, &mut gone);
            let entry = replica.entry_mut(next).expect("just applied");
            self.pages_reserved -= std::mem::take(&mut entry.pages_reserved);
            self.unapplied_bytes -= entry.record_bytes;
        }
        self.pages = self.pages + replica.map.pages() - pages_before;
        let fewer = replica.map.pages() < pages_before;
        if fewer || !gone.slots.is_empty() || !gone.out.is_empty() {
            self.reserve_again(id);
        }
        self.free_gone(id, &mut gone);
        self.gone = gone;
        self.hints.insert(id);
        self.fetch_wanted(id);
    }

    /// Promises pages anew to entries that are not applied, after pages that they counted on went.
    pub(crate) fn reserve_again(&mut self, id: CopysetId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let first = (replica.applied.index.next().0 - replica.first().0) as usize;
        for at in first..replica.entries.len() {
            let needed = pages_needed(replica, &replica.entries[at].op);
            let had = std::mem::replace(&mut replica.entries[at].pages_reserved, needed);
            self.pages_reserved = self.pages_reserved + needed - had;
        }
    }

    /// Frees what a change of a map left over.
    pub(crate) fn free_gone(&mut self, id: CopysetId, gone: &mut Gone) {
        self.checkpoint.dropped_slots.append(&mut gone.slots);
        gone.unused.drain(..).for_each(|place| self.space.give(place));
        gone.out.drain(..).for_each(|page| self.bury(id, page));
        self.free_replaced(id, &mut gone.replaced);
    }

    /// Frees blocks that are mapped no more; one that a retained entry still names goes with it.
    pub(crate) fn free_replaced(&mut self, id: CopysetId, replaced: &mut Replaced) {
        let mut replica = self.replicas.get_mut(&id);
        for (chunk, block, old) in replaced.drain(..) {
            let Some(place) = old.block() else { continue };
            let entry = replica.as_mut().and_then(|r| entry_that_wrote(r, chunk, block, old));
            match entry {
                Some(entry) => entry.orphans.push(place),
                None => self.space.give(place),
            }
        }
    }

    /// Lets go of entries up to `upto` that are applied: no follower needs them any more.
    pub fn release(&mut self, id: CopysetId, upto: Index) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let upto = upto.min(replica.applied.index);
        let count = (upto.0 + 1).saturating_sub(replica.first().0) as usize;
        for _ in 0..count {
            let replica = self.replicas.get_mut(&id).expect("looked up above");
            let pos = replica.pos(replica.first());
            let Some(entry) = replica.entries.pop_front() else { break };
            replica.prev = pos;
            entry.orphans.iter().for_each(|&place| self.space.give(place));
            self.entry_gone(entry, false);
        }
    }

    /// Takes an entry that left its replica out of the counters.
    pub(crate) fn entry_gone(&mut self, entry: LogEntry, unapplied: bool) {
        self.pages_reserved -= entry.pages_reserved;
        self.retained.blocks -= entry.block_count();
        self.retained.payload_bytes -= entry.payload.map_or(0, |p| p.len());
        if unapplied {
            self.unapplied_bytes -= entry.record_bytes;
        }
    }
}

/// Map pages that an operation may add.
pub(crate) fn pages_needed(replica: &Replica, op: &Op) -> usize {
    match op {
        Op::Write { chunk, range, .. } => replica.map.pages_missing(*chunk, *range).count(),
        _ => 0,
    }
}

/// The blocks that an operation changes one by one.
pub(crate) fn touched(op: &Op) -> Option<(ChunkId, BlockRange)> {
    match op {
        Op::Write { chunk, range, .. } | Op::Trim { chunk, range } => Some((*chunk, *range)),
        _ => None,
    }
}

/// The entry that made a mapping, if it is retained, and made it with the block that it names.
fn entry_that_wrote(
    replica: &mut Replica,
    chunk: ChunkId,
    block: u16,
    old: Mapping,
) -> Option<&mut LogEntry> {
    let entry = replica.entry_mut(old.index)?;
    let wrote = matches!(&entry.op, Op::Write { chunk: c, .. } if *c == chunk)
        && entry.blocks().any(|(b, place)| b == block && Some(place) == old.block());
    wrote.then_some(entry)
}
