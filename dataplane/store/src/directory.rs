//! The directory of a checkpoint: the state of every replica at the checkpoint's start, and where
//! its map pages lie.
//!
//! | part | fields (little endian, one after the other) |
//! |---|---|
//! | head | magic `OGDR` · version u32 · region u64 · n * replica · n * page |
//! | replica | copyset u32 · bytes u32 · state · applied at the end u64 |
//! | state | applied index u64 · applied term u64 · term u64 · voted u8 · shard · n * shard (members) · n * (volume u64 · epoch u64) · n * (bytes u32 · Entry record) |
//! | page | copyset u32 · volume u64 · chunk u32 · number u8 · slot u32 · checksum u32 |
//!
//! The checksum of a page is what its bytes begin with. It binds the place to this very version: an
//! older one of the same page (its write was lost, or went elsewhere) is whole in itself. Version 1
//! does not have it.
//!
//! The superblock has its length and checksum. Why the applied index is there twice: the pages were
//! written while entries were applied. Recovery starts from the state at the checkpoint's start,
//! replays the log from there, and must apply at least as much as any of the pages may show, which
//! is what was applied at the end.

use ogive_types::{ChunkId, CopysetId, Epoch, Index, LogPos, ShardAddr, Term, VolumeId};

use crate::codec::{Malformed, Reader, Writer};
use crate::map::{PAGES, Page, PageKey, page_sum};
use crate::record::{Record, encode_entry, read_shard};
use crate::replica::{HardState, Replica};
use crate::superblock::{VERSION, VERSION_MIN};

const MAGIC: [u8; 4] = *b"OGDR";

/// State of a replica at a checkpoint's start.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) copyset: CopysetId,
    pub(crate) applied: LogPos,
    pub(crate) hard: HardState,
    pub(crate) members: Vec<ShardAddr>,
    pub(crate) fences: Vec<(VolumeId, Epoch)>,
    pub(crate) entries: Vec<Record>,
    pub(crate) applied_at_end: Index,
}

/// A page and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagePlace {
    pub(crate) copyset: CopysetId,
    pub(crate) key: PageKey,
    pub(crate) slot: u32,
    /// Checksum of this version of it; `None` in directories that do not say.
    pub(crate) sum: Option<u32>,
}

impl PagePlace {
    /// The page, if these bytes are this version of it.
    pub(crate) fn page(&self, bytes: &[u8], region: u64) -> Option<Page> {
        let page = Page::decode(bytes, region, self.copyset, self.key, self.slot)?;
        self.sum.is_none_or(|sum| sum == page_sum(bytes)).then_some(page)
    }
}

/// Bytes of a page's place.
const PLACE_BYTES: usize = 25;
/// And in version 1.
const PLACE_BYTES_V1: usize = 21;

/// Encodes the state of a replica.
pub(crate) fn encode_state(id: CopysetId, replica: &Replica) -> Vec<u8> {
    let mut bytes = Vec::new();
    let w = &mut Writer(&mut bytes);
    w.u64(replica.applied.index.0);
    w.u64(replica.applied.term.0);
    w.u64(replica.hard.term.0);
    w.u8(u8::from(replica.hard.voted_for.is_some()));
    write_shard(w, replica.hard.voted_for.unwrap_or_default());
    w.count(replica.members.len());
    replica.members.iter().for_each(|&m| write_shard(w, m));
    w.count(replica.fences.len());
    for (volume, epoch) in &replica.fences {
        w.u64(volume.0);
        w.u64(epoch.0);
    }
    let first = replica.applied.index.next();
    let unapplied = (first.0..).map_while(|i| Some((Index(i), replica.entry(Index(i))?)));
    let unapplied: Vec<_> = unapplied.collect();
    w.count(unapplied.len());
    let mut record = Vec::new();
    for (index, entry) in unapplied {
        record.clear();
        encode_entry(&mut Writer(&mut record), id, index, entry.term, &entry.op, &entry.extents);
        w.count(record.len());
        w.0.extend_from_slice(&record);
    }
    bytes
}

fn write_shard(w: &mut Writer, shard: ShardAddr) {
    w.u32(shard.server.0);
    w.u16(shard.shard);
}

