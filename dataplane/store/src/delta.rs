//! Deltas: finding the blocks that changed after an index, and taking them in.

use std::collections::BTreeSet;

use ogive_buf::Buf;
use ogive_types::message::{DeltaChunk, DeltaExtent, DeltaPage};
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Epoch, Index, LogPos, VolumeId};

use crate::codec::Writer;
use crate::limits::DROPPED_CHUNKS_MAX;
use crate::map::{Map, Mapping, PAGE_BLOCKS, PageKey};
use crate::record::{Extent, Piece, Record, encode_delta};
use crate::replica::{Gone, Replica, drop_volume, fence};
use crate::store::{AppendError, Store};
use crate::writer::{Notify, Seq, covered};

/// Most chunks, and most extents, in one page: what bounds the size of its message.
const ITEMS_MAX: usize = 1024;
/// Sorts before every chunk: volume ids start at 1.
const BEFORE_ALL: ChunkId = ChunkId { volume: VolumeId(0), number: 0 };

/// Where a scan goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaCursor {
    /// Chunks up to here are done.
    after: Option<ChunkId>,
    /// A chunk behind of which a part is done, and its next block.
    part: Option<(ChunkId, u16)>,
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
    /// Nothing was found because a page of the map must be read first: to be asked again from the
    /// same place after [`crate::StoreEvent::MapRead`].
    pub waits: bool,
}

impl Store {
    /// Finds blocks that entries after `newer_than` wrote or trimmed, from a cursor on, at most
    /// `blocks_max` with data. Ends early, perhaps with nothing found, where a page of the map must
    /// be read first.
    pub fn delta_scan(
        &self,
        id: CopysetId,
        newer_than: Index,
        cursor: DeltaCursor,
        blocks_max: usize,
    ) -> DeltaScan {
        let after = cursor.after;
        let end = DeltaScan { chunks: Vec::new(), after, through: None, next: None, waits: false };
        let Some(replica) = self.replicas.get(&id) else { return end };
        let mut chunks: Vec<DeltaChunk> = Vec::new();
        let (mut blocks, mut extents) = (0, 0);
        let mut done = after;
        for chunk in replica.map.chunks_after(after) {
            let scan = ChunkScan {
                newer_than,
                from: cursor.part.filter(|(part, _)| *part == chunk).map_or(0, |(_, block)| block),
                blocks_left: blocks_max - blocks,
                extents_left: ITEMS_MAX - extents,
            };
            let (found, stopped_at) = scan.run(&replica.map, chunk);
            extents += found.len();
            blocks += found.iter().map(|e| e.sums.len()).sum::<usize>();
            chunks.push(DeltaChunk { chunk, extents: found });
            if let Some(Stop { block, page }) = stopped_at {
                page.into_iter().for_each(|key| self.wish(id, key));
                let waits = page.is_some() && extents == 0;
                let next = Some(DeltaCursor { after: done, part: Some((chunk, block)) });
                let through = Some(done.unwrap_or(BEFORE_ALL));
                return DeltaScan { chunks, after, through, next, waits };
            }
            done = Some(chunk);
            if chunks.len() >= ITEMS_MAX || extents >= ITEMS_MAX || blocks >= blocks_max {
                let next = Some(DeltaCursor { after: done, part: None });
                return DeltaScan { chunks, after, through: done, next, waits: false };
            }
        }
        DeltaScan { chunks, ..end }
    }

