//! How a volume's bytes map to chunks, and chunks to copysets.
//!
//! A volume is a row of segments of 1 GiB, a segment a row of 64 chunks. Without striping
//! (`stripe_chunks == 1`) chunk `n` holds bytes `n * 16 MiB ..`. With striping, each group of
//! `stripe_chunks` chunks is filled in units of `stripe_unit` bytes in turn, so that neighbouring
//! units lie in different chunks and so in different copysets.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, SegmentId, VolumeId};
use crate::units::{BLOCK_BYTES, BlockRange, CHUNK_BYTES, SEGMENT_BYTES};

/// Chunks of one segment.
pub const CHUNKS_PER_SEGMENT: u32 = (SEGMENT_BYTES / CHUNK_BYTES) as u32;

/// The striping of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    stripe_unit_bytes: u64,
    stripe_chunks: u32,
}

/// A part of a volume's byte range that lies in one chunk without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its blocks.
    pub range: BlockRange,
    /// Where the part starts, in bytes from the start of the range that was split.
    pub at: u64,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { stripe_unit_bytes: CHUNK_BYTES, stripe_chunks: 1 }
    }
}

impl Layout {
    /// A layout with `stripe_unit_bytes` (a power of two from 4 KiB to 16 MiB) over `stripe_chunks`
    /// (a power of two up to 64); `None` for anything else.
    pub fn new(stripe_unit_bytes: u64, stripe_chunks: u32) -> Option<Layout> {
        let unit_ok = stripe_unit_bytes.is_power_of_two()
            && (BLOCK_BYTES as u64..=CHUNK_BYTES).contains(&stripe_unit_bytes);
        let count_ok = stripe_chunks.is_power_of_two() && stripe_chunks <= CHUNKS_PER_SEGMENT;
        (unit_ok && count_ok).then_some(Layout { stripe_unit_bytes, stripe_chunks })
    }

    /// Bytes of a stripe unit.
    pub fn stripe_unit_bytes(&self) -> u64 {
        self.stripe_unit_bytes
    }

    /// Chunks that neighbouring stripe units are spread over.
    pub fn stripe_chunks(&self) -> u32 {
        self.stripe_chunks
    }

    /// The chunk number and the byte within it that hold byte `offset` of the volume.
    pub fn locate(&self, offset: u64) -> (u32, u64) {
        let group_bytes = CHUNK_BYTES * self.stripe_chunks as u64;
        let (group, within) = (offset / group_bytes, offset % group_bytes);
        let (unit, in_unit) = (within / self.stripe_unit_bytes, within % self.stripe_unit_bytes);
        let (row, column) = (unit / self.stripe_chunks as u64, unit % self.stripe_chunks as u64);
        let number = group * self.stripe_chunks as u64 + column;
        (number as u32, row * self.stripe_unit_bytes + in_unit)
    }

    /// Splits `len` bytes at `offset`, both multiples of 4 KiB, into spans of at most
    /// `span_bytes_max` bytes.
    pub fn split(
        &self,
        volume: VolumeId,
        offset: u64,
        len: u64,
        span_bytes_max: u64,
    ) -> Vec<ChunkSpan> {
        let block = BLOCK_BYTES as u64;
        assert!(
            offset.is_multiple_of(block) && len.is_multiple_of(block) && span_bytes_max >= block
        );
        let mut spans = Vec::new();
        let mut at = 0;
        while at < len {
            let (number, within) = self.locate(offset + at);
            let to_unit_end = self.stripe_unit_bytes - within % self.stripe_unit_bytes;
            let bytes = to_unit_end.min(len - at).min(span_bytes_max / block * block);
            let range = BlockRange::new((within / block) as u16, (bytes / block) as u16);
            let range =
                range.expect("a span ends with its stripe unit, which ends within its chunk");
            spans.push(ChunkSpan { chunk: ChunkId { volume, number }, range, at });
            at += bytes;
        }
        spans
    }
}

/// The segment that a chunk belongs to.
pub fn segment_of(chunk: ChunkId) -> SegmentId {
    SegmentId { volume: chunk.volume, number: chunk.number / CHUNKS_PER_SEGMENT }
}

/// Which of a segment's `copysets` (their count, not zero) holds a chunk: they take turns.
pub fn copyset_slot(chunk: ChunkId, copysets: usize) -> usize {
    (chunk.number % CHUNKS_PER_SEGMENT) as usize % copysets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layouts() -> Vec<Layout> {
        let all = [(4096, 64), (65536, 4), (CHUNK_BYTES, 1), (CHUNK_BYTES, 8), (1 << 20, 2)];
        all.iter().map(|&(unit, count)| Layout::new(unit, count).expect("valid")).collect()
    }

    #[test]
    fn every_block_has_one_place_of_its_own() {
        for layout in layouts() {
            let group = CHUNK_BYTES * layout.stripe_chunks as u64;
            let mut seen = std::collections::HashSet::new();
            for block in 0..group / 4096 {
                let (number, within) = layout.locate(group + block * 4096);
                assert!(number >= layout.stripe_chunks && number < 2 * layout.stripe_chunks);
                assert!(within < CHUNK_BYTES && within % 4096 == 0);
                assert!(seen.insert((number, within)));
            }
        }
    }

    #[test]
    fn spans_cover_the_range_in_order() {
        for layout in layouts() {
            let (offset, len) = (CHUNK_BYTES - 3 * 4096, 5 * CHUNK_BYTES / 2);
            let mut at = 0;
            for span in layout.split(VolumeId(1), offset, len, 1 << 20) {
                assert_eq!(span.at, at);
                assert!(span.range.bytes() <= 1 << 20);
                let (number, within) = layout.locate(offset + at);
                assert_eq!((span.chunk.number, span.range.start() as u64 * 4096), (number, within));
                at += span.range.bytes() as u64;
            }
            assert_eq!(at, len);
        }
    }

    #[test]
    fn bad_layouts_are_refused() {
        for (unit, count) in
            [(0, 1), (4095, 1), (2048, 1), (CHUNK_BYTES * 2, 1), (4096, 0), (4096, 3), (4096, 128)]
        {
            assert!(Layout::new(unit, count).is_none(), "{unit} {count}");
        }
    }
}
