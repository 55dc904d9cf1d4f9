//! The data blocks: which are free, and which must wait before they are used again.
//!
//! ```text
//! taken ─give─▶ fresh ─(a batch is sealed)─▶ waiting ─(persisted, older reads ended)─▶ free
//! ```
//!
//! A block that is freed waits for two things:
//!
//! - The log on stable storage must say so. A batch that is sealed afterwards carries the applied
//!   positions and the persisted mark of that moment. Once it is persisted, no recovery maps the
//!   block any more, nor compares its content with the checksum of the entry that wrote it.
//! - Every read that began before must have ended: it might be fetching the block.
//!
//! A block that the device failed to read is retired in place of becoming free, until the region is
//! opened again.

use std::collections::{BTreeSet, VecDeque};

use crate::alloc::Allocator;
use crate::limits::BAD_BLOCKS_MAX;
use crate::record::Extent;
use crate::writer::Seq;

/// Why no blocks are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// Enough are free, but some of them must wait.
    Soon,
    /// There are not enough.
    Full,
}

/// A freed block, with the number of the read that began last before.
#[derive(Clone, Copy)]
struct Freed {
    block: u32,
    read: u64,
}

pub(crate) struct Space {
    blocks: Allocator,
    reads: BTreeSet<u64>,
    next_read: u64,
    fresh: Vec<Freed>,
    /// With the record that must be persisted.
    waiting: VecDeque<(Seq, Freed)>,
    persisted: Seq,
    wanted: bool,
    /// Blocks that the device failed to read; they are retired when they are freed.
    bad: BTreeSet<u32>,
    retired: u32,
    /// Blocks of dropped map pages that must be read before they are known.
    unknown: u32,
}

impl Space {
    pub(crate) fn new(len: u32) -> Space {
        Space {
            blocks: Allocator::new(len),
            reads: BTreeSet::new(),
            next_read: 0,
            fresh: Vec::new(),
            waiting: VecDeque::new(),
            persisted: 0,
            wanted: false,
            bad: BTreeSet::new(),
            retired: 0,
            unknown: 0,
        }
    }

    /// So many blocks are freed that will be given once it is known which they are.
    pub(crate) fn expect(&mut self, blocks: u16) {
        self.unknown += u32::from(blocks);
    }

    /// So many of them are known now.
    pub(crate) fn expected(&mut self, blocks: u16) {
        self.unknown -= u32::from(blocks);
    }

    /// Blocks that are free or about to be.
    pub(crate) fn free_blocks(&self) -> u32 {
        self.blocks.free() + self.unknown + (self.fresh.len() + self.waiting.len()) as u32
    }

    pub(crate) fn len(&self) -> u32 {
        self.blocks.len()
    }

    pub(crate) fn is_free(&self, block: u32) -> bool {
        let waits = || self.waiting.iter().map(|(_, freed)| freed).chain(&self.fresh);
        self.blocks.is_free(block) || waits().any(|freed| freed.block == block)
    }

    /// Whether so many blocks can be taken now.
    pub(crate) fn check(&mut self, count: u32) -> Result<(), Short> {
        if self.blocks.free() >= count {
            return Ok(());
        }
        if self.free_blocks() < count {
            return Err(Short::Full);
        }
        self.wanted = true;
        Err(Short::Soon)
    }

    /// Takes so many blocks, in as few runs as next fit finds.
    pub(crate) fn take(&mut self, count: u16) -> Result<Vec<Extent>, Short> {
        self.check(u32::from(count))?;
        let mut extents = Vec::with_capacity(1);
        let mut left = u32::from(count);
        while left > 0 {
            let (block, blocks) = self.blocks.take_run(left).expect("enough are free");
            extents.push(Extent { block, blocks: blocks as u16 });
            left -= blocks;
        }
        Ok(extents)
    }

