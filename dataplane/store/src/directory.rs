//! The directory of a checkpoint: the state of every replica at the checkpoint's start, and where
//! its map pages lie.
//!
//! | part | fields (little endian, one after the other) |
//! |---|---|
//! | head | magic `OGDR` · version u32 · region u64 · n * replica · chunks, the last with 0 pages and nothing else |
//! | replica | copyset u32 · bytes u32 · state · applied at the end u64 |
//! | state | applied index u64 · applied term u64 · term u64 · voted u8 · shard · n * shard (members) · n * (volume u64 · epoch u64) · n * (bytes u32 · Entry record) |
//! | chunk | pages u32 · copyset u32 · volume u64 · chunk u32 · sn u64 (0: the volume as it is) · pages * page |
//! | page | number u8 · slot u32 · checksum u32 |
//!
//! In versions 1 and 2, instead of the chunks: n * (copyset u32 · volume u64 · chunk u32 · number
//! u8 · slot u32 · checksum u32, which version 1 does not have).
//!
//! The checksum of a page is what its bytes begin with. It binds the place to this very version: an
//! older one of the same page (its write was lost, or went elsewhere) is whole in itself.
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
const CHUNK_HEAD_BYTES: usize = 28;
const PAGE_PLACE_BYTES: usize = 9;
/// Bytes of a page's place in version 1; version 2 adds its checksum.
const PLACE_BYTES_V1: usize = 21;

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

/// Bytes that the state of a replica takes at the most, with so many bytes of records that are not
/// applied.
pub(crate) fn state_max(replica: &Replica) -> usize {
    let unapplied = replica.last().index.0 - replica.applied.index.0;
    64 + 6 * replica.members.len() + 16 * replica.fences.len() + 4 * unapplied as usize
}

/// Bytes of a directory with so many bytes of states, and so many pages, rounded up as it is
/// written.
pub(crate) fn size_max(states: usize, pages: usize) -> u64 {
    let each = CHUNK_HEAD_BYTES + PAGE_PLACE_BYTES;
    ((24 + states + pages * each) as u64).next_multiple_of(4096)
}

/// Encodes the head of a directory, from states made with `encode_state` and the applied indexes of
/// now.
pub(crate) fn encode_head(region: u64, states: &[(CopysetId, Vec<u8>, Index)]) -> Vec<u8> {
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
    bytes
}

/// Encodes where the pages of a chunk lie, each with its number, slot and checksum; nothing when
/// there are none.
pub(crate) fn encode_chunk(
    bytes: &mut Vec<u8>,
    copyset: CopysetId,
    chunk: ChunkId,
    places: impl Iterator<Item = (u8, u32, u32)>,
) {
    let start = bytes.len();
    let w = &mut Writer(bytes);
    w.u32(0);
    w.u32(copyset.0);
    w.u64(chunk.volume.0);
    w.u32(chunk.number);
    w.u64(0);
    let mut pages = 0u32;
    for (number, slot, sum) in places {
        w.u8(number);
        w.u32(slot);
        w.u32(sum);
        pages += 1;
    }
    match pages {
        0 => bytes.truncate(start),
        _ => bytes[start..start + 4].copy_from_slice(&pages.to_le_bytes()),
    }
}

/// Encodes that no chunk follows.
pub(crate) fn encode_end(bytes: &mut Vec<u8>) {
    Writer(bytes).u32(0);
}

