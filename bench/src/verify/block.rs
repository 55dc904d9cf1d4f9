//! What a verifying run writes into a 4 KiB block, and what it makes of one that it reads.
//!
//! A block is eight sectors of 512 bytes, each whole in itself, so that a mixture of two writes
//! shows:
//!
//! | bytes of a sector | content, little-endian |
//! |---|---|
//! | 0..8 | magic XOR number of the sector (0 to 7) |
//! | 8..16 | run: tells blocks of this run from those of earlier ones |
//! | 16..24 | block number in the volume |
//! | 24..32 | sequence number of the write |
//! | 32..512 | SplitMix64 sequence seeded with all of the above |

use crate::rng::{Rng, mix};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
const SECTOR: usize = 512;
const HEADER: usize = 32;
/// "OGIVEBNC".
const MAGIC: u64 = 0x4f47_4956_4542_4e43;

/// Sequence number of a write within a run, from 1; larger is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seq(pub(crate) u64);

/// Number of a 4 KiB block of the volume.
pub(crate) type BlockNo = u64;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Exactly what that write put there.
    Written(Seq),
    /// Nothing of this run: zeroes or older data, with its hash.
    Foreign(u64),
    /// Sectors of different writes, or of this run and something else.
    Torn,
    /// A block of this run that belongs elsewhere.
    Misplaced(BlockNo),
    /// A block of this run with altered bytes; the first is at this place.
    Corrupt(usize),
}

/// Appends the block of one write.
pub(crate) fn fill(run: u64, block: BlockNo, seq: Seq, out: &mut Vec<u8>) {
    for sector in 0..(BLOCK / SECTOR) as u64 {
        out.extend_from_slice(&(MAGIC ^ sector).to_le_bytes());
        out.extend_from_slice(&run.to_le_bytes());
        out.extend_from_slice(&block.to_le_bytes());
        out.extend_from_slice(&seq.0.to_le_bytes());
        let seed = mix(run ^ mix(block ^ mix(seq.0 ^ mix(sector))));
        Rng::new(seed).fill(SECTOR - HEADER, out);
    }
}

/// Says what `data`, read from `block`, is.
pub(crate) fn classify(run: u64, block: BlockNo, data: &[u8], scratch: &mut Vec<u8>) -> Content {
    assert_eq!(data.len(), BLOCK);
    let mut marks = data.chunks_exact(SECTOR).enumerate().map(|(i, s)| mark(run, i as u64, s));
    let first = marks.next().flatten();
    let mut all_same = true;
    let mut any_ours = first.is_some();
    for other in marks {
        all_same &= other == first;
        any_ours |= other.is_some();
    }
    if !any_ours {
        return Content::Foreign(hash(data));
    }
    let (Some((home, seq)), true) = (first, all_same) else {
        return Content::Torn;
    };
    scratch.clear();
    fill(run, home, seq, scratch);
    if let Some(at) = data.iter().zip(scratch.iter()).position(|(a, b)| a != b) {
        return Content::Corrupt(at);
    }
    if home == block { Content::Written(seq) } else { Content::Misplaced(home) }
}

/// Block and write that a sector of this run names.
fn mark(run: u64, sector: u64, bytes: &[u8]) -> Option<(BlockNo, Seq)> {
    let word = |i: usize| {
        let word = bytes.get(i * 8..i * 8 + 8)?;
        Some(u64::from_le_bytes(*word.first_chunk::<8>()?))
    };
    let ours = word(0)? == MAGIC ^ sector && word(1)? == run;
    if ours { Some((word(2)?, Seq(word(3)?))) } else { None }
}

/// FNV-1a over words, mixed: to notice that foreign content changed.
fn hash(data: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for chunk in data.as_chunks::<8>().0 {
        hash = mix(hash ^ u64::from_le_bytes(*chunk));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(run: u64, no: BlockNo, seq: u64) -> Vec<u8> {
        let mut out = vec![];
        fill(run, no, Seq(seq), &mut out);
        out
    }

    fn of(no: BlockNo, data: &[u8]) -> Content {
        classify(7, no, data, &mut vec![])
    }

    #[test]
    fn golden_first_words() {
        let bytes = block(7, 5, 9);
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..8], b"CNBEVIGO");
        assert_eq!(bytes[8..32].iter().map(|b| u64::from(*b)).sum::<u64>(), 7 + 5 + 9);
        assert_eq!(bytes[512], b'C' ^ 1);
    }

    #[test]
    fn each_kind_is_told_apart() {
        assert_eq!(of(5, &block(7, 5, 9)), Content::Written(Seq(9)));
        assert_eq!(of(6, &block(7, 5, 9)), Content::Misplaced(5));
        assert!(matches!(of(5, &block(8, 5, 9)), Content::Foreign(_)));
        assert!(matches!(of(5, &[0; BLOCK]), Content::Foreign(_)));
        let mut two = block(7, 5, 9);
        two[2048..].copy_from_slice(&block(7, 5, 10)[2048..]);
        assert_eq!(of(5, &two), Content::Torn);
        let mut half = block(7, 5, 9);
        half[..512].fill(0);
        assert_eq!(of(5, &half), Content::Torn);
        let mut swapped = block(7, 5, 9);
        swapped.rotate_left(512);
        assert!(matches!(of(5, &swapped), Content::Foreign(_) | Content::Torn));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_passes(no in 0u64..1 << 40, seq in 1u64.., bit in 0usize..BLOCK * 8) {
            let mut data = block(7, no, seq);
            data[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(of(no, &data), Content::Written(Seq(seq)));
        }
    }
}
