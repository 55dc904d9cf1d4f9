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

use ogive_buf::{BufMut, Pool};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockSum, CopysetId, Index, block_sum};

use crate::alloc::Allocator;
use crate::batch::Header;
use crate::checkpoint::Checkpoint;
use crate::codec::Reader;
use crate::delta::{Taken, reset, take_in};
use crate::directory::{self, PagePlace};
use crate::io::RegionIo;
use crate::label::Label;
use crate::limits::{BATCH_BYTES_MAX, DIRECTORY_WRITE_BYTES};
use crate::map::PAGE_BYTES;
use crate::record::{Extent, Record};
use crate::region::RegionLayout;
use crate::repair::{Relocated, relocate};
use crate::replica::{LogEntry, Replica};
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

fn on_io(what: &'static str) -> impl Fn(io::Error) -> OpenError {
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
        Ok(Recovery { io, layout, region, sector: label.sector })
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
            drop_applied(replica);
            replica.persisted = replica.last().index;
        }
        let space = self.claim_blocks(&replicas)?;
        let mut slots = Allocator::new(self.layout.slots);
        for &PagePlace { slot, .. } in &pages {
            if !slots.is_free(slot) {
                return Err(OpenError::Inconsistent(format!("slot {slot} is listed twice")));
            }
            slots.take(slot);
        }
        // Pages of chunks that the log dropped after the checkpoint: their slots are free once a
        // directory omits them.
        let alive = |place: &PagePlace| {
            let replica = replicas.get(&place.copyset);
            replica.is_some_and(|r| r.map.slot_of(place.key) == Some(place.slot))
        };
        let dropped_slots = pages.iter().filter(|p| !alive(p)).map(|p| p.slot).collect();
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
        let ring = self.ring()?;
        let mut sectors = (0..ring.len()).step_by(self.sector as usize);
        Ok(sectors.any(|at| {
            let ours = Header::peek(&ring[at..]).is_some_and(|h| h.region == self.region);
            ours && Header::decode(&ring[at..]).is_some()
        }))
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
            let mut replica = Replica::new(state.members, 0);
            replica.hard = state.hard;
            replica.prev = state.applied;
            replica.applied = state.applied;
            replica.fences = state.fences.into_iter().collect();
            replicas.insert(state.copyset, replica);
            for entry in state.entries {
                replay_record(&mut replicas, entry)?;
            }
        }
        self.read_pages(&mut replicas, &pages)?;
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

    /// Reads map pages, neighbouring slots together.
    fn read_pages(
        &mut self,
        replicas: &mut Replicas,
        pages: &[PagePlace],
    ) -> Result<(), OpenError> {
        let mut by_slot: Vec<&PagePlace> = pages.iter().collect();
        by_slot.sort_by_key(|place| place.slot);
        let mut bytes = Vec::new();
        for run in by_slot.chunk_by(|a, b| a.slot + 1 == b.slot).flat_map(|run| run.chunks(256)) {
            let (first, last) = (run[0].slot, run[run.len() - 1].slot);
            if last >= self.layout.slots {
                return Err(OpenError::Inconsistent(format!("slot {last} does not exist")));
            }
            bytes.resize(run.len() * PAGE_BYTES, 0);
            let addr = self.layout.slot_addr(first);
            self.io.read_at(addr, &mut bytes).map_err(on_io("read map pages"))?;
            for (place, bytes) in run.iter().zip(bytes.chunks_exact(PAGE_BYTES)) {
                let PagePlace { copyset: id, key, .. } = **place;
                let page = place.page(bytes, self.region);
                let (chunk, number) = key;
                let page = page.ok_or_else(|| {
                    OpenError::Damaged(format!("map page {number} of {chunk} in {id}"))
                })?;
                let replica = replicas.get_mut(&id).filter(|r| !r.map.has_page(key));
                let wrong = || {
                    OpenError::Inconsistent(format!("a page of {chunk} in {id} is listed twice"))
                };
                replica.ok_or_else(wrong)?.map.insert(key, page);
            }
        }
        Ok(())
    }

    /// Replays the log from the checkpoint on; where its good part ends.
    fn replay(
        &mut self,
        superblock: &Superblock,
        replicas: &mut Replicas,
        at_end: &mut BTreeMap<CopysetId, Index>,
    ) -> Result<LogEnd, OpenError> {
        let ring = self.ring()?;
        let mark = self.newest_mark(&ring, superblock);
        let mut end = LogEnd { at: superblock.tail, crc: superblock.tail_crc };
        let mut skip = superblock.skip as usize;
        let mut mount = 0;
        while let Some((header, records)) = self.next_batch(&ring, &end, mount, superblock.tail) {
            let records = decode_records(records, header.records)
                .ok_or_else(|| OpenError::Damaged(format!("the log batch at {}", header.at)))?;
            let position = header.end(self.sector);
            if position > mark && !self.data_is_there(&records)? {
                break;
            }
            let skipped = skip.min(records.len());
            skip -= skipped;
            for record in records.into_iter().skip(skipped) {
                if let Record::Drop { copyset } = record {
                    at_end.remove(&copyset);
                }
                replay_record(replicas, record)?;
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

    /// All bytes of the log ring.
    pub(crate) fn ring(&mut self) -> Result<Vec<u8>, OpenError> {
        let mut ring = vec![0; self.layout.log_bytes as usize];
        self.io.read_at(self.layout.log_start, &mut ring).map_err(on_io("read the log"))?;
        Ok(ring)
    }

    /// The newest persisted mark that any batch in the ring carries.
    pub(crate) fn newest_mark(&self, ring: &[u8], superblock: &Superblock) -> u64 {
        let sectors = (0..ring.len()).step_by(self.sector as usize);
        let marks = sectors.filter_map(|offset| {
            let header = Header::peek(&ring[offset..])?;
            let ours =
                header.region == self.region && header.at % ring.len() as u64 == offset as u64;
            (ours && header.persisted <= header.at).then_some(())?;
            Header::decode(&ring[offset..]).map(|(header, _)| header.persisted)
        });
        marks.max().unwrap_or(0).max(superblock.persisted)
    }

    /// The batch that follows `end`, if it is there.
    pub(crate) fn next_batch<'r>(
        &self,
        ring: &'r [u8],
        end: &LogEnd,
        mount: u64,
        tail: u64,
    ) -> Option<(Header, &'r [u8])> {
        let len = ring.len() as u64;
        let next_lap = end.at.next_multiple_of(len);
        [end.at, next_lap].into_iter().find_map(|at| {
            let (header, records) = Header::decode(&ring[(at % len) as usize..])?;
            let follows = header.region == self.region
                && header.at == at
                && header.after == end.at
                && header.prev_crc == end.crc
                && header.mount >= mount
                && header.end(self.sector) - tail <= len;
            follows.then_some((header, records))
        })
    }

    /// Whether the blocks that records name hold the data that they should.
    fn data_is_there(&mut self, records: &[Record]) -> Result<bool, OpenError> {
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
                if !self.extents_match(extents, sums)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn extents_match(&mut self, extents: &[Extent], sums: &[BlockSum]) -> Result<bool, OpenError> {
        let mut sums = sums.iter();
        for extent in extents {
            if u64::from(extent.block) + u64::from(extent.blocks)
                > u64::from(self.layout.data_blocks)
            {
                return Ok(false);
            }
            let mut bytes = vec![0; usize::from(extent.blocks) * BLOCK_BYTES];
            let addr = self.layout.block_addr(extent.block);
            self.io.read_at(addr, &mut bytes).map_err(on_io("read data"))?;
            let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
            if !blocks.all(|block| sums.next() == Some(&block_sum(block))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The allocator that follows from what the replicas name.
    fn claim_blocks(&self, replicas: &Replicas) -> Result<Space, OpenError> {
        let mut space = Space::new(self.layout.data_blocks);
        let twice = |place: u32, id: CopysetId| {
            OpenError::Inconsistent(format!(
                "block {place} is named twice, the second time by {id}"
            ))
        };
        for (&id, replica) in replicas {
            for chunk in replica.map.chunks_after(None) {
                for place in replica.map.blocks(chunk).filter_map(|(_, m)| m.block()) {
                    space.claim(place).then_some(()).ok_or_else(|| twice(place, id))?;
                }
            }
            for place in
                replica.entries.iter().flat_map(|e| e.extents.iter().flat_map(|e| e.iter()))
            {
                space.claim(place).then_some(()).ok_or_else(|| twice(place, id))?;
            }
        }
        Ok(space)
    }
}

fn damaged_directory() -> OpenError {
    OpenError::Damaged("the directory of the checkpoint".to_owned())
}

pub(crate) fn decode_records(bytes: &[u8], count: u32) -> Option<Vec<Record>> {
    let reader = &mut Reader(bytes);
    let mut records = Vec::new();
    while !reader.is_empty() {
        records.push(Record::decode(reader).ok()?);
    }
    (records.len() == count as usize).then_some(records)
}

/// Replays one record, as it happened: each comes after all before it and none comes twice.
fn replay_record(replicas: &mut Replicas, record: Record) -> Result<(), OpenError> {
    match record {
        Record::Create { copyset, members } => {
            replicas.insert(copyset, Replica::new(members, 0));
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
                take_in(replica, &dropped, &pieces, &mut Taken::default());
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
            reset(replica, upto, &fences, &mut Taken::default());
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
    while replica.applied.index < upto {
        let next = replica.applied.index.next();
        replica.apply(next, &mut Vec::new(), &mut Vec::new());
    }
    Ok(())
}

fn drop_applied(replica: &mut Replica) {
    while replica.first() <= replica.applied.index && !replica.entries.is_empty() {
        replica.prev = replica.pos(replica.first());
        replica.entries.pop_front();
    }
}
