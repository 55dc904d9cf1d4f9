//! Maps: which device block holds which block of a chunk, written by which entry.
//!
//! A page maps 256 blocks (1 MiB) of a chunk. One rule makes replay and deltas idempotent: a block
//! is changed only by an entry with a greater index than the one that wrote it.
//!
//! `page.rs` has its bytes on the device, `body.rs` its forms. Pages may leave memory, and are read
//! back from their slots: `paging.rs`, and `design/0003-maps.md` for why that is right.

mod body;
mod page;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ogive_types::{BLOCKS_PER_CHUNK, BlockRange, BlockSum, ChunkId, CopysetId, Index, VolumeId};

pub(crate) use page::{PAGE_BYTES, Page, page_sum};

/// Blocks of one page.
pub(crate) const PAGE_BLOCKS: u16 = 256;
/// Pages of one chunk.
pub(crate) const PAGES: usize = (BLOCKS_PER_CHUNK / PAGE_BLOCKS) as usize;
const EMPTY: u32 = u32::MAX;
const TRIMMED: u32 = u32::MAX - 1;

/// One block's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    block: u32,
    pub(crate) sum: BlockSum,
    pub(crate) index: Index,
}

impl Mapping {
    const NONE: Mapping = Mapping { block: EMPTY, sum: BlockSum(0), index: Index(0) };

    pub(crate) fn stored(block: u32, sum: BlockSum, index: Index) -> Mapping {
        assert!(block < TRIMMED);
        Mapping { block, sum, index }
    }

    pub(crate) fn trimmed(index: Index) -> Mapping {
        Mapping { block: TRIMMED, sum: BlockSum(0), index }
    }

    /// The device block that holds it; `None` when it reads as zeroes.
    pub(crate) fn block(&self) -> Option<u32> {
        (self.block < TRIMMED).then_some(self.block)
    }
}

/// Names a page within a replica.
pub(crate) type PageKey = (ChunkId, u8);

/// What all maps of a store take together.
#[derive(Default)]
pub(crate) struct MapUse {
    /// Bytes of memory of the mappings.
    pub(crate) bytes: Cell<usize>,
    /// Pages that changed since they were written.
    pub(crate) dirty: Cell<usize>,
}

impl MapUse {
    fn add(&self, after: usize, before: usize) {
        self.bytes.set(self.bytes.get() + after - before);
    }
}

/// A page that was dropped while it was out: its blocks are known once it was read.
#[derive(Debug)]
pub(crate) struct OutPage {
    pub(crate) key: PageKey,
    pub(crate) slot: u32,
    /// Checksum of the version in the slot.
    pub(crate) sum: u32,
    pub(crate) mapped: u16,
    /// The read that brings it in, if there is one.
    pub(crate) fetch: Option<u32>,
}

/// What became of moving a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It lay there.
    From(Mapping),
    /// The map has another version of the block, or none.
    Nothing,
    /// Its page is out: [`Map::join`] moves it, if it still is what it was.
    Later,
}

/// What is left of a chunk that was removed.
#[derive(Default)]
pub(crate) struct Removed {
    /// Mapped blocks, as far as they are in memory.
    pub(crate) blocks: Vec<(u16, Mapping)>,
    /// Slots of pages that were in memory.
    pub(crate) slots: Vec<u32>,
    pub(crate) out: Vec<OutPage>,
}

/// The pages of one replica.
#[derive(Default)]
pub(crate) struct Map {
    chunks: BTreeMap<ChunkId, Box<[Option<Page>; PAGES]>>,
    pages: usize,
    mapped: u64,
    usage: Rc<MapUse>,
    /// Pages that changed since they were written; some are gone.
    dirty: Vec<PageKey>,
    /// Pages in memory, the hand's next first; some are gone.
    clock: VecDeque<PageKey>,
    /// Pages that are out and have something to be joined with.
    wanted: Vec<PageKey>,
    /// Blocks of pages that are out, and where they were moved, in the order of the moves.
    moves: BTreeMap<PageKey, Vec<(u16, Mapping)>>,
    /// Blocks of pages that are out which memory shows where they were moved to. What the device
    /// has may be the same version at the place before.
    moved: BTreeSet<(PageKey, u16)>,
}

fn place(block: u16) -> (usize, u16) {
    (usize::from(block / PAGE_BLOCKS), block % PAGE_BLOCKS)
}

impl Map {
    /// An empty map that counts what it takes together with others.
    pub(crate) fn new(usage: &Rc<MapUse>) -> Map {
        let mut map = Map::default();
        map.usage = Rc::clone(usage);
        map
    }

