//! Opening a region: the newest checkpoint, then the log behind it, then everything derived from
//! them.
//!
//! What may be found behind the last good batch of the log:
//!
//! | the chain of batches ends | newest persisted mark found in the ring | verdict |
//! |---|---|---|
//! | at or after the mark | | a torn tail, never acknowledged: dropped |
//! | before the mark | names a later position | rot: [`OpenError::LogRot`] |
//! | at a batch whose data is not what its record says, after the mark | | torn with its data: dropped from there on |
//! | (the same, before the mark) | | rot of data: kept, and found by reads |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use ogive_buf::{BufMut, Pool};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockSum, CopysetId, Index, block_sum};

use crate::alloc::Allocator;
use crate::checkpoint::Checkpoint;
use crate::codec::Reader;
use crate::delta::{reset, take_in};
use crate::directory::{self, PagePlace};
use crate::io::RegionIo;
use crate::label::Label;
use crate::limits::{BATCH_BYTES_MAX, DIRECTORY_WRITE_BYTES, SLOTS_READ_AT_ONCE, SLOTS_READ_OVER};
use crate::logscan::LogScan;
use crate::map::{MapUse, PAGE_BYTES, Page};
use crate::record::{Extent, Record};
use crate::region::RegionLayout;
use crate::repair::{Relocated, relocate};
use crate::replica::{Gone, LogEntry, Replica};
use crate::space::Space;
use crate::store::{Parts, Store, StoreOptions};
use crate::superblock::{SUPERBLOCK_BYTES, Slot, Superblock, VERSION};
use crate::writer::{Ends, LogWriter};

/// Why a region cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device has no such shard.
    #[error("the device has no shard {0}")]
    NoShard(u16),
    /// The device cannot be read or written.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// It was written by another version.
    #[error(
        "the device has format version {found}, this program knows {VERSION}; \
         use the matching ogive"
    )]
    Version {
        /// The device's.
        found: u32,
    },
    /// Both superblocks are unreadable.
    #[error(
        "both superblocks are damaged; \
         format the device and let its replicas be rebuilt from their peers"
    )]
    Superblocks,
    /// The directory or a map page is not what was written.
    #[error("{0} is damaged; format the device and let its replicas be rebuilt from their peers")]
    Damaged(String),
    /// The log is damaged where it was on stable storage.
    #[error(
        "the log is damaged at position {at}, though all up to {mark} was on stable storage; \
         format the device and let its replicas be rebuilt from their peers"
    )]
    LogRot {
        /// Where the good part ends.
        at: u64,
        /// Up to where it should go.
        mark: u64,
    },
    /// The structures contradict each other.
    #[error(
        "the device contradicts itself ({0}); \
         format it and let its replicas be rebuilt from their peers"
    )]
    Inconsistent(String),
    /// Too little memory for the store's own buffers.
    #[error("the buffer pool is too small for a store; give it at least 8 MiB")]
    Memory,
}

pub(crate) fn on_io(what: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io { what, error }
}

impl Store {
    /// Opens the region of a shard, recovering it if needed. Blocks until it is done.
    pub fn open(
        io: &mut dyn RegionIo,
        label: &Label,
        shard: u16,
        pool: Pool,
        options: StoreOptions,
    ) -> Result<Store, OpenError> {
        let recovery = Recovery::new(io, label, shard)?;
        let reserve = |bytes| pool.alloc(bytes).ok_or(OpenError::Memory);
        let reserves = (reserve(BATCH_BYTES_MAX)?, reserve(DIRECTORY_WRITE_BYTES)?);
        recovery.run(pool, options, reserves)
    }
}

type Replicas = BTreeMap<CopysetId, Replica>;

pub(crate) struct Recovery<'a> {
    io: &'a mut dyn RegionIo,
    pub(crate) layout: RegionLayout,
    pub(crate) region: u64,
    pub(crate) sector: u32,
    usage: Rc<MapUse>,
}

