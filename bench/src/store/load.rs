//! The next request of a case: which place, read or write.

use ogive_types::{BLOCK_BYTES, BLOCKS_PER_CHUNK, BlockRange, ChunkId, VolumeId};

use super::spec::Case;
use crate::rng::Rng;

/// Reads and writes of a case over the first so many bytes of a volume.
pub(super) struct Load {
    rng: Rng,
    case: Case,
    /// Requests that fit.
    units: u64,
    next: u64,
}

impl Load {
    /// `span` bytes, a multiple of the chunk; equal seeds give equal loads.
    pub(super) fn new(case: Case, span: u64, seed: u64) -> Load {
        let units = span / case.bytes as u64;
        assert!(units > 0, "a span without room for a request");
        Load { rng: Rng::new(seed), case, units, next: 0 }
    }

    /// Whether the next one is a read, and its place.
    pub(super) fn next(&mut self) -> (bool, ChunkId, BlockRange) {
        let read = self.rng.below(100) < u64::from(self.case.pattern.read_percent());
        let unit = match self.case.pattern.is_sequential() {
            true => {
                let unit = self.next;
                self.next = (unit + 1) % self.units;
                unit
            }
            false => self.rng.below(self.units),
        };
        let (chunk, range) = place(unit * self.case.bytes as u64, self.case.bytes);
        (read, chunk, range)
    }
}

/// Where bytes of the volume lie. They do not cross the end of a chunk.
pub(super) fn place(at: u64, bytes: usize) -> (ChunkId, BlockRange) {
    let block = at / BLOCK_BYTES as u64;
    let per_chunk = u64::from(BLOCKS_PER_CHUNK);
    let chunk = ChunkId { volume: VolumeId(1), number: (block / per_chunk) as u32 };
    let range = BlockRange::new((block % per_chunk) as u16, (bytes / BLOCK_BYTES) as u16);
    (chunk, range.expect("requests divide a chunk"))
}

#[cfg(test)]
mod tests {
    use super::super::spec::{CASES, Pattern};
    use super::*;

    #[test]
    fn sequential_loads_wrap_and_random_ones_stay_inside() {
        let span = 32 << 20;
        for case in CASES {
            let mut load = Load::new(case, span, 7);
            let places: Vec<_> = (0..100).map(|_| load.next()).collect();
            let starts = places.iter().map(|(_, chunk, range)| {
                assert_eq!(range.bytes(), case.bytes);
                u64::from(chunk.number) * u64::from(BLOCKS_PER_CHUNK) + u64::from(range.start())
            });
            let starts: Vec<u64> = starts.collect();
            assert!(starts.iter().all(|&s| s * 4096 + case.bytes as u64 <= span), "{case}");
            if case.pattern.is_sequential() {
                let units = span / case.bytes as u64;
                let expected = (0..100).map(|n| n % units * case.bytes as u64 / 4096);
                assert_eq!(starts, expected.collect::<Vec<_>>(), "{case}");
            }
            let reads = places.iter().filter(|(read, ..)| *read).count();
            let mixed = case.pattern == Pattern::Mixed;
            assert_eq!(mixed, (1..100).contains(&reads), "{case}: {reads}");
        }
    }
}
