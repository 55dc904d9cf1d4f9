//! Deltas: finding the blocks that changed after an index, and taking them in.

use ogive_buf::Buf;
use ogive_types::message::{DeltaChunk, DeltaExtent, DeltaPage};
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Epoch, Index, LogPos, VolumeId};

use crate::map::{Map, Mapping};
use crate::record::{Piece, Record};
use crate::replica::fence;
use crate::store::{AppendError, Store};
use crate::writer::{Notify, covered};

/// Most chunks, and most extents, in one page: what bounds the size of its message.
const ITEMS_MAX: usize = 1024;
/// Sorts before every chunk: volume ids start at 1.
const BEFORE_ALL: ChunkId = ChunkId { volume: VolumeId(0), number: 0 };

/// Where a scan goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaCursor {
    /// Chunks up to here are done.
    after: Option<ChunkId>,
    /// The next block of the chunk behind, when a part of it is done.
    block: u16,
}

impl DeltaCursor {
    /// The start of a scan.
    pub fn start() -> DeltaCursor {
        DeltaCursor::default()
    }
}

/// One page of a scan; its fields are those of [`DeltaPage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaScan {
    /// The chunks found.
    pub chunks: Vec<DeltaChunk>,
    /// Start of the range covered.
    pub after: Option<ChunkId>,
    /// End of the range covered.
    pub through: Option<ChunkId>,
    /// Where to go on; `None` at the end.
    pub next: Option<DeltaCursor>,
}

impl Store {
    /// Finds blocks that entries after `newer_than` wrote or trimmed, from a cursor on, at most `blocks_max` with data.
    pub fn delta_scan(
        &self,
        id: CopysetId,
        newer_than: Index,
        cursor: DeltaCursor,
        blocks_max: usize,
    ) -> DeltaScan {
        let after = cursor.after;
        let end = DeltaScan { chunks: Vec::new(), after, through: None, next: None };
        let Some(replica) = self.replicas.get(&id) else { return end };
        let mut chunks: Vec<DeltaChunk> = Vec::new();
        let (mut blocks, mut extents) = (0, 0);
        let mut done = after;
        let mut from = cursor.block;
        for chunk in replica.map.chunks_after(after) {
            let scan = ChunkScan {
                newer_than,
                from: std::mem::take(&mut from),
                blocks_left: blocks_max - blocks,
                extents_left: ITEMS_MAX - extents,
            };
            let (found, stopped_at) = scan.run(&replica.map, chunk);
            extents += found.len();
            blocks += found.iter().map(|e| e.sums.len()).sum::<usize>();
            chunks.push(DeltaChunk { chunk, extents: found });
            if let Some(block) = stopped_at {
                let next = Some(DeltaCursor { after: done, block });
                let through = Some(done.unwrap_or(BEFORE_ALL));
                return DeltaScan { chunks, after, through, next };
            }
            done = Some(chunk);
            if chunks.len() >= ITEMS_MAX || extents >= ITEMS_MAX || blocks >= blocks_max {
                let next = Some(DeltaCursor { after: done, block: 0 });
                return DeltaScan { chunks, after, through: done, next };
            }
        }
        DeltaScan { chunks, ..end }
    }

    /// Takes in a page of a delta. [`crate::StoreEvent::DeltaPersisted`] follows when it is on stable storage, and shows.
    pub fn delta_apply(
        &mut self,
        token: u64,
        id: CopysetId,
        page: &DeltaPage,
        payload: Option<Buf>,
    ) -> Result<(), AppendError> {
        if self.failed.is_some() {
            return Err(AppendError::Failed);
        }
        if self.log.is_full() {
            return Err(AppendError::Busy);
        }
        let replica = self.replicas.get(&id).expect("deltas are for replicas that exist");
        let listed = |chunk: ChunkId| page.chunks.iter().any(|c| c.chunk == chunk);
        let here = replica.map.chunks_after(page.after).take_while(|&c| covered(page, c));
        let dropped: Vec<ChunkId> = here.filter(|&c| !listed(c)).collect();
        let extents = page.chunks.iter().flat_map(|c| c.extents.iter().map(|e| (c.chunk, e)));
        let missing = extents.clone().map(|(c, e)| replica.map.pages_missing(c, e.range)).sum();
        let blocks: usize = extents.clone().map(|(_, e)| e.sums.len()).sum();
        if !self.pages_fit(missing) || (self.space.free_blocks() as usize) < blocks {
            return Err(AppendError::NoSpace);
        }
        let mut pieces = Vec::new();
        for (chunk, DeltaExtent { range, index, sums }) in extents {
            let mut stored = None;
            if !sums.is_empty() {
                let Some(places) = self.space.take(range.blocks()) else {
                    // Blocks that looked free wait for reads to end.
                    let taken = pieces.into_iter().filter_map(|p: Piece| p.stored);
                    let taken = taken.flat_map(|(extents, _)| extents).flat_map(|e| e.iter());
                    taken.for_each(|place| self.space.give(place));
                    return Err(AppendError::NoSpace);
                };
                stored = Some((places, sums.clone()));
            }
            pieces.push(Piece { chunk, range: *range, index: *index, stored });
        }
        let (mut at, mut writes) = (0, 0);
        for (places, sums) in pieces.iter().filter_map(|p| p.stored.as_ref()) {
            let data = payload.as_ref().expect("a page with data has a payload");
            let bytes = sums.len() * BLOCK_BYTES;
            writes += self.write_data(places, &data.slice(at..at + bytes));
            at += bytes;
        }
        let record =
            Record::Delta { copyset: id, dropped: dropped.clone(), pieces: pieces.clone() };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let notify = vec![Notify::Delta { token, copyset: id, dropped, pieces }];
        self.add_data_record(bytes, writes, notify);
        Ok(())
    }

