//! A page of a map, and what it looks like on the device: 4096 bytes, little endian.
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
//! | 34 | 1 | form: 0 wide, 1 runs, 2 dense |
//! | 35 | 1 | zero |
//! | 36 | 2 | runs |
//! | 38 | 2 | mapped blocks |
//! | 40 | 8 | base: what the offsets of indexes are added to |
//! | 48 | 8 | sn: the newest snapshot that this version belongs to; 0 for the volume as it is |
//! | 56 | 8 | zero |
//! | 64 | .. | mappings; zeroes to the end |
//!
//! Mappings of the forms runs and dense are the words of `body.rs`. Those of the wide form are 256
//! entries of 15 bytes: device block u32 (`0xffffffff` empty, `0xfffffffe` trimmed) · checksum u32
//! · index of 7 bytes. Pages of version 1 are all wide, and zero from 34 to 64.

use std::cell::Cell;

use ogive_types::{BlockSum, CopysetId, Index};

use super::body::{Body, DENSE, RUNS, WIDE};
use super::{EMPTY, Mapping, PAGE_BLOCKS, PageKey};
use crate::codec::{Reader, Writer};

/// Bytes of a page on the device.
pub(crate) const PAGE_BYTES: usize = 4096;
const MAGIC: [u8; 4] = *b"OGMP";
const HEADER_BYTES: usize = 64;
/// Bytes of an index: at a million entries a second they last for two thousand years.
const INDEX_BYTES: usize = 7;
const ENTRY_BYTES: usize = 8 + INDEX_BYTES;
const WIDE_BYTES: usize = PAGE_BLOCKS as usize * ENTRY_BYTES;
const _: () = assert!(HEADER_BYTES + WIDE_BYTES <= PAGE_BYTES);

/// Where no version of a page lies.
const NO_SLOT: u32 = u32::MAX;

/// The mappings of 256 blocks, and what the store knows of them.
///
/// A page that is *out* lies in its slot only. What is applied to it meanwhile is kept here, and
/// joined with it when it was read.
pub(crate) struct Page {
    /// All mappings; of a page that is out, those that came since.
    pub(super) body: Body,
    /// The newest index of its mappings; of a page that was never read, of those that came since.
    pub(crate) newest: Index,
    slot: u32,
    /// Checksum of that version.
    sum: u32,
    /// Mapped blocks; of a page that is out, without what came since.
    pub(crate) mapped: u16,
    /// Changed since it was last written to the device.
    pub(crate) dirty: bool,
    /// Not in memory.
    pub(crate) out: bool,
    /// The read that brings it in, while it is out.
    pub(crate) fetch: Option<u32>,
    /// Being written to its slot.
    pub(crate) writing: bool,
    /// Stays in memory for the sake of someone who asked for it and comes again.
    pub(crate) held: bool,
    /// Used since the clock's hand passed.
    pub(super) used: Cell<bool>,
}
const _: () = assert!(size_of::<Page>() <= 56);

impl Page {
    pub(super) fn new() -> Page {
        Page {
            body: Body::default(),
            newest: Index(0),
            slot: NO_SLOT,
            sum: 0,
            mapped: 0,
            dirty: false,
            out: false,
            fetch: None,
            writing: false,
            held: false,
            used: Cell::new(true),
        }
    }

    /// A page that lies in a slot and was not read yet.
    pub(super) fn out(slot: u32) -> Page {
        Page { slot, out: true, ..Page::new() }
    }

    /// One block as this version has it.
    pub(crate) fn get(&self, block: u16) -> Mapping {
        self.body.get(block % PAGE_BLOCKS)
    }

    /// May leave memory: its slot holds all of it.
    pub(super) fn can_go(&self) -> bool {
        let clean = !self.dirty && !self.writing;
        clean && !self.held && !self.out && self.slot != NO_SLOT && self.body.bytes() > 0
    }

    /// Notes a use and a change; whether it is the first since the page was written.
    pub(super) fn changes(&mut self) -> bool {
        self.used.set(true);
        !std::mem::replace(&mut self.dirty, true)
    }

    /// Moves a block to another place, if it is this very version of it; the mapping before.
    pub(super) fn relocate(&mut self, at: u16, new: Mapping) -> Option<Mapping> {
        let old = self.body.get(at);
        old.block().filter(|_| (old.index, old.sum) == (new.index, new.sum))?;
        self.body.replace(at, old, new);
        Some(old)
    }

    /// Comes into memory, as it was read; what was applied while it was out is returned.
    pub(super) fn come_in(&mut self, read: Page) -> Body {
        (self.out, self.fetch, self.mapped, self.sum) = (false, None, read.mapped, read.sum);
        self.newest = self.newest.max(read.newest);
        self.used.set(true);
        std::mem::replace(&mut self.body, read.body)
    }

    /// Leaves memory.
    pub(super) fn go(&mut self) {
        assert!(self.can_go(), "what leaves memory is on the device");
        self.body = Body::default();
        self.out = true;
    }