    /// Marks a block as taken, at recovery; false when it is taken already or does not exist.
    pub(crate) fn claim(&mut self, block: u32) -> bool {
        let ok = block < self.blocks.len() && self.blocks.is_free(block);
        if ok {
            self.blocks.take(block);
        }
        ok
    }

    /// Frees a block.
    pub(crate) fn give(&mut self, block: u32) {
        debug_assert!(!self.blocks.is_free(block), "block {block} is freed twice");
        if self.bad.contains(&block) {
            self.retired += 1;
            return;
        }
        self.fresh.push(Freed { block, read: self.next_read });
    }

    /// The device failed to read this block, which is in use: it is not to be used again.
    pub(crate) fn avoid(&mut self, block: u32) {
        // Freed while it was being read: whoever gets it next finds out anew.
        if !self.is_free(block) && self.bad.len() < BAD_BLOCKS_MAX {
            self.bad.insert(block);
        }
    }

    /// Blocks that are neither free nor used, since the device failed to read them.
    pub(crate) fn retired(&self) -> u32 {
        self.retired
    }

    /// Someone waits for blocks, and only a batch can free them.
    pub(crate) fn wants_batch(&self) -> bool {
        self.wanted && !self.fresh.is_empty()
    }

    /// A batch is about to be sealed. It and those before it hold all records up to `last`, among
    /// them the applied position of every copyset, or `last` is in a later one.
    pub(crate) fn sealing(&mut self, last: Seq) {
        self.wanted = false;
        self.waiting.extend(self.fresh.drain(..).map(|freed| (last, freed)));
    }

    /// Everything up to record `seq` is persisted.
    pub(crate) fn persisted(&mut self, seq: Seq) {
        self.persisted = seq;
        self.reuse();
    }

    /// A read begins; give the number back to `read_ended`.
    pub(crate) fn read_begins(&mut self) -> u64 {
        self.next_read += 1;
        self.reads.insert(self.next_read);
        self.next_read
    }

    pub(crate) fn read_ended(&mut self, read: u64) {
        self.reads.remove(&read);
        self.reuse();
    }

    fn reuse(&mut self) {
        let oldest = self.reads.first().copied().unwrap_or(u64::MAX);
        while let Some(&(seq, freed)) = self.waiting.front() {
            if seq > self.persisted || freed.read >= oldest {
                break;
            }
            self.waiting.pop_front();
            self.blocks.give(freed.block);
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
        space.sealing(1);
        space.persisted(1);
        assert_eq!(space.take(1), Err(Short::Soon), "still being read");
        space.read_ended(read);
        let again = space.take(1).unwrap();
        assert_eq!(again, [Extent { block: 0, blocks: 1 }], "later reads do not matter");
        space.read_ended(later);
    }

    #[test]
    fn blocks_that_could_not_be_read_are_not_used_again() {
        let mut space = Space::new(2);
        space.take(1).unwrap();
        space.avoid(0);
        space.avoid(1);
        space.give(0);
        space.sealing(1);
        space.persisted(1);
        assert_eq!((space.retired(), space.free_blocks()), (1, 1), "a free block is not avoided");
        assert_eq!(space.take(1).unwrap(), [Extent { block: 1, blocks: 1 }]);
        assert_eq!(space.take(1), Err(Short::Full));
    }

    #[test]
    fn blocks_wait_until_the_log_says_that_they_are_free() {
        let mut space = Space::new(2);
        space.take(2).unwrap();
        space.give(0);
        space.persisted(3);
        assert_eq!(space.take(2), Err(Short::Full));
        assert!(!space.wants_batch(), "a batch would not help");
        assert_eq!(space.take(1), Err(Short::Soon), "only a later batch can say so");
        assert!(space.wants_batch());
        space.sealing(4);
        space.give(1);
        space.persisted(4);
        assert_eq!(space.take(1).unwrap(), [Extent { block: 0, blocks: 1 }]);
        assert_eq!(space.take(1), Err(Short::Soon), "freed after the batch was sealed");
    }
}