/// Bytes of a directory with these states and so many pages, rounded up as it is written.
pub(crate) fn size_max<'a>(states: impl Iterator<Item = &'a [u8]>, pages: usize) -> u64 {
    let states: usize = states.map(|state| state.len() + 16).sum();
    ((24 + states + pages * PLACE_BYTES) as u64).next_multiple_of(4096)
}

/// Encodes a directory from states made with `encode_state` and the applied indexes of now.
pub(crate) fn encode(
    region: u64,
    states: &[(CopysetId, Vec<u8>, Index)],
    pages: &[PagePlace],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let w = &mut Writer(&mut bytes);
    w.0.extend_from_slice(&MAGIC);
    w.u32(VERSION);
    w.u64(region);
    w.count(states.len());
    for (copyset, state, applied_at_end) in states {
        w.u32(copyset.0);
        w.count(state.len());
        w.0.extend_from_slice(state);
        w.u64(applied_at_end.0);
    }
    w.count(pages.len());
    for place in pages {
        let (chunk, number) = place.key;
        w.u32(place.copyset.0);
        w.u64(chunk.volume.0);
        w.u32(chunk.number);
        w.u8(number);
        w.u32(place.slot);
        w.u32(place.sum.expect("known of every page in memory"));
    }
    bytes
}

/// Decodes a directory whose checksum was right.
pub(crate) fn decode(bytes: &[u8], region: u64) -> Result<(Vec<State>, Vec<PagePlace>), Malformed> {
    let r = &mut Reader(bytes);
    let (magic, version) = (r.bytes(4)?, r.u32()?);
    if magic != MAGIC || !(VERSION_MIN..=VERSION).contains(&version) || r.u64()? != region {
        return Err(Malformed);
    }
    let has_sums = version > 1;
    let n = r.count(16)?;
    let states = (0..n).map(|_| decode_state(r)).collect::<Result<_, _>>()?;
    let n = r.count(if has_sums { PLACE_BYTES } else { PLACE_BYTES_V1 })?;
    let pages = (0..n).map(|_| decode_page(r, has_sums)).collect::<Result<_, _>>()?;
    if !r.is_empty() {
        return Err(Malformed);
    }
    Ok((states, pages))
}

fn decode_state(r: &mut Reader) -> Result<State, Malformed> {
    let copyset = CopysetId(r.u32()?);
    let len = r.count(1)?;
    let s = &mut Reader(r.bytes(len)?);
    let applied = LogPos { index: Index(s.u64()?), term: Term(s.u64()?) };
    let term = Term(s.u64()?);
    let voted = s.u8()? == 1;
    let shard = read_shard(s)?;
    let hard = HardState { term, voted_for: voted.then_some(shard) };
    let n = s.count(6)?;
    let members = (0..n).map(|_| read_shard(s)).collect::<Result<_, _>>()?;
    let n = s.count(16)?;
    let pair = |s: &mut Reader| Ok((VolumeId(s.u64()?), Epoch(s.u64()?)));
    let fences = (0..n).map(|_| pair(s)).collect::<Result<_, Malformed>>()?;
    let n = s.count(4)?;
    let entries = (0..n).map(|_| decode_entry(s)).collect::<Result<_, _>>()?;
    if !s.is_empty() {
        return Err(Malformed);
    }
    let applied_at_end = Index(r.u64()?);
    Ok(State { copyset, applied, hard, members, fences, entries, applied_at_end })
}

fn decode_entry(s: &mut Reader) -> Result<Record, Malformed> {
    let len = s.count(1)?;
    let record = &mut Reader(s.bytes(len)?);
    let entry = Record::decode(record)?;
    let whole = record.is_empty() && matches!(entry, Record::Entry { .. });
    whole.then_some(entry).ok_or(Malformed)
}

fn decode_page(r: &mut Reader, has_sum: bool) -> Result<PagePlace, Malformed> {
    let copyset = CopysetId(r.u32()?);
    let chunk = ChunkId { volume: VolumeId(r.u64()?), number: r.u32()? };
    let (number, slot) = (r.u8()?, r.u32()?);
    let sum = if has_sum { Some(r.u32()?) } else { None };
    let place = PagePlace { copyset, key: (chunk, number), slot, sum };
    (usize::from(number) < PAGES).then_some(place).ok_or(Malformed)
}
