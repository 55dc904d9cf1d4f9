//! Maps: which device block holds which block of a chunk, written by which entry.
//!
//! A page maps 256 blocks (1 MiB) of a chunk. One rule makes replay and deltas idempotent: a block
//! is changed only by an entry with a greater index than the one that wrote it.
//!
//! `page.rs` has its bytes on the device, `body.rs` its forms.

mod body;
mod page;

use std::collections::BTreeMap;

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

/// The pages of one replica.
#[derive(Default)]
pub(crate) struct Map {
    chunks: BTreeMap<ChunkId, Box<[Option<Page>; PAGES]>>,
    pages: usize,
    mapped: u64,
    bytes: usize,
}

fn place(block: u16) -> (usize, u16) {
    (usize::from(block / PAGE_BLOCKS), block % PAGE_BLOCKS)
}

impl Map {
    /// The mapping of one block; of an unknown one, none with index 0.
    pub(crate) fn get(&self, chunk: ChunkId, block: u16) -> Mapping {
        let (page, at) = place(block);
        let page = self.chunks.get(&chunk).and_then(|pages| pages[page].as_ref());
        page.map_or(Mapping::NONE, |page| page.body.get(at))
    }

    /// Trims one block as [`Map::set`] does, but only where there is a page: an entry that is
    /// applied in order need not be remembered where nothing was ever written.
    pub(crate) fn trim(&mut self, chunk: ChunkId, block: u16, index: Index) -> Option<Mapping> {
        let (number, _) = place(block);
        self.has_page((chunk, number as u8)).then_some(())?;
        self.set(chunk, block, Mapping::trimmed(index))
    }

    /// Changes one block if `new` is newer; the mapping replaced, or `None` when nothing changed.
    pub(crate) fn set(&mut self, chunk: ChunkId, block: u16, new: Mapping) -> Option<Mapping> {
        let (number, at) = place(block);
        let page = self.page_or_new(chunk, number);
        let bytes = page.body.bytes();
        let old = page.body.set(at, new)?;
        page.dirty = true;
        let (has, had) = (new.block().is_some(), old.block().is_some());
        page.mapped = page.mapped + u16::from(has) - u16::from(had);
        let grown = page.body.bytes().wrapping_sub(bytes);
        self.mapped = self.mapped + u64::from(has) - u64::from(had);
        self.bytes = self.bytes.wrapping_add(grown);
        Some(old)
    }

    /// Moves a block to another place: the same entry's bytes, written anew. The mapping replaced,
    /// or `None` when the map has another version of the block, or none.
    pub(crate) fn relocate(&mut self, chunk: ChunkId, block: u16, new: Mapping) -> Option<Mapping> {
        let (number, at) = place(block);
        let page = self.page_mut((chunk, number as u8))?;
        let old = page.body.get(at);
        old.block().filter(|_| (old.index, old.sum) == (new.index, new.sum))?;
        let bytes = page.body.bytes();
        page.body.replace(at, old, new);
        page.dirty = true;
        let grown = page.body.bytes().wrapping_sub(bytes);
        self.bytes = self.bytes.wrapping_add(grown);
        Some(old)
    }

    fn page_or_new(&mut self, chunk: ChunkId, number: usize) -> &mut Page {
        let pages = self.chunks.entry(chunk).or_insert_with(|| Box::new([const { None }; PAGES]));
        if pages[number].is_none() {
            self.pages += 1;
        }
        pages[number].get_or_insert_with(Page::new)
    }

    /// The slot that the newest written version of a page lies in.
    pub(crate) fn slot_of(&self, (chunk, number): PageKey) -> Option<u32> {
        self.chunks.get(&chunk)?[usize::from(number)].as_ref()?.slot()
    }

    pub(crate) fn has_page(&self, (chunk, number): PageKey) -> bool {
        self.chunks.get(&chunk).is_some_and(|pages| pages[usize::from(number)].is_some())
    }

    pub(crate) fn page_mut(&mut self, (chunk, number): PageKey) -> Option<&mut Page> {
        self.chunks.get_mut(&chunk)?[usize::from(number)].as_mut()
    }

    /// Writes a page into `out` as it goes to the device; false when there is none.
    pub(crate) fn encode_page(
        &mut self,
        key: PageKey,
        region: u64,
        copyset: CopysetId,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(page) = self.page_mut(key) else { return false };
        let before = page.body.bytes();
        page.body.compact();
        page.encode(region, copyset, key, out);
        let after = page.body.bytes();
        self.bytes = self.bytes + after - before;
        true
    }

    /// Puts in a page that was read from the device.
    pub(crate) fn insert(&mut self, (chunk, number): PageKey, page: Page) {
        self.mapped += u64::from(page.mapped);
        self.bytes += page.body.bytes();
        let pages = self.chunks.entry(chunk).or_insert_with(|| Box::new([const { None }; PAGES]));
        assert!(pages[usize::from(number)].replace(page).is_none(), "each page is listed once");
        self.pages += 1;
    }

    /// Pages that a write of `range` would add.
    pub(crate) fn pages_missing(
        &self,
        chunk: ChunkId,
        range: BlockRange,
    ) -> impl Iterator<Item = PageKey> + '_ {
        let (first, last) = (range.start() / PAGE_BLOCKS, (range.end() - 1) / PAGE_BLOCKS);
        (first..=last).map(move |n| (chunk, n as u8)).filter(|&key| !self.has_page(key))
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Blocks that hold data.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Bytes of memory that the mappings take, without what holds the pages together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

    /// All pages with their keys, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PageKey, &Page)> {
        self.chunks.iter().flat_map(|(&chunk, pages)| {
            let pages = pages.iter().enumerate();
            pages.filter_map(move |(n, page)| Some(((chunk, n as u8), page.as_ref()?)))
        })
    }

    /// All blocks that are not empty, in order.
    pub(crate) fn blocks(&self, chunk: ChunkId) -> impl Iterator<Item = (u16, Mapping)> + '_ {
        let pages = self.chunks.get(&chunk).into_iter().flat_map(|pages| pages.iter().enumerate());
        pages.filter_map(|(n, page)| Some((n as u16, page.as_ref()?))).flat_map(|(n, page)| {
            let all = (0..PAGE_BLOCKS).map(move |at| (n * PAGE_BLOCKS + at, page.body.get(at)));
            all.filter(|(_, m)| m.block != EMPTY)
        })
    }

    /// Removes a chunk; its mappings and the slots of its pages.
    pub(crate) fn remove(&mut self, chunk: ChunkId) -> (Vec<(u16, Mapping)>, Vec<u32>) {
        let blocks: Vec<_> = self.blocks(chunk).filter(|(_, m)| m.block().is_some()).collect();
        let pages = self.chunks.remove(&chunk);
        let pages = pages.iter().flat_map(|p| p.iter().flatten());
        let slots = pages.clone().filter_map(Page::slot).collect();
        self.bytes -= pages.clone().map(|p| p.body.bytes()).sum::<usize>();
        self.pages -= pages.count();
        self.mapped -= blocks.len() as u64;
        (blocks, slots)
    }

    /// Chunks of a volume.
    pub(crate) fn chunks_of(&self, volume: VolumeId) -> Vec<ChunkId> {
        let ends = |number| ChunkId { volume, number };
        self.chunks.range(ends(0)..=ends(u32::MAX)).map(|(&id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests;
