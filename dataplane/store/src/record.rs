//! Records of the log. None holds data: they name blocks and the checksums of what is in them.
//!
//! Fields are little endian and follow one another without gaps. `n *` means a u32 count, then so
//! many items.
//!
//! | record | kind (u8) | fields |
//! |---|---|---|
//! | Entry | 1 | copyset u32 · index u64 · term u64 · operation |
//! | Hard | 2 | copyset u32 · term u64 · voted u8 (0, 1) · shard |
//! | Applied | 3 | copyset u32 · index u64 |
//! | Create | 4 | copyset u32 · n * shard |
//! | Drop | 5 | copyset u32 |
//! | Delta | 6 | copyset u32 · n * dropped chunk · n * piece |
//! | Reset | 7 | copyset u32 · index u64 · term u64 · n * (volume u64 · epoch u64) |
//! | Repair | 8 | copyset u32 · n * piece, all mapped: where blocks of these very entries lie now |
//!
//! | part | fields |
//! |---|---|
//! | shard | chunkserver u32 · shard u16 |
//! | chunk | volume u64 · number u32 |
//! | range | start u16 · blocks u16 |
//! | operation | 0: no-op; 1: write: chunk · range · stored; 2: trim: chunk · range; 3: fence: volume u64 · epoch u64; 4: drop volume: volume u64 |
//! | stored | n * (block u32 · blocks u16) · one checksum u32 per block of the range |
//! | piece | chunk · range · index u64 · mapped u8 (0, 1) · stored, if mapped |

use ogive_types::message::Op;
use ogive_types::{
    BlockRange, BlockSum, ChunkId, ChunkserverId, CopysetId, Epoch, Index, LogPos, ShardAddr, Term,
    VolumeId,
};

use crate::codec::{Malformed, Reader, Writer};
use crate::replica::HardState;

/// Neighbouring blocks of the data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) block: u32,
    pub(crate) blocks: u16,
}

impl Extent {
    pub(crate) fn iter(self) -> impl Iterator<Item = u32> {
        self.block..self.block + u32::from(self.blocks)
    }
}

/// Blocks that an entry of an index wrote (or, without `stored`, trimmed), as a delta brings them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) chunk: ChunkId,
    pub(crate) range: BlockRange,
    pub(crate) index: Index,
    pub(crate) stored: Option<(Vec<Extent>, Vec<BlockSum>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Entry { copyset: CopysetId, index: Index, term: Term, op: Op, extents: Vec<Extent> },
    Hard { copyset: CopysetId, hard: HardState },
    Applied { copyset: CopysetId, index: Index },
    Create { copyset: CopysetId, members: Vec<ShardAddr> },
    Drop { copyset: CopysetId },
    Delta { copyset: CopysetId, dropped: Vec<ChunkId>, pieces: Vec<Piece> },
    Reset { copyset: CopysetId, upto: LogPos, fences: Vec<(VolumeId, Epoch)> },
    Repair { copyset: CopysetId, pieces: Vec<Piece> },
}

impl Record {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let w = &mut Writer(out);
        match self {
            Record::Entry { copyset, index, term, op, extents } => {
                encode_entry(w, *copyset, *index, *term, op, extents);
            }
            Record::Hard { copyset, hard } => {
                w.u8(2);
                w.u32(copyset.0);
                w.u64(hard.term.0);
                w.u8(u8::from(hard.voted_for.is_some()));
                shard(w, hard.voted_for.unwrap_or_default());
            }
            Record::Applied { copyset, index } => {
                w.u8(3);
                w.u32(copyset.0);
                w.u64(index.0);
            }
            Record::Create { copyset, members } => {
                w.u8(4);
                w.u32(copyset.0);
                w.count(members.len());
                members.iter().for_each(|&m| shard(w, m));
            }
            Record::Drop { copyset } => {
                w.u8(5);
                w.u32(copyset.0);
            }
            Record::Delta { copyset, dropped, pieces } => {
                encode_delta(w, *copyset, dropped, pieces);
            }
            Record::Reset { copyset, upto, fences } => {
                w.u8(7);
                w.u32(copyset.0);
                w.u64(upto.index.0);
                w.u64(upto.term.0);
                w.count(fences.len());
                for (volume, epoch) in fences {
                    w.u64(volume.0);
                    w.u64(epoch.0);
                }
            }
            Record::Repair { copyset, pieces } => encode_repair(w, *copyset, pieces),
        }
    }

    /// Reads one record from the front of `r`.
    pub(crate) fn decode(r: &mut Reader) -> Result<Record, Malformed> {
        let kind = r.u8()?;
        let copyset = CopysetId(r.u32()?);
        Ok(match kind {
            1 => {
                let (index, term) = (Index(r.u64()?), Term(r.u64()?));
                let (op, extents) = read_op(r)?;
                Record::Entry { copyset, index, term, op, extents }
            }
            2 => {
                let term = Term(r.u64()?);
                let voted = read_flag(r)?;
                let shard = read_shard(r)?;
                let hard = HardState { term, voted_for: voted.then_some(shard) };
                Record::Hard { copyset, hard }
            }
            3 => Record::Applied { copyset, index: Index(r.u64()?) },
            4 => {
                let n = r.count(6)?;
                let members = (0..n).map(|_| read_shard(r)).collect::<Result<_, _>>()?;
                Record::Create { copyset, members }
            }
            5 => Record::Drop { copyset },
            6 => {
                let n = r.count(12)?;
                let dropped = (0..n).map(|_| read_chunk(r)).collect::<Result<_, _>>()?;
                Record::Delta { copyset, dropped, pieces: read_pieces(r)? }
            }
            7 => {
                let upto = LogPos { index: Index(r.u64()?), term: Term(r.u64()?) };
                let n = r.count(16)?;
                let pair = |r: &mut Reader| Ok((VolumeId(r.u64()?), Epoch(r.u64()?)));
                let fences = (0..n).map(|_| pair(r)).collect::<Result<_, _>>()?;
                Record::Reset { copyset, upto, fences }
            }
            8 => Record::Repair { copyset, pieces: read_stored_pieces(r)? },
            _ => return Err(Malformed),
        })
    }
}

