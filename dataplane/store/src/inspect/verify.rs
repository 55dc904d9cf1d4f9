//! Reads everything that has a checksum, and says what is damaged and whom that concerns.

use ogive_buf::Buf;
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Index};
use serde::Serialize;

use super::device::{SlotView, slots};
use super::log::{LogEnd, Walk};
use super::overlay::Overlay;
use super::pool;
use crate::directory::{self, PagePlace};
use crate::io::{DiskDone, DiskError, DiskOp, RegionIo};
use crate::label::{self, CopyState, Label, LabelError};
use crate::limits::FINDINGS_MAX;
use crate::map::{PAGE_BLOCKS, PAGE_BYTES, PageKey};
use crate::recover::{OpenError, Recovery, decode_records};
use crate::store::{Store, StoreEvent, StoreOptions};
use crate::superblock::Superblock;

/// What was looked at, and what is damaged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verified {
    /// Map pages that the checkpoints name.
    pub map_pages: u64,
    /// Batches of the logs.
    pub log_batches: u64,
    /// Data blocks of chunks and of entries that are not applied.
    pub data_blocks: u64,
    /// Damages; all of those that `findings` has no room for are counted too.
    pub damages: u64,
    /// What is damaged, in the order of the shards.
    pub findings: Vec<Finding>,
}

/// One damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The shard; none for the device's label.
    pub shard: Option<u16>,
    /// What is damaged, and what follows from it.
    pub what: String,
    /// Whose data it is, when that is known.
    #[serde(flatten)]
    pub place: Option<Place>,
}

/// Blocks of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The replica's copyset.
    pub copyset: u32,
    /// The volume.
    pub volume: u64,
    /// The chunk's number within the volume.
    pub chunk: u32,
    /// First block of 4 KiB within the chunk.
    pub block: u16,
    /// Number of blocks.
    pub blocks: u16,
}

/// How far the reading of data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The shard that is being read.
    pub shard: u16,
    /// Bytes of its data that were read.
    pub done_bytes: u64,
    /// Bytes of its data.
    pub total_bytes: u64,
}

/// Reads label, superblocks, directories, map pages, logs and data of all shards.
///
/// # Errors
/// When the device has no readable label: then nothing is known of it.
pub fn verify(
    io: &dyn RegionIo,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verified, LabelError> {
    let label = label::read_label_of_any_length(io)?;
    let mut verify = Verify { io, label, shard: None, seen: Verified::default(), progress };
    verify.label_copies();
    for shard in 0..verify.label.shards {
        verify.shard = Some(shard);
        verify.shard(shard);
    }
    Ok(verify.seen)
}

struct Verify<'a> {
    io: &'a dyn RegionIo,
    label: Label,
    shard: Option<u16>,
    seen: Verified,
    progress: &'a mut dyn FnMut(Progress),
}