/// Where the good part of the log ends.
pub(crate) struct LogEnd {
    pub(crate) at: u64,
    pub(crate) crc: u32,
}

impl<'a> Recovery<'a> {
    /// A recovery of the region of a shard, of which nothing has been read yet.
    pub(crate) fn new(
        io: &'a mut dyn RegionIo,
        label: &Label,
        shard: u16,
    ) -> Result<Recovery<'a>, OpenError> {
        let region = label.regions().get(usize::from(shard)).ok_or(OpenError::NoShard(shard))?;
        let layout = region.layout().ok_or(OpenError::NoShard(shard))?;
        let region = Recovery::region_id(label, shard);
        Ok(Recovery { io, layout, region, sector: label.sector, usage: Rc::default() })
    }

    /// What every structure of a region carries.
    pub(crate) fn region_id(label: &Label, shard: u16) -> u64 {
        let (high, low) = label.uuid.as_u64_pair();
        high ^ low.rotate_left(32) ^ u64::from(shard)
    }

    fn run(
        mut self,
        pool: Pool,
        options: StoreOptions,
        (log_reserve, checkpoint_reserve): (BufMut, BufMut),
    ) -> Result<Store, OpenError> {
        let found = self.superblock()?;
        let (mut replicas, mut at_end, pages) = self.directory(&found)?;
        let end = self.replay(&found, &mut replicas, &mut at_end)?;
        let hints = apply_at_end(&mut replicas, at_end)?;
        for replica in replicas.values_mut() {
            replica.map.take_wanted(); // all pages are about to be read
            drop_applied(replica);
            replica.persisted = replica.last().index;
        }
        let mut space = Space::new(self.layout.data_blocks);
        let mut slots = Allocator::new(self.layout.slots);
        for &PagePlace { slot, .. } in &pages {
            if !slots.is_free(slot) {
                return Err(OpenError::Inconsistent(format!("slot {slot} is listed twice")));
            }
            slots.take(slot);
        }
        self.read_pages(&mut replicas, &pages, &mut space, options.map_bytes_max)?;
        claim_others(&replicas, &mut space)?;
        // Pages of chunks that the log dropped after the checkpoint: their slots are free once a
        // directory omits them.
        let gone = pages.iter().filter(|place| !is_alive(&replicas, place));
        let dropped_slots = gone.map(|place| place.slot).collect();
        // What was read may still be in a volatile cache only. From here on it counts as persisted.
        self.io.flush().map_err(on_io("flush the device"))?;
        let superblock = Superblock {
            version: VERSION,
            generation: found.generation + 1,
            mount: found.mount + 1,
            persisted: end.at,
            ..found
        };
        self.write_superblock(&superblock)?;
        let mount = superblock.mount;
        let log_bytes = self.layout.log_bytes;
        let ends = Ends { tail: found.tail, head: end.at, crc: end.crc };
        let writer = LogWriter::new(self.region, mount, self.sector, log_bytes, ends);
        let mut checkpoint = Checkpoint::new(superblock, checkpoint_reserve);
        checkpoint.dropped_slots = dropped_slots;
        let (layout, region) = (self.layout, self.region);
        let log = writer;
        let parts = Parts {
            layout,
            region,
            options,
            pool,
            replicas,
            space,
            slots,
            log,
            checkpoint,
            hints,
            log_reserve,
            map_use: self.usage,
        };
        Ok(Store::assemble(parts))
    }

    pub(crate) fn superblock(&mut self) -> Result<Superblock, OpenError> {
        let mut slots = Vec::new();
        for addr in self.layout.superblock {
            let mut bytes = vec![0; SUPERBLOCK_BYTES];
            self.io.read_at(addr, &mut bytes).map_err(on_io("read the superblock"))?;
            slots.push(Superblock::decode(&bytes));
        }
        let valid = slots.iter().filter_map(|slot| match slot {
            Slot::Valid(s) if s.region == self.region => Some(*s),
            _ => None,
        });
        if let Some(newest) = valid.max_by_key(|s| s.generation) {
            return Ok(newest);
        }
        match slots[..] {
            [Slot::OtherVersion(found), _] | [_, Slot::OtherVersion(found)] => {
                Err(OpenError::Version { found })
            }
            // The second slot is only written after the first, so that a first write that was torn
            // leaves this.
            [_, Slot::Unused] | [Slot::Unused, _] if !self.log_was_written()? => Ok(Superblock {
                version: VERSION,
                region: self.region,
                generation: 0,
                mount: 0,
                tail: 0,
                persisted: 0,
                tail_crc: 0,
                skip: 0,
                directory: None,
            }),
            _ => Err(OpenError::Superblocks),
        }
    }

    /// Whether the ring holds any batch of this region: then it has been in use, whatever its
    /// superblocks look like.
    fn log_was_written(&mut self) -> Result<bool, OpenError> {
        self.log_scan().any().map_err(on_io("read the log"))
    }

    /// The log ring, of which nothing has been read yet.
    pub(crate) fn log_scan(&self) -> LogScan<'_> {
        LogScan::new(&*self.io, &self.layout, self.region, self.sector)
    }

    fn write_superblock(&mut self, superblock: &Superblock) -> Result<(), OpenError> {
        let addr = self.layout.superblock[superblock.slot()];
        let written = self.io.write_at(addr, &superblock.encode());
        written.and_then(|()| self.io.flush()).map_err(on_io("write the superblock"))
    }

    /// The replicas of the checkpoint, how far each must be applied at least, and where the pages
    /// lie.
    #[allow(clippy::type_complexity)] // three results that belong together, used once
    fn directory(
        &mut self,
        superblock: &Superblock,
    ) -> Result<(Replicas, BTreeMap<CopysetId, Index>, Vec<PagePlace>), OpenError> {
        let Some(bytes) = self.directory_bytes(superblock)? else { return Ok(Default::default()) };
        let decoded = directory::decode(&bytes, self.region);
        let (states, pages) = decoded.map_err(|_| damaged_directory())?;
        let mut replicas = BTreeMap::new();
        let mut at_end = BTreeMap::new();
        for state in states {
            at_end.insert(state.copyset, state.applied_at_end);
            let mut replica = Replica::new(state.members, 0, &self.usage);
            replica.hard = state.hard;
            replica.prev = state.applied;
            replica.applied = state.applied;
            replica.fences = state.fences.into_iter().collect();
            replicas.insert(state.copyset, replica);
            for entry in state.entries {
                replay_record(&mut replicas, entry, &self.usage)?;
            }
        }
        pages.iter().try_for_each(|page| self.list_page(&mut replicas, page))?;
        Ok((replicas, at_end, pages))
    }

    /// The directory that a superblock names, as far as its checksum is right.
    pub(crate) fn directory_bytes(
        &mut self,
        superblock: &Superblock,
    ) -> Result<Option<Vec<u8>>, OpenError> {
        let Some(place) = superblock.directory else { return Ok(None) };
        if place.bytes > self.layout.directory_bytes {
            return Err(damaged_directory());
        }
        let mut bytes = vec![0; place.bytes as usize];
        let addr = self.layout.directory[usize::from(place.area)];
        self.io.read_at(addr, &mut bytes).map_err(on_io("read the directory"))?;
        if crc32c::crc32c(&bytes) != place.crc {
            return Err(damaged_directory());
        }
        Ok(Some(bytes))
    }

    /// Notes a page of the directory; it is read later.
    fn list_page(&self, replicas: &mut Replicas, place: &PagePlace) -> Result<(), OpenError> {
        let &PagePlace { copyset: id, key, slot, .. } = place;
        if slot >= self.layout.slots {
            return Err(OpenError::Inconsistent(format!("slot {slot} does not exist")));
        }
        let replica = replicas.get_mut(&id);
        if !replica.is_some_and(|replica| replica.map.insert_out(key, slot)) {
            let what = format!("a page of {} in {id} is listed twice", key.0);
            return Err(OpenError::Inconsistent(what));
        }
        Ok(())
    }

    /// Reads the map pages that are still there, joins them with what the log had for them, and
    /// claims their blocks. Those that are beyond the budget leave memory again.
    fn read_pages(
        &mut self,
        replicas: &mut Replicas,
        pages: &[PagePlace],
        space: &mut Space,
        map_bytes_max: usize,
    ) -> Result<(), OpenError> {
        let alive = pages.iter().filter(|place| is_alive(replicas, place));
        let mut by_slot: Vec<PagePlace> = alive.copied().collect();
        by_slot.sort_unstable_by_key(|place| place.slot);
        let near = |a: &PagePlace, b: &PagePlace| b.slot - a.slot <= SLOTS_READ_OVER;
        for mut near in by_slot.chunk_by(near) {
            while let Some(&PagePlace { slot: first, .. }) = near.first() {
                let fits = near.partition_point(|p| p.slot - first < SLOTS_READ_AT_ONCE);
                let (window, rest) = near.split_at(fits);
                for (PagePlace { copyset: id, key, .. }, page) in self.read_slots(window)? {
                    let map = &mut replicas.get_mut(&id).expect("it is alive").map;
                    map.join(key, page);
                    claim_page(map.page(key).expect("just joined"), id, space)?;
                    if self.usage.bytes.get() > map_bytes_max {
                        map.let_out(key);
                    }
                }
                near = rest;
            }
        }
        Ok(())
    }

    /// Reads pages that lie close together.
    fn read_slots(&self, window: &[PagePlace]) -> Result<Vec<(PagePlace, Page)>, OpenError> {
        let (first, last) = (window[0].slot, window[window.len() - 1].slot);
        let mut bytes = vec![0; (last + 1 - first) as usize * PAGE_BYTES];
        let addr = self.layout.slot_addr(first);
        self.io.read_at(addr, &mut bytes).map_err(on_io("read map pages"))?;
        let decode = |place: &PagePlace| {
            let at = (place.slot - first) as usize * PAGE_BYTES;
            let page = place.page(&bytes[at..at + PAGE_BYTES], self.region);
            let (id, (chunk, number)) = (place.copyset, place.key);
            let damaged = || OpenError::Damaged(format!("map page {number} of {chunk} in {id}"));
            Ok((*place, page.ok_or_else(damaged)?))
        };
        window.iter().map(decode).collect()
    }

    /// Replays the log from the checkpoint on; where its good part ends.
    fn replay(
        &mut self,
        superblock: &Superblock,
        replicas: &mut Replicas,
        at_end: &mut BTreeMap<CopysetId, Index>,
    ) -> Result<LogEnd, OpenError> {
        let mut scan = self.log_scan();
        let (last, mark) = scan.ends(superblock).map_err(on_io("read the log"))?;
        let mut end = LogEnd { at: superblock.tail, crc: superblock.tail_crc };
        let mut skip = superblock.skip as usize;
        let mut mount = 0;
        while end.at < last {
            let next = scan.next(end.at, end.crc, mount, superblock.tail);
            let Some((header, records)) = next.map_err(on_io("read the log"))? else { break };
            let records = decode_records(records, header.records)
                .ok_or_else(|| OpenError::Damaged(format!("the log batch at {}", header.at)))?;
            let position = header.end(self.sector);
            if position > mark && !data_is_there(&*self.io, &self.layout, &records)? {
                break;
            }
            let skipped = skip.min(records.len());
            skip -= skipped;
            for record in records.into_iter().skip(skipped) {
                forget_dropped(at_end, &record);
                replay_record(replicas, record, &self.usage)?;
            }
            end = LogEnd { at: position, crc: header.crc };
            mount = header.mount;
        }
        if end.at < mark {
            return Err(OpenError::LogRot { at: end.at, mark });
        }
        if skip > 0 {
            let what = format!("{skip} records of the checkpoint are not in the log");
            return Err(OpenError::Inconsistent(what));
        }
        Ok(end)
    }
}

