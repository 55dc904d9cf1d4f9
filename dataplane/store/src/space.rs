//! The data blocks: which are free, and which must wait because a read is still under way.
//!
//! A block that is freed while reads are in flight might be one that such a read is fetching. It is used again only when
//! every read that began before it was freed has ended.

use std::collections::{BTreeSet, VecDeque};

use crate::alloc::Allocator;
use crate::record::Extent;

pub(crate) struct Space {
    blocks: Allocator,
    reads: BTreeSet<u64>,
    next_read: u64,
    /// Freed blocks with the number of the read that began last before.
    limbo: VecDeque<(u64, u32)>,
}

impl Space {
    pub(crate) fn new(len: u32) -> Space {
        let blocks = Allocator::new(len);
        Space { blocks, reads: BTreeSet::new(), next_read: 0, limbo: VecDeque::new() }
    }

    /// Blocks that are free or about to be.
    pub(crate) fn free_blocks(&self) -> u32 {
        self.blocks.free() + self.limbo.len() as u32
    }

    pub(crate) fn len(&self) -> u32 {
        self.blocks.len()
    }

    pub(crate) fn is_free(&self, block: u32) -> bool {
        self.blocks.is_free(block) || self.limbo.iter().any(|&(_, b)| b == block)
    }

    /// Takes so many blocks, in as few runs as next fit finds; `None` when there are not enough.
    pub(crate) fn take(&mut self, count: u16) -> Option<Vec<Extent>> {
        if self.blocks.free() < u32::from(count) {
            return None;
        }
        let mut extents = Vec::with_capacity(1);
        let mut left = u32::from(count);
        while left > 0 {
            let (block, blocks) = self.blocks.take_run(left).expect("enough are free");
            extents.push(Extent { block, blocks: blocks as u16 });
            left -= blocks;
        }
        Some(extents)
    }

    /// Marks a block as taken, at recovery; false when it is taken already or does not exist.
    pub(crate) fn claim(&mut self, block: u32) -> bool {
        let ok = block < self.blocks.len() && self.blocks.is_free(block);
        if ok {
            self.blocks.take(block);
        }
        ok
    }

    pub(crate) fn give(&mut self, block: u32) {
        match self.reads.last() {
            Some(&newest) => self.limbo.push_back((newest, block)),
            None => self.blocks.give(block),
        }
    }

    /// A read begins; give the number back to `read_ended`.
    pub(crate) fn read_begins(&mut self) -> u64 {
        self.next_read += 1;
        self.reads.insert(self.next_read);
        self.next_read
    }

    pub(crate) fn read_ended(&mut self, read: u64) {
        self.reads.remove(&read);
        let oldest = self.reads.first().copied().unwrap_or(u64::MAX);
        while let Some(&(newest, block)) = self.limbo.front() {
            if newest >= oldest {
                break;
            }
            self.limbo.pop_front();
            self.blocks.give(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_under_a_read_are_not_used_again() {
        let mut space = Space::new(2);
        let first = space.take(2).unwrap();
        assert_eq!(first, [Extent { block: 0, blocks: 2 }]);
        let read = space.read_begins();
        space.give(0);
        let later = space.read_begins();
        assert!(space.take(1).is_none(), "still being read");
        space.read_ended(read);
        assert_eq!(
            space.take(1).unwrap(),
            [Extent { block: 0, blocks: 1 }],
            "later reads do not matter"
        );
        space.read_ended(later);
    }
}