impl Verify<'_> {
    fn damaged(&mut self, what: impl Into<String>, place: Option<Place>) {
        self.seen.damages += 1;
        if self.seen.findings.len() < FINDINGS_MAX {
            let finding = Finding { shard: self.shard, what: what.into(), place };
            self.seen.findings.push(finding);
        }
    }

    fn label_copies(&mut self) {
        for (copy, state) in label::copy_states(self.io, &self.label).into_iter().enumerate() {
            if matches!(state, CopyState::Damaged | CopyState::Missing) {
                self.damaged(
                    format!("copy {copy} of the label is damaged; the other is used"),
                    None,
                );
            }
        }
        let (has, says) = (self.io.len(), self.label.device_bytes());
        if has < says {
            let what = format!("the device has {has} bytes but was formatted with {says}");
            self.damaged(what, None);
        }
    }

    fn shard(&mut self, shard: u16) {
        let region = self.label.regions().get(usize::from(shard));
        let Some(layout) = region.and_then(|region| region.layout()) else { return };
        let id = Recovery::region_id(&self.label, shard);
        for (n, slot) in slots(self.io, &layout, id).into_iter().enumerate() {
            let why = match slot {
                SlotView::Unused | SlotView::Valid { .. } => continue,
                SlotView::Damaged => "is damaged".to_owned(),
                SlotView::Unreadable { error } => format!("cannot be read: {error}"),
                SlotView::OtherVersion { version } => format!("has version {version}"),
                SlotView::Foreign => "belongs to another region".to_owned(),
            };
            self.damaged(format!("superblock {n} {why}"), None);
        }
        let label = self.label.clone();
        let mut overlay = Overlay::new(self.io);
        let looked = Recovery::new(&mut overlay, &label, shard).and_then(|mut recovery| {
            let superblock = recovery.superblock()?;
            self.pages(&mut recovery, &superblock)?;
            self.log(&mut recovery, &superblock)
        });
        if let Err(error) = looked {
            self.damaged(error.to_string(), None);
        }
        self.data(shard);
    }

    /// The directory of the checkpoint, and each page that it names.
    fn pages(
        &mut self,
        recovery: &mut Recovery<'_>,
        superblock: &Superblock,
    ) -> Result<(), OpenError> {
        let Some(bytes) = recovery.directory_bytes(superblock)? else { return Ok(()) };
        // One that cannot be understood is named when the region is opened.
        let Ok((_, pages)) = directory::decode(&bytes, recovery.region) else { return Ok(()) };
        let mut bytes = vec![0; PAGE_BYTES];
        for place in pages {
            self.seen.map_pages += 1;
            let PagePlace { copyset: id, key: (chunk, number), slot, .. } = place;
            let known = slot < recovery.layout.slots;
            let read =
                known && self.io.read_at(recovery.layout.slot_addr(slot), &mut bytes).is_ok();
            if !read || place.page(&bytes, recovery.region).is_none() {
                let start = u16::from(number) * PAGE_BLOCKS;
                let place = Place::of(id, chunk, start, PAGE_BLOCKS);
                let what = format!("map page in slot {slot} is damaged; its blocks are unknown");
                self.damaged(what, Some(place));
            }
        }
        Ok(())
    }

    fn log(
        &mut self,
        recovery: &mut Recovery<'_>,
        superblock: &Superblock,
    ) -> Result<(), OpenError> {
        let mut walk = Walk::new(recovery, superblock)?;
        let mut unclear = Vec::new();
        while let Some((header, records)) = walk.next_batch() {
            self.seen.log_batches += 1;
            if decode_records(records, header.records).is_none() {
                unclear.push(header.at);
            }
        }
        if walk.verdict() == LogEnd::Rot {
            let rot = OpenError::LogRot { at: walk.at(), mark: walk.mark() };
            self.damaged(rot.to_string(), None);
        }
        for at in unclear {
            self.damaged(format!("the records of the log batch at {at} make no sense"), None);
        }
        Ok(())
    }

    /// Every block that the maps and the entries name, as the engine reads it.
    fn data(&mut self, shard: u16) {
        let mut overlay = Overlay::new(self.io);
        let store = Store::open(&mut overlay, &self.label, shard, pool(), StoreOptions::default());
        let store = match store {
            Ok(store) => store,
            // Named by what was looked at before, or here if that found nothing.
            Err(error) => {
                let what = format!("{error} (the data of this shard was not read)");
                return self.damaged(what, None);
            }
        };
        let stats = store.stats();
        let total_bytes = stats.blocks_mapped * BLOCK_BYTES as u64;
        let mut reader = Reader { store, overlay, done: 0 };
        for (id, (chunk, number)) in reader.pages() {
            for range in reader.mapped(id, chunk, number) {
                let damaged = reader.check(id, chunk, range);
                self.seen.data_blocks += u64::from(range.blocks());
                for range in damaged {
                    let place = Place::of(id, chunk, range.start(), range.blocks());
                    self.damaged("data is damaged; a peer must repair it", Some(place));
                }
                let done_bytes = reader.done * BLOCK_BYTES as u64;
                (self.progress)(Progress { shard, done_bytes, total_bytes });
            }
        }
        for (id, index, chunk, range) in reader.entries() {
            self.seen.data_blocks += u64::from(range.blocks());
            if !reader.check_entry(id, index) {
                let place = Place::of(id, chunk, range.start(), range.blocks());
                let what = format!("data of entry {index}, not applied yet, is damaged");
                self.damaged(what, Some(place));
            }
        }
    }
}

impl Place {
    fn of(copyset: CopysetId, chunk: ChunkId, block: u16, blocks: u16) -> Place {
        let (volume, chunk) = (chunk.volume.0, chunk.number);
        Place { copyset: copyset.0, volume, chunk, block, blocks }
    }
}