/// Whether the blocks that records name hold the data that they should.
fn data_is_there(
    io: &dyn RegionIo,
    layout: &RegionLayout,
    records: &[Record],
) -> Result<bool, OpenError> {
    for record in records {
        let stored: Vec<(&[Extent], &[BlockSum])> = match record {
            Record::Entry { op: Op::Write { sums, .. }, extents, .. } => vec![(extents, sums)],
            Record::Delta { pieces, .. } | Record::Repair { pieces, .. } => {
                let stored = pieces.iter().filter_map(|p| p.stored.as_ref());
                stored.map(|(extents, sums)| (&extents[..], &sums[..])).collect()
            }
            _ => continue,
        };
        for (extents, sums) in stored {
            if !extents_match(io, layout, extents, sums)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn extents_match(
    io: &dyn RegionIo,
    layout: &RegionLayout,
    extents: &[Extent],
    sums: &[BlockSum],
) -> Result<bool, OpenError> {
    let mut sums = sums.iter();
    for extent in extents {
        if u64::from(extent.block) + u64::from(extent.blocks) > u64::from(layout.data_blocks) {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::from(extent.blocks) * BLOCK_BYTES];
        io.read_at(layout.block_addr(extent.block), &mut bytes).map_err(on_io("read data"))?;
        let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
        if !blocks.all(|block| sums.next() == Some(&block_sum(block))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a page of the directory still belongs to a chunk, after the log was replayed.
fn is_alive(replicas: &Replicas, place: &PagePlace) -> bool {
    let replica = replicas.get(&place.copyset);
    replica.is_some_and(|replica| replica.map.slot_of(place.key) == Some(place.slot))
}

fn damaged_directory() -> OpenError {
    OpenError::Damaged("the directory of the checkpoint".to_owned())
}

fn twice(place: u32, id: CopysetId) -> OpenError {
    OpenError::Inconsistent(format!("block {place} is named twice, the second time by {id}"))
}

/// Takes the blocks of a page.
fn claim_page(page: &Page, id: CopysetId, space: &mut Space) -> Result<(), OpenError> {
    let mut wrong = None;
    page.each_stored(|place| {
        if !space.claim(place) {
            wrong = Some(place);
        }
    });
    wrong.map_or(Ok(()), |place| Err(twice(place, id)))
}

/// Takes the blocks of pages that were never written, and of entries.
fn claim_others(replicas: &Replicas, space: &mut Space) -> Result<(), OpenError> {
    for (&id, replica) in replicas {
        for (_, page) in replica.map.iter().filter(|(_, page)| page.slot().is_none()) {
            claim_page(page, id, space)?;
        }
        for place in replica.entries.iter().flat_map(|e| e.extents.iter().flat_map(|e| e.iter())) {
            space.claim(place).then_some(()).ok_or_else(|| twice(place, id))?;
        }
    }
    Ok(())
}

pub(crate) fn decode_records(bytes: &[u8], count: u32) -> Option<Vec<Record>> {
    let reader = &mut Reader(bytes);
    let mut records = Vec::new();
    while !reader.is_empty() {
        records.push(Record::decode(reader).ok()?);
    }
    (records.len() == count as usize).then_some(records)
}

fn forget_dropped(at_end: &mut BTreeMap<CopysetId, Index>, record: &Record) {
    if let Record::Drop { copyset } = record {
        at_end.remove(copyset);
    }
}

/// Replays one record, as it happened: each comes after all before it and none comes twice.
fn replay_record(
    replicas: &mut Replicas,
    record: Record,
    usage: &Rc<MapUse>,
) -> Result<(), OpenError> {
    match record {
        Record::Create { copyset, members } => {
            replicas.insert(copyset, Replica::new(members, 0, usage));
        }
        Record::Drop { copyset } => {
            replicas.remove(&copyset);
        }
        Record::Hard { copyset, hard } => {
            if let Some(replica) = replicas.get_mut(&copyset) {
                replica.hard = hard;
            }
        }
        Record::Entry { copyset, index, term, op, extents } => {
            if let Some(replica) = replicas.get_mut(&copyset) {
                let entry = LogEntry {
                    term,
                    op,
                    payload: None,
                    extents,
                    orphans: Vec::new(),
                    pages_reserved: 0,
                    seq: 0,
                    record_bytes: 0,
                };
                return replay_entry(replica, copyset, index, entry);
            }
        }
        Record::Applied { copyset, index } => {
            if let Some(replica) = replicas.get_mut(&copyset) {
                return apply_upto(replica, copyset, index);
            }
        }
        Record::Delta { copyset, dropped, pieces } => {
            if let Some(replica) = replicas.get_mut(&copyset) {
                take_in(replica, &dropped, &pieces, &mut Gone::default());
            }
        }
        Record::Repair { copyset, pieces } => {
            if let Some(replica) = replicas.get_mut(&copyset) {
                relocate(replica, &pieces, &mut Relocated::default());
            }
        }
        Record::Reset { copyset, upto, fences } => {
            let Some(replica) = replicas.get_mut(&copyset) else { return Ok(()) };
            let applied = replica.applied;
            if upto.index <= applied.index {
                let what = format!("{copyset} was reset to {upto} but applied {applied}");
                return Err(OpenError::Inconsistent(what));
            }
            replica.entries.clear();
            reset(replica, upto, &fences, &mut Gone::default());
        }
    }
    Ok(())
}

fn replay_entry(
    replica: &mut Replica,
    id: CopysetId,
    index: Index,
    entry: LogEntry,
) -> Result<(), OpenError> {
    let (applied, last) = (replica.applied, replica.last());
    if index <= applied.index || index > last.index.next() {
        let what = format!("{index} of {id} follows {last}, with {applied} applied");
        return Err(OpenError::Inconsistent(what));
    }
    while replica.last().index >= index {
        replica.entries.pop_back();
    }
    replica.entries.push_back(entry);
    Ok(())
}

/// Applies what the checkpoint knew to be applied, as far as the log did not say so. The log does
/// not know of these copysets yet, which are returned, and must before records that replay in
/// another way with them: a Reset drops the entries that were not applied.
fn apply_at_end(
    replicas: &mut Replicas,
    at_end: BTreeMap<CopysetId, Index>,
) -> Result<BTreeSet<CopysetId>, OpenError> {
    let mut hints = BTreeSet::new();
    for (id, upto) in at_end {
        let Some(replica) = replicas.get_mut(&id) else { continue };
        if replica.applied.index < upto {
            hints.insert(id);
        }
        apply_upto(replica, id, upto)?;
    }
    Ok(hints)
}

fn apply_upto(replica: &mut Replica, id: CopysetId, upto: Index) -> Result<(), OpenError> {
    if upto > replica.last().index {
        let last = replica.last();
        return Err(OpenError::Inconsistent(format!(
            "{id} was applied up to {upto} but ends at {last}"
        )));
    }
    let mut gone = Gone::default();
    while replica.applied.index < upto {
        let next = replica.applied.index.next();
        replica.apply(next, &mut gone);
        gone.replaced.clear();
    }
    Ok(())
}

fn drop_applied(replica: &mut Replica) {
    while replica.first() <= replica.applied.index && !replica.entries.is_empty() {
        replica.prev = replica.pos(replica.first());
        replica.entries.pop_front();
    }
}
