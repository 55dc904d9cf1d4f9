//! Sizes that the formats and the protocol fix, and ranges of blocks.

use serde::{Deserialize, Serialize};

/// A block: unit of checksums, maps and replication.
pub const BLOCK_BYTES: usize = 4096;
/// A chunk of a volume.
pub const CHUNK_BYTES: u64 = 16 << 20;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: u16 = (CHUNK_BYTES / BLOCK_BYTES as u64) as u16;
/// A segment of a volume.
pub const SEGMENT_BYTES: u64 = 1 << 30;
/// Most data in one read or write request, and so in one payload: a quarter of the largest pooled
/// buffer.
pub const MAX_IO_BYTES: usize = 1 << 20;

const _: () = assert!(BLOCKS_PER_CHUNK == 4096);

/// Neighbouring blocks of one chunk: `start .. start + len`, never empty, never past the chunk's
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRange {
    start: u16,
    len: u16,
}

impl BlockRange {
    /// The range, or `None` when it is empty or passes the end of the chunk.
    pub const fn new(start: u16, len: u16) -> Option<BlockRange> {
        if len == 0 || start as u32 + len as u32 > BLOCKS_PER_CHUNK as u32 {
            return None;
        }
        Some(BlockRange { start, len })
    }

    /// First block.
    pub fn start(self) -> u16 {
        self.start
    }

    /// Number of blocks, at least 1.
    pub fn blocks(self) -> u16 {
        self.len
    }

    /// One past the last block.
    pub fn end(self) -> u16 {
        self.start + self.len
    }

    /// Length in bytes.
    pub fn bytes(self) -> usize {
        self.len as usize * BLOCK_BYTES
    }

    /// True for a range that `new` would make; ranges that came over the wire are checked with
    /// this.
    pub fn is_valid(self) -> bool {
        BlockRange::new(self.start, self.len).is_some()
    }

    /// The common part.
    pub fn intersection(self, other: BlockRange) -> Option<BlockRange> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        BlockRange::new(start, end.saturating_sub(start))
    }

    /// True when they share a block.
    pub fn overlaps(self, other: BlockRange) -> bool {
        self.intersection(other).is_some()
    }

    /// Block numbers in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.start..self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_inside_the_chunk() {
        assert!(BlockRange::new(0, 0).is_none());
        assert!(BlockRange::new(4095, 1).is_some());
        assert!(BlockRange::new(4095, 2).is_none());
        assert!(BlockRange::new(u16::MAX, u16::MAX).is_none());
    }

    #[test]
    fn intersections() {
        let r = |s, l| BlockRange::new(s, l).expect("valid");
        assert_eq!(r(0, 4).intersection(r(2, 4)), Some(r(2, 2)));
        assert_eq!(r(0, 4).intersection(r(4, 4)), None);
        assert_eq!(r(8, 4).intersection(r(0, 20)), Some(r(8, 4)));
    }
}