    /// Names the device blocks that it maps.
    pub(crate) fn each_stored(&self, mut name: impl FnMut(u32)) {
        self.body.each(|_, m| m.block().into_iter().for_each(&mut name));
    }

    /// Names its mappings that hold data, as blocks of the chunk.
    pub(crate) fn stored(&self, number: u8) -> Vec<(u16, Mapping)> {
        let first = u16::from(number) * PAGE_BLOCKS;
        let mut stored = Vec::with_capacity(usize::from(self.mapped));
        self.body.each(|at, m| {
            if m.block().is_some() {
                stored.push((first + at, m));
            }
        });
        stored
    }

    /// Where its last written version lies.
    pub(crate) fn slot(&self) -> Option<u32> {
        (self.slot != NO_SLOT).then_some(self.slot)
    }

    /// Checksum of its last written version.
    pub(crate) fn sum(&self) -> u32 {
        self.sum
    }

    /// Notes where these bytes of it are written to; where it lay before.
    pub(crate) fn written_to(&mut self, slot: u32, bytes: &[u8]) -> Option<u32> {
        let before = self.slot();
        self.slot = slot;
        self.sum = page_sum(bytes);
        self.dirty = false;
        self.writing = true;
        before
    }

    pub(super) fn encode(&self, region: u64, copyset: CopysetId, key: PageKey, out: &mut Vec<u8>) {
        let body = &self.body;
        out.clear();
        let w = &mut Writer(out);
        w.u32(0);
        w.0.extend_from_slice(&MAGIC);
        w.u64(region);
        w.u64(key.0.volume.0);
        w.u32(key.0.number);
        w.u32(copyset.0);
        w.u16(u16::from(key.1));
        w.u8(body.form());
        w.u8(0);
        w.u16(body.runs() as u16);
        w.u16(self.mapped);
        w.u64(body.base());
        w.0.resize(HEADER_BYTES, 0);
        match body.form() {
            WIDE => encode_wide(body, w),
            _ => body.payload().iter().for_each(|&word| w.u32(word)),
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
        let (mut page, mapped) = Self::mappings(bytes)?;
        page.slot = slot;
        page.sum = page_sum(bytes);
        page.count();
        mapped.is_none_or(|mapped| page.mapped == mapped).then_some(page)
    }

    /// The mappings of a page whose header is right, and how many blocks it says are mapped.
    fn mappings(bytes: &[u8]) -> Option<(Page, Option<u16>)> {
        let (head, payload) = bytes.split_at(HEADER_BYTES);
        let r = &mut Reader(&head[34..]);
        let (form, _) = (r.u8().ok()?, r.u8().ok()?);
        let (runs, mapped, base) = (r.u16().ok()?, r.u16().ok()?, r.u64().ok()?);
        let sn = r.u64().ok()?;
        if sn != 0 || mapped > PAGE_BLOCKS {
            return None;
        }
        let words = match form {
            WIDE => None,
            RUNS => Some(usize::from(runs) * 3 + usize::from(mapped)),
            DENSE => Some((3 * 256 + 64) * usize::from(runs == 0)),
            _ => return None,
        };
        let body = match words {
            None => decode_wide(payload)?,
            Some(words) => {
                let words = payload.get(..words * 4)?.chunks_exact(4);
                let words = words.map(|w| u32::from_le_bytes(w.try_into().expect("4 bytes")));
                Body::from_words(form, base, usize::from(runs), words)?
            }
        };
        let mapped = (form != WIDE).then_some(mapped);
        Some((Page { body, ..Page::new() }, mapped))
    }

    /// Counts its mapped blocks, and finds the newest index.
    fn count(&mut self) {
        let (mut mapped, mut newest) = (0, Index(0));
        self.body.each(|_, m| {
            mapped += u16::from(m.block().is_some());
            newest = newest.max(m.index);
        });
        (self.mapped, self.newest) = (mapped, newest);
    }
}

/// The checksum that a page's bytes begin with: it tells versions of a page from each other.
pub(crate) fn page_sum(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))
}

fn encode_wide(body: &Body, w: &mut Writer) {
    for m in body.mappings() {
        w.u32(m.block);
        w.u32(m.sum.0);
        let index = m.index.0.to_le_bytes();
        assert_eq!(index[INDEX_BYTES..], [0], "no log is so long");
        w.0.extend_from_slice(&index[..INDEX_BYTES]);
    }
}

fn decode_wide(payload: &[u8]) -> Option<Body> {
    let mut mappings = [Mapping::NONE; PAGE_BLOCKS as usize];
    let r = &mut Reader(payload);
    for m in &mut mappings {
        let (block, sum) = (r.u32().ok()?, r.u32().ok()?);
        let mut index = [0; 8];
        index[..INDEX_BYTES].copy_from_slice(r.bytes(INDEX_BYTES).ok()?);
        let index = Index(u64::from_le_bytes(index));
        if (block == EMPTY) != (index == Index(0)) {
            return None;
        }
        *m = Mapping { block, sum: BlockSum(sum), index };
    }
    Some(Body::build(&mappings))
}