/// Decodes a directory whose checksum was right.
pub(crate) fn decode(bytes: &[u8], region: u64) -> Result<(Vec<State>, Vec<PagePlace>), Malformed> {
    let r = &mut Reader(bytes);
    let (magic, version) = (r.bytes(4)?, r.u32()?);
    let known = (VERSION_MIN..=VERSION).contains(&version);
    if magic != MAGIC || !known || r.u64()? != region {
        return Err(Malformed);
    }
    let n = r.count(16)?;
    let states = (0..n).map(|_| decode_state(r)).collect::<Result<_, _>>()?;
    let pages = match version {
        1 | 2 => {
            let has_sums = version > 1;
            let n = r.count(PLACE_BYTES_V1 + if has_sums { 4 } else { 0 })?;
            (0..n).map(|_| decode_page(r, has_sums)).collect::<Result<_, _>>()?
        }
        _ => decode_chunks(r)?,
    };
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

fn decode_chunks(r: &mut Reader) -> Result<Vec<PagePlace>, Malformed> {
    let mut places = Vec::new();
    loop {
        let pages = r.u32()?;
        if pages == 0 {
            return Ok(places);
        }
        let copyset = CopysetId(r.u32()?);
        let chunk = ChunkId { volume: VolumeId(r.u64()?), number: r.u32()? };
        if r.u64()? != 0 {
            return Err(Malformed); // a snapshot's, of a version to come
        }
        for _ in 0..pages {
            let (number, slot, sum) = (r.u8()?, r.u32()?, Some(r.u32()?));
            if usize::from(number) >= PAGES {
                return Err(Malformed);
            }
            places.push(PagePlace { copyset, key: (chunk, number), slot, sum });
        }
    }
}

/// Of versions 1 and 2.
fn decode_page(r: &mut Reader, has_sum: bool) -> Result<PagePlace, Malformed> {
    let copyset = CopysetId(r.u32()?);
    let chunk = ChunkId { volume: VolumeId(r.u64()?), number: r.u32()? };
    let (number, slot) = (r.u8()?, r.u32()?);
    let sum = if has_sum { Some(r.u32()?) } else { None };
    let place = PagePlace { copyset, key: (chunk, number), slot, sum };
    (usize::from(number) < PAGES).then_some(place).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use ogive_types::message::Op;
    use ogive_types::{BlockRange, BlockSum, ChunkserverId};

    use super::*;
    use crate::golden::golden;
    use crate::record::Extent;
    use crate::replica::LogEntry;

    const REGION: u64 = 77;
    const ID: CopysetId = CopysetId(4);

    fn chunk(number: u32) -> ChunkId {
        ChunkId { volume: VolumeId(9), number }
    }

    /// A replica with one entry that is not applied.
    fn replica() -> Replica {
        let member = |n| ShardAddr { server: ChunkserverId(n), shard: 1 };
        let mut replica = Replica::new(vec![member(1), member(2)], 0, &Rc::default());
        replica.hard = HardState { term: Term(3), voted_for: Some(member(2)) };
        replica.prev = LogPos { term: Term(2), index: Index(40) };
        replica.applied = replica.prev;
        replica.fences.insert(VolumeId(9), Epoch(5));
        let range = BlockRange::new(3, 1).expect("within a chunk");
        replica.entries.push_back(LogEntry {
            term: Term(3),
            op: Op::Write { chunk: chunk(1), range, sums: vec![BlockSum(6)] },
            payload: None,
            extents: vec![Extent { block: 8, blocks: 1 }],
            orphans: Vec::new(),
            pages_reserved: 0,
            seq: 0,
            record_bytes: 0,
        });
        replica
    }

    fn sample() -> Vec<u8> {
        let state = (ID, encode_state(ID, &replica()), Index(41));
        let mut bytes = encode_head(REGION, &[state]);
        encode_chunk(&mut bytes, ID, chunk(0), [(0, 17, 70), (15, 3, 71)].into_iter());
        encode_chunk(&mut bytes, ID, chunk(1), [].into_iter());
        encode_chunk(&mut bytes, ID, chunk(2), [(7, 5, 72)].into_iter());
        encode_end(&mut bytes);
        bytes
    }

    #[test]
    fn the_format_stays() {
        let bytes = sample();
        golden("directory", &bytes);
        let (states, pages) = decode(&bytes, REGION).expect("just encoded");
        let place = |(key, slot, sum)| PagePlace { copyset: ID, key, slot, sum: Some(sum) };
        let places = [((chunk(0), 0), 17, 70), ((chunk(0), 15), 3, 71), ((chunk(2), 7), 5, 72)];
        assert_eq!(pages, places.map(place));
        assert_eq!((states.len(), states[0].entries.len()), (1, 1));
        assert_eq!((states[0].hard, states[0].applied_at_end), (replica().hard, Index(41)));
        let size = size_max(state_max(&replica()) + 60, pages.len());
        assert!(bytes.len() as u64 <= size, "what a checkpoint expects is enough");
        assert_eq!(decode(&bytes, REGION + 1), Err(Malformed), "another region's");
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len], REGION), Err(Malformed), "{len} bytes");
        }
    }
}