/// A store whose reads are done at once.
struct Reader<'a> {
    store: Store,
    overlay: Overlay<'a>,
    /// Blocks read.
    done: u64,
}

impl Reader<'_> {
    /// All pages of all maps.
    fn pages(&self) -> Vec<(CopysetId, PageKey)> {
        let replicas = self.store.replicas.iter();
        replicas.flat_map(|(&id, r)| r.map.iter().map(move |(key, _)| (id, key))).collect()
    }

    /// Runs of mapped blocks of a page.
    fn mapped(&mut self, id: CopysetId, chunk: ChunkId, number: u8) -> Vec<BlockRange> {
        if self.store.page_out(id, chunk, u16::from(number) * PAGE_BLOCKS).is_some() {
            self.store.wish(id, (chunk, number));
            self.finish();
        }
        let mut runs: Vec<BlockRange> = Vec::new();
        let page = self.store.replicas[&id].map.page((chunk, number));
        for (block, _) in page.into_iter().flat_map(|page| page.stored(number)) {
            match runs.last_mut().filter(|run| run.end() == block) {
                Some(run) => *run = one(run.start(), run.blocks() + 1),
                None => runs.push(one(block, 1)),
            }
        }
        runs
    }

    /// Writes that are not applied.
    fn entries(&self) -> Vec<(CopysetId, Index, ChunkId, BlockRange)> {
        let mut writes = Vec::new();
        for (&id, replica) in &self.store.replicas {
            for (entry, index) in replica.entries.iter().zip(replica.first().0..) {
                if let Op::Write { chunk, range, .. } = &entry.op {
                    writes.push((id, Index(index), *chunk, *range));
                }
            }
        }
        writes
    }

    /// The damaged blocks of a range.
    fn check(&mut self, id: CopysetId, chunk: ChunkId, range: BlockRange) -> Vec<BlockRange> {
        self.done += u64::from(range.blocks());
        self.store.read(0, id, chunk, range);
        if self.finish().is_some() {
            return Vec::new();
        }
        let mut damaged: Vec<BlockRange> = Vec::new();
        for block in range.iter() {
            self.store.read(0, id, chunk, one(block, 1));
            if self.finish().is_some() {
                continue;
            }
            match damaged.last_mut().filter(|last| last.end() == block) {
                Some(last) => *last = one(last.start(), last.blocks() + 1),
                None => damaged.push(one(block, 1)),
            }
        }
        damaged
    }

    fn check_entry(&mut self, id: CopysetId, index: Index) -> bool {
        self.store.read_entry(0, id, index);
        self.finish().is_some()
    }

    /// Does what the store asks for; what the read gave, if it was good.
    fn finish(&mut self) -> Option<Buf> {
        let (mut ops, mut events) = (Vec::new(), Vec::new());
        loop {
            self.store.poll_ops(&mut ops);
            if ops.is_empty() {
                break;
            }
            for op in ops.drain(..) {
                let id = op.id();
                let result = match op {
                    DiskOp::Read { addr, mut buf, .. } => {
                        match self.overlay.read_at(addr, &mut buf) {
                            Ok(()) => Ok(Some(buf)),
                            Err(error) => Err(DiskError::from_errno(
                                error.raw_os_error().unwrap_or(libc::EIO),
                            )),
                        }
                    }
                    DiskOp::Write { addr, bufs, .. } => self.write(addr, &bufs).map(|()| None),
                    DiskOp::Flush { .. } => Ok(None),
                };
                self.store.complete(DiskDone { id, result });
            }
        }
        self.store.poll_events(&mut events);
        events.into_iter().find_map(|event| match event {
            StoreEvent::ReadDone { result, .. } => result.ok(),
            _ => None,
        })
    }

    /// What a mount writes stays in memory.
    fn write(&mut self, addr: u64, bufs: &[Buf]) -> Result<(), DiskError> {
        let mut at = addr;
        for buf in bufs {
            self.overlay.write_at(at, buf).map_err(|_| DiskError::Io(libc::EIO))?;
            at += buf.len() as u64;
        }
        Ok(())
    }
}

fn one(start: u16, blocks: u16) -> BlockRange {
    BlockRange::new(start, blocks).expect("part of a chunk")
}
