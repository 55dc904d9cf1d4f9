//! Which place comes next, and whether it is read or written.

use std::ops::Range;

use crate::rng::Rng;
use crate::spec::Pattern;

/// Read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Write,
}

/// The sequence of places; the same for the same seed.
#[derive(Debug)]
pub(crate) struct Places {
    rng: Rng,
    start: u64,
    unit: u64,
    count: u64,
    pattern: Pattern,
    read_percent: u64,
    next: u64,
}

impl Places {
    /// Over a range that is a multiple of `unit` bytes and not empty.
    pub(crate) fn new(
        seed: u64,
        range: Range<u64>,
        unit: u64,
        pattern: Pattern,
        read_percent: u8,
    ) -> Places {
        let count = (range.end - range.start) / unit;
        assert!(count > 0, "an empty range has no places");
        let read_percent = u64::from(read_percent);
        let rng = Rng::new(seed);
        Places { rng, start: range.start, unit, count, pattern, read_percent, next: 0 }
    }

    pub(crate) fn op(&mut self) -> Op {
        if self.rng.below(100) < self.read_percent { Op::Read } else { Op::Write }
    }

    /// Offset in bytes of the next request.
    pub(crate) fn offset(&mut self) -> u64 {
        let index = match self.pattern {
            Pattern::Random => self.rng.below(self.count),
            Pattern::Sequential => {
                let index = self.next;
                self.next = (index + 1) % self.count;
                index
            }
        };
        self.start + index * self.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_wraps_and_random_covers() {
        let mut s = Places::new(1, 8192..20480, 4096, Pattern::Sequential, 0);
        let offsets: Vec<u64> = (0..4).map(|_| s.offset()).collect();
        assert_eq!(offsets, [8192, 12288, 16384, 8192]);
        let mut r = Places::new(1, 8192..20480, 4096, Pattern::Random, 0);
        let mut seen: Vec<u64> = (0..100).map(|_| r.offset()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [8192, 12288, 16384]);
    }

    #[test]
    fn the_mix_is_kept() {
        for (percent, low, high) in [(0, 0, 0), (100, 10_000, 10_000), (70, 6_800, 7_200)] {
            let mut places = Places::new(3, 0..4096, 4096, Pattern::Random, percent);
            let reads = (0..10_000).filter(|_| places.op() == Op::Read).count();
            assert!((low..=high).contains(&reads), "{percent} %: {reads}");
        }
    }
}