    /// Takes in a page of a delta. [`crate::StoreEvent::DeltaPersisted`] follows when it is on
    /// stable storage, and shows.
    ///
    /// # Errors
    /// Nothing is changed by a page that is refused.
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
        let born = replica.born;
        let extents = || page.chunks.iter().flat_map(|c| c.extents.iter().map(|e| (c.chunk, e)));
        let stored = || extents().filter(|(_, e)| !e.sums.is_empty());
        let missing = extents().flat_map(|(c, e)| replica.map.pages_missing(c, e.range));
        let pages_reserved = missing.collect::<BTreeSet<_>>().len();
        if !self.pages_fit(pages_reserved) {
            return Err(AppendError::NoSpace);
        }
        let blocks: u32 = stored().map(|(_, e)| u32::from(e.range.blocks())).sum();
        if let Err(short) = self.space.check(blocks) {
            return Err(self.short(short, blocks));
        }
        self.drop_unlisted(id, page);
        self.pages_reserved += pages_reserved;
        let (mut pieces, mut at, mut writes) = (Vec::new(), 0, 0);
        for (chunk, DeltaExtent { range, index, sums }) in extents() {
            let mut stored = None;
            if !sums.is_empty() {
                let places = self.space.take(range.blocks()).expect("checked above");
                let data = payload.as_ref().expect("a page with data has a payload");
                let bytes = sums.len() * BLOCK_BYTES;
                writes += self.write_data(&places, &data.slice(at..at + bytes));
                at += bytes;
                stored = Some((places, sums.clone()));
            }
            pieces.push(Piece { chunk, range: *range, index: *index, stored });
        }
        self.record.clear();
        encode_delta(&mut Writer(&mut self.record), id, &[], &pieces);
        let seq = self.log.add(&self.record, writes);
        let what = Notify::Delta { token, copyset: id, born, pieces, pages_reserved };
        self.log.notify(seq, what);
        Ok(())
    }

    /// Drops the chunks that a page covers but does not list. They are gone at once, for the volume
    /// is deleted; their blocks are not used again before the record that says so is persisted.
    fn drop_unlisted(&mut self, id: CopysetId, page: &DeltaPage) {
        let listed = |chunk: ChunkId| page.chunks.iter().any(|c| c.chunk == chunk);
        let here = self.replicas[&id].map.chunks_after(page.after);
        let here = here.take_while(|&chunk| covered(page, chunk));
        let dropped: Vec<ChunkId> = here.filter(|&chunk| !listed(chunk)).collect();
        // In the log, too, what was applied before comes before.
        self.log_hints();
        for dropped in dropped.chunks(DROPPED_CHUNKS_MAX) {
            self.record.clear();
            encode_delta(&mut Writer(&mut self.record), id, dropped, &[]);
            self.log.add(&self.record, 0);
            self.take_pieces(id, dropped, Vec::new());
        }
        if !dropped.is_empty() {
            self.reserve_again(id);
        }
    }

    /// What a persisted page brought shows now; false when its replica was dropped meanwhile.
    pub(crate) fn delta_persisted(&mut self, id: CopysetId, born: Seq, pieces: Vec<Piece>) -> bool {
        if self.is_here(id, born) {
            self.take_pieces(id, &[], pieces);
            return true;
        }
        let extents = pieces.into_iter().filter_map(|piece| piece.stored);
        for place in extents.flat_map(|(extents, _)| extents).flat_map(Extent::iter) {
            self.space.give(place);
        }
        false
    }

    fn take_pieces(&mut self, id: CopysetId, dropped: &[ChunkId], pieces: Vec<Piece>) {
        let replica = self.replicas.get_mut(&id).expect("the caller looked");
        let before = replica.map.pages();
        let mut gone = Gone::default();
        take_in(replica, dropped, &pieces, &mut gone);
        self.pages = self.pages + replica.map.pages() - before;
        self.free_gone(id, &mut gone);
        self.fetch_wanted(id);
    }

    /// Restarts a replica's log behind `upto`, the end of a delta.
    /// [`crate::StoreEvent::DeltaPersisted`] follows.
    pub fn reset_log(
        &mut self,
        token: u64,
        id: CopysetId,
        upto: LogPos,
        fences: &[(VolumeId, Epoch)],
    ) {
        self.log_hints();
        self.about_to_change(id);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let (born, applied) = (replica.born, replica.applied.index);
        assert!(upto.index > applied, "{id}: a delta leads forward");
        let mut freed = std::mem::take(&mut replica.truncated);
        let entries = std::mem::take(&mut replica.entries);
        for (index, entry) in (replica.first().0..).zip(&entries) {
            freed.extend(entry.unmapped(Index(index) <= applied));
        }
        if replica.reset.0 <= self.log.persisted_seq() {
            replica.reset.1 = applied;
        }
        replica.reset.0 = self.log.next_seq();
        let (first, pages_before) = (replica.first().0, replica.map.pages());
        let mut gone = Gone::default();
        reset(replica, upto, fences, &mut gone);
        self.pages = self.pages + replica.map.pages() - pages_before;
        for (index, entry) in (first..).zip(entries) {
            self.entry_gone(entry, Index(index) > applied);
        }
        let fences = fences.to_vec();
        let seq = self.log_record(&Record::Reset { copyset: id, upto, fences });
        self.log.notify(seq, Notify::Reset { token, copyset: id, born });
        freed.into_iter().for_each(|place| self.space.give(place));
        self.free_gone(id, &mut gone);
    }
}