    /// The mapping of one block, as far as memory knows; of an unknown one, none with index 0. See
    /// [`Map::out_in`] for what memory does not know.
    pub(crate) fn get(&self, chunk: ChunkId, block: u16) -> Mapping {
        let (number, at) = place(block);
        let Some(page) = self.page((chunk, number as u8)) else { return Mapping::NONE };
        page.used.set(true);
        page.body.get(at)
    }

    /// Pages with blocks of `range` that are not in memory.
    pub(crate) fn out_in(
        &self,
        chunk: ChunkId,
        range: BlockRange,
    ) -> impl Iterator<Item = PageKey> + '_ {
        pages_of(chunk, range).filter(|&key| self.page(key).is_some_and(|page| page.out))
    }

    /// Trims one block as [`Map::set`] does, but only where there is a page: an entry that is
    /// applied in order need not be remembered where nothing was ever written.
    pub(crate) fn trim(&mut self, chunk: ChunkId, block: u16, index: Index) -> Option<Mapping> {
        let (number, _) = place(block);
        self.has_page((chunk, number as u8)).then_some(())?;
        self.set(chunk, block, Mapping::trimmed(index))
    }

    /// Changes one block if `new` is newer; the mapping replaced, or `None` when nothing changed.
    /// In a page that is out, only what came since is replaced; [`Map::join`] has the rest.
    pub(crate) fn set(&mut self, chunk: ChunkId, block: u16, new: Mapping) -> Option<Mapping> {
        let (number, at) = place(block);
        let key = (chunk, number as u8);
        let page = self.page_or_new(key);
        let bytes = page.body.bytes();
        let old = page.body.set(at, new)?;
        page.newest = page.newest.max(new.index);
        let (has, had) = (new.block().is_some(), old.block().is_some());
        let counts = !page.out;
        if counts {
            page.mapped = page.mapped + u16::from(has) - u16::from(had);
        }
        let (after, first) = (page.body.bytes(), page.changes());
        self.usage.add(after, bytes);
        if counts {
            self.mapped = self.mapped + u64::from(has) - u64::from(had);
        }
        if first {
            self.note_changed(key, !counts);
        }
        Some(old)
    }

    /// Moves a block to another place: the same entry's bytes, written anew.
    pub(crate) fn relocate(&mut self, chunk: ChunkId, block: u16, new: Mapping) -> Moved {
        let (number, at) = place(block);
        let key = (chunk, number as u8);
        let Some(page) = self.page_mut(key) else { return Moved::Nothing };
        let bytes = page.body.bytes();
        if let Some(old) = page.relocate(at, new) {
            let (after, first, out) = (page.body.bytes(), page.changes(), page.out);
            self.usage.add(after, bytes);
            if first {
                self.note_changed(key, out);
            }
            if out {
                self.moved.insert((key, at));
            }
            return Moved::From(old);
        }
        if !page.out {
            return Moved::Nothing;
        }
        let first = page.changes();
        self.moves.entry(key).or_default().push((at, new));
        if first {
            self.note_changed(key, true);
        }
        Moved::Later
    }

    fn page_or_new(&mut self, key: PageKey) -> &mut Page {
        let pages = self.chunks.entry(key.0).or_insert_with(|| Box::new([const { None }; PAGES]));
        let page = &mut pages[usize::from(key.1)];
        if page.is_none() {
            self.pages += 1;
            self.clock.push_back(key);
        }
        page.get_or_insert_with(Page::new)
    }

    /// Notes that a page differs from what its slot holds now.
    fn note_changed(&mut self, key: PageKey, out: bool) {
        self.dirty.push(key);
        self.usage.dirty.set(self.usage.dirty.get() + 1);
        if out {
            self.wanted.push(key);
        }
        if self.clock.len() > 2 * self.pages + PAGES {
            self.tidy_clock();
        }
    }

    /// The slot that the newest written version of a page lies in.
    pub(crate) fn slot_of(&self, key: PageKey) -> Option<u32> {
        self.page(key)?.slot()
    }

    pub(crate) fn has_page(&self, key: PageKey) -> bool {
        self.page(key).is_some()
    }

    pub(crate) fn page(&self, (chunk, number): PageKey) -> Option<&Page> {
        self.chunks.get(&chunk)?[usize::from(number)].as_ref()
    }

    pub(crate) fn page_mut(&mut self, (chunk, number): PageKey) -> Option<&mut Page> {
        self.chunks.get_mut(&chunk)?[usize::from(number)].as_mut()
    }

    /// Writes a page that is in memory and has changed into `out`, as it goes to the device; false
    /// when there is none.
    pub(crate) fn encode_page(
        &mut self,
        key: PageKey,
        region: u64,
        copyset: CopysetId,
        out: &mut Vec<u8>,
    ) -> bool {
        let page = self.page_mut(key).filter(|page| page.dirty && !page.out);
        let Some(page) = page else { return false };
        let before = page.body.bytes();
        page.body.compact();
        page.encode(region, copyset, key, out);
        let after = page.body.bytes();
        self.usage.add(after, before);
        true
    }

    /// Notes that these bytes of a page are being written to a slot; where it lay before.
    pub(crate) fn written_to(&mut self, key: PageKey, slot: u32, bytes: &[u8]) -> Option<u32> {
        self.usage.dirty.set(self.usage.dirty.get() - 1);
        self.page_mut(key).expect("the caller has it").written_to(slot, bytes)
    }

    /// Puts in a page that lies in a slot and is not in memory; false when it is here already.
    pub(crate) fn insert_out(&mut self, (chunk, number): PageKey, slot: u32) -> bool {
        let pages = self.chunks.entry(chunk).or_insert_with(|| Box::new([const { None }; PAGES]));
        let page = &mut pages[usize::from(number)];
        if page.is_some() {
            return false;
        }
        *page = Some(Page::out(slot));
        self.pages += 1;
        true
    }

    /// Moves blocks of a page that was read from its slot as they were moved while it was out. What
    /// is left over: the places before, and those of moves that came too late.
    pub(crate) fn make_moves(&mut self, key: PageKey, read: &mut Page) -> Vec<(u16, Mapping)> {
        let first = u16::from(key.1) * PAGE_BLOCKS;
        let mut left = Vec::new();
        for (at, new) in self.moves.remove(&key).unwrap_or_default() {
            // What a checkpoint wrote may have been moved before: replay comes upon it again.
            let lost = read.relocate(at, new).unwrap_or(new);
            if lost.block() != read.body.get(at).block() {
                left.push((first + at, lost));
            }
        }
        left
    }

    /// Joins a page that is out with what was read from its slot. What loses: blocks with their
    /// mappings. Of each block the newest mapping stays, and of a version the place that it was
    /// moved to last, so that it does not matter how late this comes.
    pub(crate) fn join(&mut self, key: PageKey, mut read: Page) -> Vec<(u16, Mapping)> {
        let first = u16::from(key.1) * PAGE_BLOCKS;
        let mut lost = self.make_moves(key, &mut read);
        let moved: Vec<_> = self.moved.range((key, 0)..=(key, u16::MAX)).copied().collect();
        for at in &moved {
            self.moved.remove(at);
        }
        let page = self.page_mut(key).expect("pages that are read are here");
        assert!(page.out && page.slot() == read.slot(), "{key:?} is read from its slot");
        let known = page.mapped;
        let before = page.body.bytes();
        let since = page.come_in(read);
        since.each(|at, new| {
            let same = page.body.get(at).index == new.index && moved.contains(&(key, at));
            let old = match same {
                true => Some(page.body.move_to(at, new)),
                false => page.body.set(at, new),
            };
            let (has, had) = (new.block().is_some(), old.is_some_and(|m| m.block().is_some()));
            page.mapped -= u16::from(had);
            page.mapped += u16::from(has && old.is_some());
            let loser = old.unwrap_or(new);
            if loser.block().is_some() && loser.block() != page.body.get(at).block() {
                lost.push((first + at, loser));
            }
        });
        let (after, mapped) = (page.body.bytes(), page.mapped);
        self.usage.add(after, before);
        self.mapped = self.mapped + u64::from(mapped) - u64::from(known);
        self.clock.push_back(key);
        lost
    }

    /// Lets a page leave memory; false when its slot does not hold all of it.
    pub(crate) fn let_out(&mut self, key: PageKey) -> bool {
        let Some(page) = self.page_mut(key).filter(|page| page.can_go()) else { return false };
        let bytes = page.body.bytes();
        page.go();
        self.usage.add(0, bytes);
        if self.clock.back() == Some(&key) {
            self.clock.pop_back();
        }
        true
    }

    /// Moves the clock's hand by one page: one that was not used since the hand came by, and lies
    /// in its slot, leaves memory. False when there is no page in memory.
    pub(crate) fn turn_clock(&mut self) -> bool {
        let Some(key) = self.clock.pop_front() else { return false };
        let Some(page) = self.page(key).filter(|page| !page.out) else { return true };
        if page.used.replace(false) || !self.let_out(key) {
            self.clock.push_back(key);
        }
        true
    }

    fn tidy_clock(&mut self) {
        let mut clock = std::mem::take(&mut self.clock);
        let mut seen = std::collections::BTreeSet::new();
        clock.retain(|&key| self.page(key).is_some_and(|page| !page.out) && seen.insert(key));
        self.clock = clock;
    }

    /// Takes the list of pages that changed; some may be gone.
    pub(crate) fn take_dirty(&mut self) -> Vec<PageKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes the list of pages that must be read, to be joined with what came since.
    pub(crate) fn take_wanted(&mut self) -> Vec<PageKey> {
        std::mem::take(&mut self.wanted)
    }

    /// Pages that a write of `range` would add.
    pub(crate) fn pages_missing(
        &self,
        chunk: ChunkId,
        range: BlockRange,
    ) -> impl Iterator<Item = PageKey> + '_ {
        pages_of(chunk, range).filter(|&key| !self.has_page(key))
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Blocks that hold data.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Chunk ids in order.
    pub(crate) fn chunks_after(
        &self,
        after: Option<ChunkId>,
    ) -> impl Iterator<Item = ChunkId> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.chunks.range((from, Unbounded)).map(|(&id, _)| id)
    }

    /// The pages of a chunk with their numbers, in order.
    pub(crate) fn pages_in(&self, chunk: ChunkId) -> impl Iterator<Item = (u8, &Page)> {
        let pages = self.chunks.get(&chunk).into_iter().flat_map(|pages| pages.iter().enumerate());
        pages.filter_map(|(n, page)| Some((n as u8, page.as_ref()?)))
    }

    /// All pages with their keys, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PageKey, &Page)> {
        let chunks = self.chunks.keys();
        chunks.flat_map(|&chunk| self.pages_in(chunk).map(move |(n, page)| ((chunk, n), page)))
    }

    /// All blocks that are not empty, in order, as far as memory knows.
    pub(crate) fn blocks(&self, chunk: ChunkId) -> impl Iterator<Item = (u16, Mapping)> + '_ {
        self.pages_in(chunk).flat_map(|(n, page)| {
            let first = u16::from(n) * PAGE_BLOCKS;
            let all = (0..PAGE_BLOCKS).map(move |at| (first + at, page.body.get(at)));
            all.filter(|(_, m)| m.block != EMPTY)
        })
    }

    /// Removes a chunk.
    pub(crate) fn remove(&mut self, chunk: ChunkId) -> Removed {
        let mut removed = Removed::default();
        let Some(pages) = self.chunks.remove(&chunk) else { return removed };
        self.moved.retain(|((of, _), _)| *of != chunk);
        for (number, page) in (0..).zip(*pages) {
            let Some(page) = page else { continue };
            let moves = self.moves.remove(&(chunk, number)).unwrap_or_default();
            let first = u16::from(number) * PAGE_BLOCKS;
            removed.blocks.extend(moves.into_iter().map(|(at, new)| (first + at, new)));
            removed.blocks.extend(page.stored(number));
            self.pages -= 1;
            self.mapped -= u64::from(page.mapped);
            self.usage.add(0, page.body.bytes());
            self.usage.dirty.set(self.usage.dirty.get() - usize::from(page.dirty));
            match page.slot() {
                Some(slot) if page.out => {
                    let (mapped, fetch, sum) = (page.mapped, page.fetch, page.sum());
                    removed.out.push(OutPage { key: (chunk, number), slot, sum, mapped, fetch });
                }
                slot => removed.slots.extend(slot),
            }
        }
        removed
    }

    /// Chunks of a volume.
    pub(crate) fn chunks_of(&self, volume: VolumeId) -> Vec<ChunkId> {
        let ends = |number| ChunkId { volume, number };
        self.chunks.range(ends(0)..=ends(u32::MAX)).map(|(&id, _)| id).collect()
    }
}

/// A map that goes as a whole takes nothing any more.
impl Drop for Map {
    fn drop(&mut self) {
        for page in self.chunks.values().flat_map(|pages| pages.iter().flatten()) {
            self.usage.add(0, page.body.bytes());
            self.usage.dirty.set(self.usage.dirty.get() - usize::from(page.dirty));
        }
    }
}

/// The pages that `range` lies in.
fn pages_of(chunk: ChunkId, range: BlockRange) -> impl Iterator<Item = PageKey> {
    let (first, last) = (range.start() / PAGE_BLOCKS, (range.end() - 1) / PAGE_BLOCKS);
    (first..=last).map(move |n| (chunk, n as u8))
}

#[cfg(test)]
mod tests;