/// Encodes an entry without building a [`Record`] first: the hot path.
pub(crate) fn encode_entry(
    w: &mut Writer,
    copyset: CopysetId,
    index: Index,
    term: Term,
    op: &Op,
    extents: &[Extent],
) {
    w.u8(1);
    w.u32(copyset.0);
    w.u64(index.0);
    w.u64(term.0);
    match op {
        Op::Noop => w.u8(0),
        Op::Write { chunk: c, range: r, sums } => {
            w.u8(1);
            chunk(w, *c);
            range(w, *r);
            stored(w, extents, sums);
        }
        Op::Trim { chunk: c, range: r } => {
            w.u8(2);
            chunk(w, *c);
            range(w, *r);
        }
        Op::Fence { volume, epoch } => {
            w.u8(3);
            w.u64(volume.0);
            w.u64(epoch.0);
        }
        Op::DropVolume { volume } => {
            w.u8(4);
            w.u64(volume.0);
        }
    }
}

/// Encodes a page of a delta.
pub(crate) fn encode_delta(
    w: &mut Writer,
    copyset: CopysetId,
    dropped: &[ChunkId],
    pieces: &[Piece],
) {
    w.u8(6);
    w.u32(copyset.0);
    w.count(dropped.len());
    dropped.iter().for_each(|&c| chunk(w, c));
    w.count(pieces.len());
    pieces.iter().for_each(|p| piece(w, p));
}

/// Encodes where repaired blocks lie.
pub(crate) fn encode_repair(w: &mut Writer, copyset: CopysetId, pieces: &[Piece]) {
    w.u8(8);
    w.u32(copyset.0);
    w.count(pieces.len());
    pieces.iter().for_each(|p| piece(w, p));
}

fn shard(w: &mut Writer, s: ShardAddr) {
    w.u32(s.server.0);
    w.u16(s.shard);
}

fn chunk(w: &mut Writer, c: ChunkId) {
    w.u64(c.volume.0);
    w.u32(c.number);
}

fn range(w: &mut Writer, r: BlockRange) {
    w.u16(r.start());
    w.u16(r.blocks());
}

fn stored(w: &mut Writer, extents: &[Extent], sums: &[BlockSum]) {
    w.count(extents.len());
    for e in extents {
        w.u32(e.block);
        w.u16(e.blocks);
    }
    sums.iter().for_each(|s| w.u32(s.0));
}

fn piece(w: &mut Writer, p: &Piece) {
    chunk(w, p.chunk);
    range(w, p.range);
    w.u64(p.index.0);
    w.u8(u8::from(p.stored.is_some()));
    if let Some((extents, sums)) = &p.stored {
        stored(w, extents, sums);
    }
}

fn read_flag(r: &mut Reader) -> Result<bool, Malformed> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

pub(crate) fn read_shard(r: &mut Reader) -> Result<ShardAddr, Malformed> {
    Ok(ShardAddr { server: ChunkserverId(r.u32()?), shard: r.u16()? })
}

fn read_chunk(r: &mut Reader) -> Result<ChunkId, Malformed> {
    Ok(ChunkId { volume: VolumeId(r.u64()?), number: r.u32()? })
}

fn read_range(r: &mut Reader) -> Result<BlockRange, Malformed> {
    BlockRange::new(r.u16()?, r.u16()?).ok_or(Malformed)
}

