//! Maps: which device block holds which block of a chunk, written by which entry.
//!
//! A page maps 256 blocks (1 MiB) of a chunk. One rule makes replay and deltas idempotent: a block
//! is changed only by an entry with a greater index than the one that wrote it.
//!
//! A page on the device (4096 bytes, little endian):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | crc32c of the rest |
//! | 4 | 4 | magic `OGMP` |
//! | 8 | 8 | region |
//! | 16 | 8 | volume |
//! | 24 | 4 | chunk number |
//! | 28 | 4 | copyset |
//! | 32 | 2 | page number within the chunk |
//! | 34 | 6 | zero |
//! | 40 | 24 | zero |
//! | 64 | 3840 | 256 entries: device block u32 (`0xffffffff` empty, `0xfffffffe` trimmed) · checksum u32 · index of 7 bytes |
//! | 3904 | 192 | zero |

use std::collections::BTreeMap;

use ogive_types::{BLOCKS_PER_CHUNK, BlockRange, BlockSum, ChunkId, CopysetId, Index, VolumeId};

use crate::codec::{Reader, Writer};

/// Blocks of one page.
pub(crate) const PAGE_BLOCKS: u16 = 256;
/// Pages of one chunk.
pub(crate) const PAGES: usize = (BLOCKS_PER_CHUNK / PAGE_BLOCKS) as usize;
/// Bytes of a page on the device.
pub(crate) const PAGE_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"OGMP";
const EMPTY: u32 = u32::MAX;
const TRIMMED: u32 = u32::MAX - 1;
const HEADER_BYTES: usize = 64;
/// Bytes of an index: at a million entries a second they last for two thousand years.
const INDEX_BYTES: usize = 7;
const ENTRY_BYTES: usize = 8 + INDEX_BYTES;
const _: () = assert!(HEADER_BYTES + PAGE_BLOCKS as usize * ENTRY_BYTES <= PAGE_BYTES);

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

pub(crate) struct Page {
    entries: Box<[Mapping; PAGE_BLOCKS as usize]>,
    /// Changed since it was last written to the device.
    pub(crate) dirty: bool,
    /// Where its last written version lies.
    pub(crate) slot: Option<u32>,
}

impl Page {
    fn new() -> Page {
        Page { entries: Box::new([Mapping::NONE; PAGE_BLOCKS as usize]), dirty: false, slot: None }
    }