/// Drops chunks, then puts the pieces of a delta into a map.
pub(crate) fn take_in(
    replica: &mut Replica,
    dropped: &[ChunkId],
    pieces: &[Piece],
    gone: &mut Gone,
) {
    let map = &mut replica.map;
    for &chunk in dropped {
        gone.chunk(chunk, map.remove(chunk));
    }
    for Piece { chunk, range, index, stored } in pieces {
        // A page may have been under way when its volume was deleted here.
        let deleted = replica.fences.get(&chunk.volume) == Some(&Epoch(u64::MAX));
        let Some((extents, sums)) = stored else {
            if deleted {
                continue;
            }
            // Remembered even where there is no page: older entries may be applied after this.
            for block in range.iter() {
                let old = map.set(*chunk, block, Mapping::trimmed(*index));
                gone.replaced.extend(old.map(|old| (*chunk, block, old)));
            }
            continue;
        };
        let places = extents.iter().flat_map(|e| e.iter());
        if deleted {
            gone.unused.extend(places);
            continue;
        }
        for ((block, place), &sum) in range.iter().zip(places).zip(sums) {
            match map.set(*chunk, block, Mapping::stored(place, sum, *index)) {
                Some(old) => gone.replaced.push((*chunk, block, old)),
                None => gone.unused.push(place),
            }
        }
    }
}

/// Moves a replica whose entries were taken out to the end of a delta.
pub(crate) fn reset(
    replica: &mut Replica,
    upto: LogPos,
    fences: &[(VolumeId, Epoch)],
    gone: &mut Gone,
) {
    replica.prev = upto;
    replica.applied = upto;
    replica.persisted = upto.index;
    for &(volume, epoch) in fences {
        fence(&mut replica.fences, volume, epoch);
        if epoch == Epoch(u64::MAX) {
            // Its deletion is behind us and will not be applied any more.
            drop_volume(&mut replica.map, volume, gone);
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

/// Where a scan stopped within a chunk.
struct Stop {
    block: u16,
    /// The page that must be read first, if it is that.
    page: Option<PageKey>,
}

impl ChunkScan {
    /// The extents found, and where the scan stopped when there was too much, or at a page that is
    /// not in memory.
    fn run(self, map: &Map, chunk: ChunkId) -> (Vec<DeltaExtent>, Option<Stop>) {
        let mut found: Vec<DeltaExtent> = Vec::new();
        let mut blocks = 0;
        let pages = map.pages_in(chunk).filter(|(_, page)| page.newest > self.newer_than);
        for (number, page) in pages {
            let first = u16::from(number) * PAGE_BLOCKS;
            let block = first.max(self.from);
            if block >= first + PAGE_BLOCKS {
                continue;
            }
            if page.out {
                return (found, Some(Stop { block, page: Some((chunk, number)) }));
            }
            let scanned = (block..first + PAGE_BLOCKS).map(|block| (block, page.get(block)));
            if let Some(block) = self.add(&mut found, &mut blocks, scanned) {
                return (found, Some(Stop { block, page: None }));
            }
        }
        (found, None)
    }

    /// Adds the changed ones of these blocks; where it stopped when there was too much.
    fn add(
        &self,
        found: &mut Vec<DeltaExtent>,
        blocks: &mut usize,
        scanned: impl Iterator<Item = (u16, Mapping)>,
    ) -> Option<u16> {
        for (block, mapping) in scanned.filter(|(_, m)| m.index > self.newer_than) {
            let mapped = mapping.block().is_some();
            if mapped && *blocks == self.blocks_left {
                return Some(block);
            }
            let joins = found.last().is_some_and(|e: &DeltaExtent| {
                e.range.end() == block && e.index == mapping.index && e.sums.is_empty() != mapped
            });
            if !joins {
                if found.len() == self.extents_left {
                    return Some(block);
                }
                let range = BlockRange::new(block, 1).expect("a block of a chunk");
                found.push(DeltaExtent { range, index: mapping.index, sums: Vec::new() });
            }
            let extent = found.last_mut().expect("just made");
            let len = block + 1 - extent.range.start();
            extent.range = BlockRange::new(extent.range.start(), len).expect("within the chunk");
            if mapped {
                extent.sums.push(mapping.sum);
                *blocks += 1;
            }
        }
        None
    }
}