fn read_stored(
    r: &mut Reader,
    range: BlockRange,
) -> Result<(Vec<Extent>, Vec<BlockSum>), Malformed> {
    let n = r.count(6)?;
    let one = |r: &mut Reader| Ok(Extent { block: r.u32()?, blocks: r.u16()? });
    let extents: Vec<Extent> = (0..n).map(|_| one(r)).collect::<Result<_, Malformed>>()?;
    let blocks: usize = extents.iter().map(|e| usize::from(e.blocks)).sum();
    if blocks != usize::from(range.blocks()) {
        return Err(Malformed);
    }
    let sums = (0..blocks).map(|_| Ok(BlockSum(r.u32()?))).collect::<Result<_, Malformed>>()?;
    Ok((extents, sums))
}

fn read_op(r: &mut Reader) -> Result<(Op, Vec<Extent>), Malformed> {
    let op = match r.u8()? {
        0 => Op::Noop,
        1 => {
            let (chunk, range) = (read_chunk(r)?, read_range(r)?);
            let (extents, sums) = read_stored(r, range)?;
            return Ok((Op::Write { chunk, range, sums }, extents));
        }
        2 => Op::Trim { chunk: read_chunk(r)?, range: read_range(r)? },
        3 => Op::Fence { volume: VolumeId(r.u64()?), epoch: Epoch(r.u64()?) },
        4 => Op::DropVolume { volume: VolumeId(r.u64()?) },
        _ => return Err(Malformed),
    };
    Ok((op, Vec::new()))
}

fn read_pieces(r: &mut Reader) -> Result<Vec<Piece>, Malformed> {
    let n = r.count(25)?;
    (0..n).map(|_| read_piece(r)).collect()
}

fn read_stored_pieces(r: &mut Reader) -> Result<Vec<Piece>, Malformed> {
    let pieces = read_pieces(r)?;
    let stored = pieces.iter().all(|piece| piece.stored.is_some());
    stored.then_some(pieces).ok_or(Malformed)
}

fn read_piece(r: &mut Reader) -> Result<Piece, Malformed> {
    let (chunk, range, index) = (read_chunk(r)?, read_range(r)?, Index(r.u64()?));
    let stored = if read_flag(r)? { Some(read_stored(r, range)?) } else { None };
    Ok(Piece { chunk, range, index, stored })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::golden::golden;

    fn samples() -> Vec<Record> {
        let chunk = ChunkId { volume: VolumeId(9), number: 7 };
        let range = BlockRange::new(3, 2).unwrap();
        let extents = vec![Extent { block: 5, blocks: 1 }, Extent { block: 99, blocks: 1 }];
        let sums = vec![BlockSum(1), BlockSum(0xffff_ffff)];
        let addr = ShardAddr { server: ChunkserverId(3), shard: 1 };
        let copyset = CopysetId(4);
        let entry = |op: Op, extents: Vec<Extent>| Record::Entry {
            copyset,
            index: Index(8),
            term: Term(2),
            op,
            extents,
        };
        let stored = Some((extents.clone(), sums.clone()));
        let again = stored.clone();
        vec![
            entry(Op::Noop, vec![]),
            entry(Op::Write { chunk, range, sums }, extents),
            entry(Op::Trim { chunk, range }, vec![]),
            entry(Op::Fence { volume: VolumeId(1), epoch: Epoch(2) }, vec![]),
            entry(Op::DropVolume { volume: VolumeId(1) }, vec![]),
            Record::Hard { copyset, hard: HardState { term: Term(3), voted_for: Some(addr) } },
            Record::Hard { copyset, hard: HardState::default() },
            Record::Applied { copyset, index: Index(77) },
            Record::Create { copyset, members: vec![addr; 3] },
            Record::Drop { copyset },
            Record::Delta {
                copyset,
                dropped: vec![chunk],
                pieces: vec![
                    Piece { chunk, range, index: Index(5), stored },
                    Piece { chunk, range, index: Index(6), stored: None },
                ],
            },
            Record::Reset {
                copyset,
                upto: LogPos { term: Term(1), index: Index(2) },
                fences: vec![(VolumeId(1), Epoch(u64::MAX))],
            },
            Record::Repair {
                copyset,
                pieces: vec![Piece { chunk, range, index: Index(5), stored: again }],
            },
        ]
    }

    #[test]
    fn records_round_trip_one_after_the_other() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|r| r.encode(&mut bytes));
        let reader = &mut Reader(&bytes);
        for sample in samples() {
            assert_eq!(Record::decode(reader), Ok(sample));
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn the_format_stays() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|r| r.encode(&mut bytes));
        let (first, repair) = bytes.split_at(415);
        assert_eq!(crc32c::crc32c(first), 2_747_211_187, "a changed format needs a new version");
        assert_eq!(repair.len(), 58, "a changed format needs a new version");
        assert_eq!(crc32c::crc32c(repair), 722_111_605, "a changed format needs a new version");
        golden("records", &bytes);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let reader = &mut Reader(&bytes);
            while !reader.is_empty() && Record::decode(reader).is_ok() {}
        }
    }
}