    pub(crate) fn encode(&self, region: u64, copyset: CopysetId, key: PageKey, out: &mut Vec<u8>) {
        out.clear();
        let w = &mut Writer(out);
        w.u32(0);
        w.0.extend_from_slice(&MAGIC);
        w.u64(region);
        w.u64(key.0.volume.0);
        w.u32(key.0.number);
        w.u32(copyset.0);
        w.u16(u16::from(key.1));
        w.0.resize(HEADER_BYTES, 0);
        let w = &mut Writer(w.0);
        for m in self.entries.iter() {
            w.u32(m.block);
            w.u32(m.sum.0);
            let index = m.index.0.to_le_bytes();
            assert_eq!(index[INDEX_BYTES..], [0], "no log is so long");
            w.0.extend_from_slice(&index[..INDEX_BYTES]);
        }
        w.0.resize(PAGE_BYTES, 0);
        let crc = crc32c::crc32c(&w.0[4..]);
        w.0[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a page that must be the one named; `None` when it is not, or is damaged.
    pub(crate) fn decode(
        bytes: &[u8],
        region: u64,
        copyset: CopysetId,
        key: PageKey,
        slot: u32,
    ) -> Option<Page> {
        let r = &mut Reader(bytes);
        if bytes.len() != PAGE_BYTES || r.u32().ok()? != crc32c::crc32c(&bytes[4..]) {
            return None;
        }
        let magic = r.bytes(4).ok()?;
        let place = (r.u64().ok()?, r.u64().ok()?, r.u32().ok()?, r.u32().ok()?, r.u16().ok()?);
        let wanted = (region, key.0.volume.0, key.0.number, copyset.0, u16::from(key.1));
        if magic != MAGIC || place != wanted {
            return None;
        }
        let r = &mut Reader(&bytes[HEADER_BYTES..]);
        let mut page = Page { slot: Some(slot), ..Page::new() };
        for m in page.entries.iter_mut() {
            let (block, sum) = (r.u32().ok()?, r.u32().ok()?);
            let mut index = [0; 8];
            index[..INDEX_BYTES].copy_from_slice(r.bytes(INDEX_BYTES).ok()?);
            let index = u64::from_le_bytes(index);
            *m = Mapping { block, sum: BlockSum(sum), index: Index(index) };
        }
        Some(page)
    }
}

/// The pages of one replica.
#[derive(Default)]
pub(crate) struct Map {
    chunks: BTreeMap<ChunkId, Box<[Option<Page>; PAGES]>>,
    pages: usize,
    mapped: u64,
}

fn place(block: u16) -> (usize, usize) {
    (usize::from(block / PAGE_BLOCKS), usize::from(block % PAGE_BLOCKS))
}

impl Map {
    /// The mapping of one block; of an unknown one, none with index 0.
    pub(crate) fn get(&self, chunk: ChunkId, block: u16) -> Mapping {
        let (page, at) = place(block);
        let page = self.chunks.get(&chunk).and_then(|pages| pages[page].as_ref());
        page.map_or(Mapping::NONE, |page| page.entries[at])
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
        let old = page.entries[at];
        if new.index <= old.index {
            return None;
        }
        page.entries[at] = new;
        page.dirty = true;
        self.mapped += u64::from(new.block().is_some());
        self.mapped -= u64::from(old.block().is_some());
        Some(old)
    }

    /// Moves a block to another place: the same entry's bytes, written anew. The mapping replaced,
    /// or `None` when the map has another version of the block, or none.
    pub(crate) fn relocate(&mut self, chunk: ChunkId, block: u16, new: Mapping) -> Option<Mapping> {
        let (number, at) = place(block);
        let page = self.page_mut((chunk, number as u8))?;
        let old = page.entries[at];
        old.block().filter(|_| (old.index, old.sum) == (new.index, new.sum))?;
        page.entries[at] = new;
        page.dirty = true;
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
        self.chunks.get(&chunk)?[usize::from(number)].as_ref()?.slot
    }

    pub(crate) fn has_page(&self, (chunk, number): PageKey) -> bool {
        self.chunks.get(&chunk).is_some_and(|pages| pages[usize::from(number)].is_some())
    }

    pub(crate) fn page_mut(&mut self, (chunk, number): PageKey) -> Option<&mut Page> {
        self.chunks.get_mut(&chunk)?[usize::from(number)].as_mut()
    }

    /// Puts in a page that was read from the device.
    pub(crate) fn insert(&mut self, (chunk, number): PageKey, page: Page) {
        self.mapped += page.entries.iter().filter(|m| m.block().is_some()).count() as u64;
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
            let used = page.entries.iter().enumerate().filter(|(_, m)| m.block != EMPTY);
            used.map(move |(at, &m)| (n * PAGE_BLOCKS + at as u16, m))
        })
    }

