//! Byte ranges of a volume as blocks, edges and chunk spans. Arithmetic only.

use std::ops::Range;

use ogive_types::{BLOCK_BYTES, BlockRange, CHUNK_BYTES, ChunkId, Layout, VolumeId};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The bytes of all blocks that the range touches.
pub(crate) fn outward(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK * BLOCK..bytes.end.div_ceil(BLOCK) * BLOCK
}

/// The bytes of the blocks that lie wholly inside the range; empty (at its start) when there are
/// none.
pub(crate) fn inward(bytes: &Range<u64>) -> Range<u64> {
    let start = bytes.start.div_ceil(BLOCK) * BLOCK;
    start..(bytes.end / BLOCK * BLOCK).max(start)
}

/// The numbers of the blocks that the range touches.
pub(crate) fn blocks(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// First bytes of the blocks that the range covers only in part: none, one or two, in order.
pub(crate) fn edges(bytes: &Range<u64>) -> Vec<u64> {
    let head = (!bytes.start.is_multiple_of(BLOCK)).then_some(bytes.start / BLOCK * BLOCK);
    let tail = (!bytes.end.is_multiple_of(BLOCK)).then_some(bytes.end / BLOCK * BLOCK);
    match (head, tail) {
        (Some(head), Some(tail)) if head != tail => vec![head, tail],
        (Some(edge), _) | (None, Some(edge)) => vec![edge],
        (None, None) => Vec::new(),
    }
}

/// The end of the stripe group that holds byte `at`. Within a group, each chunk's part of a byte
/// range has no gaps.
pub(crate) fn group_end(layout: &Layout, at: u64) -> u64 {
    let group_bytes = CHUNK_BYTES * layout.stripe_chunks() as u64;
    (at / group_bytes + 1) * group_bytes
}

/// The end of the stripe unit that holds byte `at`.
pub(crate) fn unit_end(layout: &Layout, at: u64) -> u64 {
    (at / layout.stripe_unit_bytes() + 1) * layout.stripe_unit_bytes()
}

/// Each chunk's part of whole blocks that lie in one stripe group. One range for each chunk,
/// however small the stripe unit is, so that a trim takes one request for each chunk.
pub(crate) fn by_chunk(
    layout: &Layout,
    volume: VolumeId,
    bytes: &Range<u64>,
) -> Vec<(ChunkId, BlockRange)> {
    assert!(bytes.start < bytes.end && bytes.end <= group_end(layout, bytes.start));
    let (unit, chunks) = (layout.stripe_unit_bytes(), layout.stripe_chunks() as u64);
    let group = bytes.start / (CHUNK_BYTES * chunks);
    let base = group * CHUNK_BYTES * chunks;
    let (start, last) = (bytes.start - base, bytes.end - 1 - base);
    let (unit_first, unit_last) = (start / unit, last / unit);
    let mut parts = Vec::new();
    for column in 0..chunks.min(unit_last + 1) {
        let row_first = unit_first.saturating_sub(column).div_ceil(chunks);
        let row_last = (unit_last - column) / chunks;
        if row_first > row_last {
            continue;
        }
        let cut_first = row_first * chunks + column == unit_first;
        let cut_last = row_last * chunks + column == unit_last;
        let from = row_first * unit + if cut_first { start % unit } else { 0 };
        let to = row_last * unit + if cut_last { last % unit + 1 } else { unit };
        let range = BlockRange::new((from / BLOCK) as u16, ((to - from) / BLOCK) as u16);
        let number = (group * chunks + column) as u32;
        parts.push((ChunkId { volume, number }, range.expect("rows lie within their chunk")));
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_are_the_partly_covered_blocks() {
        assert_eq!(edges(&(0..4096)), []);
        assert_eq!(edges(&(1..4096)), [0]);
        assert_eq!(edges(&(0..4095)), [0]);
        assert_eq!(edges(&(10..20)), [0]);
        assert_eq!(edges(&(4000..8200)), [0, 8192]);
        assert_eq!((outward(&(4000..8200)), inward(&(4000..8200))), (0..12288, 4096..8192));
        assert_eq!((inward(&(10..20)), blocks(&(10..20))), (4096..4096, 0..1));
    }

    proptest! {
        #[test]
        fn by_chunk_covers_exactly_the_blocks_of_the_range(
            unit_log in 12u32..=24, chunks_log in 0u32..=6, group in 0u64..3,
            start in 0u64..1 << 18, len in 1u64..3000,
        ) {
            let layout = Layout::new(1 << unit_log, 1 << chunks_log).unwrap();
            let group_blocks = 4096u64 << chunks_log;
            let start = group * group_blocks + start % group_blocks;
            let end = (start + len).min((group + 1) * group_blocks);
            let mut expected = BTreeSet::new();
            for block in start..end {
                let (number, within) = layout.locate(block * 4096);
                expected.insert((number, (within / 4096) as u16));
            }
            let mut seen = BTreeSet::new();
            let mut chunks = BTreeSet::new();
            for (chunk, range) in by_chunk(&layout, VolumeId(1), &(start * 4096..end * 4096)) {
                prop_assert!(chunks.insert(chunk.number), "one range for each chunk");
                seen.extend(range.iter().map(|b| (chunk.number, b)));
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