    /// What a persisted page brought shows now.
    pub(crate) fn delta_persisted(
        &mut self,
        id: CopysetId,
        dropped: &[ChunkId],
        pieces: Vec<Piece>,
    ) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let before = replica.map.pages();
        let mut replaced = Vec::new();
        let mut unused = Vec::new();
        let mut slots = Vec::new();
        take_in(&mut replica.map, dropped, &pieces, &mut replaced, &mut unused, &mut slots);
        self.pages = self.pages + replica.map.pages() - before;
        self.checkpoint.dropped_slots.extend(slots);
        unused.into_iter().for_each(|place| self.space.give(place));
        for (chunk, block, old) in replaced {
            self.free_unless_kept(id, chunk, block, old);
        }
    }

    /// Restarts a replica's log behind `upto`, the end of a delta. [`crate::StoreEvent::DeltaPersisted`] follows.
    pub fn reset_log(
        &mut self,
        token: u64,
        id: CopysetId,
        upto: LogPos,
        fences: &[(VolumeId, Epoch)],
    ) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        assert!(upto.index > replica.applied.index, "{id}: a delta leads forward");
        let mut freed = std::mem::take(&mut replica.truncated);
        for entry in std::mem::take(&mut replica.entries) {
            let replica = &self.replicas[&id];
            if let ogive_types::message::Op::Write { chunk, .. } = &entry.op {
                let unmapped = entry.blocks().filter(|&(block, place)| {
                    replica.map.get(*chunk, block).block() != Some(place)
                });
                freed.extend(unmapped.map(|(_, place)| place));
            }
            self.pages_reserved -= entry.pages_reserved;
            let held: u64 = entry.extents.iter().map(|e| u64::from(e.blocks)).sum();
            self.kept_blocks -= held;
            self.forget_bytes(entry.payload);
        }
        let replica = self.replicas.get_mut(&id).expect("looked up above");
        replica.prev = upto;
        replica.applied = upto;
        replica.persisted = upto.index;
        fences.iter().for_each(|&(v, e)| fence(&mut replica.fences, v, e));
        let record = Record::Reset { copyset: id, upto, fences: fences.to_vec() };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let notify = vec![Notify::Free(freed), Notify::Reset { token, copyset: id }];
        self.add_data_record(bytes, 0, notify);
    }
}

/// Puts the pieces of a delta into a map. Adds what they replaced, places of pieces that were older than what is there,
/// and slots of pages that are gone.
pub(crate) fn take_in(
    map: &mut Map,
    dropped: &[ChunkId],
    pieces: &[Piece],
    replaced: &mut Vec<(ChunkId, u16, Mapping)>,
    unused: &mut Vec<u32>,
    slots: &mut Vec<u32>,
) {
    for &chunk in dropped {
        let (blocks, gone) = map.remove(chunk);
        replaced.extend(blocks.into_iter().map(|(block, old)| (chunk, block, old)));
        slots.extend(gone);
    }
    for Piece { chunk, range, index, stored } in pieces {
        let Some((extents, sums)) = stored else {
            for block in range.iter() {
                let old = map.set(*chunk, block, Mapping::trimmed(*index));
                replaced.extend(old.map(|old| (*chunk, block, old)));
            }
            continue;
        };
        let places = extents.iter().flat_map(|e| e.iter());
        for ((block, place), &sum) in range.iter().zip(places).zip(sums) {
            match map.set(*chunk, block, Mapping::stored(place, sum, *index)) {
                Some(old) => replaced.push((*chunk, block, old)),
                None => unused.push(place),
            }
        }
    }
}

/// Looks for changed blocks in one chunk.
struct ChunkScan {
    newer_than: Index,
    from: u16,
    blocks_left: usize,
    extents_left: usize,
}

impl ChunkScan {
    /// The extents found, and where the scan stopped when there was too much.
    fn run(self, map: &Map, chunk: ChunkId) -> (Vec<DeltaExtent>, Option<u16>) {
        let mut found: Vec<DeltaExtent> = Vec::new();
        let mut blocks = 0;
        let changed = map.blocks(chunk);
        let changed = changed.filter(|(b, m)| *b >= self.from && m.index > self.newer_than);
        for (block, mapping) in changed {
            let mapped = mapping.block().is_some();
            if mapped && blocks == self.blocks_left {
                return (found, Some(block));
            }
            let joins = found.last().is_some_and(|e: &DeltaExtent| {
                e.range.end() == block && e.index == mapping.index && e.sums.is_empty() != mapped
            });
            if !joins {
                if found.len() == self.extents_left {
                    return (found, Some(block));
                }
                let range = BlockRange::new(block, 1).expect("a block of a chunk");
                found.push(DeltaExtent { range, index: mapping.index, sums: Vec::new() });
            }
            let extent = found.last_mut().expect("just made");
            let len = block + 1 - extent.range.start();
            extent.range = BlockRange::new(extent.range.start(), len).expect("within the chunk");
            if mapped {
                extent.sums.push(mapping.sum);
                blocks += 1;
            }
        }
        (found, None)
    }
}