    /// Removes a chunk; its mappings and the slots of its pages.
    pub(crate) fn remove(&mut self, chunk: ChunkId) -> (Vec<(u16, Mapping)>, Vec<u32>) {
        let blocks: Vec<_> = self.blocks(chunk).filter(|(_, m)| m.block().is_some()).collect();
        let pages = self.chunks.remove(&chunk);
        let pages = pages.iter().flat_map(|p| p.iter().flatten());
        let slots = pages.clone().filter_map(|p| p.slot).collect();
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
mod tests {
    use super::*;

    const CHUNK: ChunkId = ChunkId { volume: VolumeId(1), number: 2 };

    fn mapping(block: u32, index: u64) -> Mapping {
        Mapping::stored(block, BlockSum(block ^ 5), Index(index))
    }

    #[test]
    fn only_newer_entries_change_a_block() {
        let mut map = Map::default();
        assert!(map.set(CHUNK, 300, mapping(7, 10)).is_some_and(|old| old.block().is_none()));
        assert_eq!(map.set(CHUNK, 300, mapping(8, 10)), None, "the same entry again");
        assert_eq!(map.set(CHUNK, 300, mapping(8, 9)), None, "an older one");
        assert_eq!(map.set(CHUNK, 300, Mapping::trimmed(Index(11))), Some(mapping(7, 10)));
        assert_eq!(map.set(CHUNK, 300, mapping(8, 10)), None, "a trim is remembered");
        assert_eq!((map.mapped(), map.pages()), (0, 1));
        assert_eq!(map.trim(CHUNK, 4000, Index(12)), None, "nothing to trim");
        assert_eq!(map.pages(), 1);
    }

    #[test]
    fn only_the_same_version_of_a_block_is_relocated() {
        let mut map = Map::default();
        map.set(CHUNK, 300, mapping(7, 10));
        let same = |place, index| Mapping::stored(place, BlockSum(7 ^ 5), Index(index));
        assert_eq!(map.relocate(CHUNK, 300, same(9, 11)), None, "of another entry");
        assert_eq!(map.relocate(CHUNK, 300, mapping(9, 10)), None, "of other bytes");
        assert_eq!(map.relocate(CHUNK, 301, same(9, 10)), None, "nothing is there");
        map.page_mut((CHUNK, 1)).unwrap().dirty = false;
        assert_eq!(map.relocate(CHUNK, 300, same(9, 10)), Some(mapping(7, 10)));
        assert_eq!(map.get(CHUNK, 300), same(9, 10));
        assert!(map.page_mut((CHUNK, 1)).unwrap().dirty, "the next checkpoint writes it");
        assert_eq!(map.mapped(), 1);
        map.set(CHUNK, 300, Mapping::trimmed(Index(12)));
        assert_eq!(map.relocate(CHUNK, 300, same(9, 10)), None, "trimmed");
    }

    #[test]
    fn pages_round_trip_and_are_bound_to_their_place() {
        let mut map = Map::default();
        for (block, index) in [(0u16, 5u64), (255, (1 << 56) - 1), (100, 6)] {
            map.set(CHUNK, block, mapping(u32::from(block) + 1, index));
        }
        map.set(CHUNK, 100, Mapping::trimmed(Index(7)));
        let key = (CHUNK, 0);
        let mut bytes = Vec::new();
        map.page_mut(key).unwrap().encode(3, CopysetId(9), key, &mut bytes);
        let page = Page::decode(&bytes, 3, CopysetId(9), key, 1).unwrap();
        assert_eq!(
            crc32c::crc32c(&bytes[4..]),
            1_719_185_585,
            "a changed format needs a new version"
        );
        assert_eq!(page.entries, map.page_mut(key).unwrap().entries);
        let other = ChunkId { number: 3, ..CHUNK };
        assert!(Page::decode(&bytes, 3, CopysetId(9), (other, 0), 1).is_none());
        assert!(Page::decode(&bytes, 3, CopysetId(8), key, 1).is_none());
        assert!(Page::decode(&bytes, 4, CopysetId(9), key, 1).is_none());
        for at in [0, 5, 33, 70, 4095] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Page::decode(&bad, 3, CopysetId(9), key, 1).is_none(), "byte {at}");
        }
    }

    #[test]
    fn removing_a_chunk_gives_back_everything() {
        let mut map = Map::default();
        map.set(CHUNK, 1, mapping(1, 1));
        map.set(CHUNK, 4095, mapping(2, 2));
        let (blocks, slots) = map.remove(CHUNK);
        assert_eq!(blocks.iter().filter_map(|(_, m)| m.block()).collect::<Vec<_>>(), [1, 2]);
        assert!(slots.is_empty());
        assert_eq!((map.pages(), map.mapped()), (0, 0));
    }
}
