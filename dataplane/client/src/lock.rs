//! The order of overlapping writes: a lock on ranges of blocks, granted first come, first served.
//!
//! A range waits for every earlier one that it overlaps, whether that one is held or waits itself.
//! So overlapping writes take effect in the order in which they were submitted, and never two at a
//! time.

use std::ops::Range;

use crate::op::OpKey;
use crate::slab::{Key, Slab};

/// Names a range that is held or waited for.
pub(crate) type LockKey = Key<Entry>;

/// A range that is held (`blockers == 0`) or waited for.
pub(crate) struct Entry {
    blocks: Range<u64>,
    owner: OpKey,
    blockers: u32,
    dependents: Vec<LockKey>,
}

/// All ranges of one volume.
#[derive(Default)]
pub(crate) struct RangeLock {
    entries: Slab<Entry>,
}

impl RangeLock {
    /// Takes a place in the order for `blocks`; true when it is held at once, else
    /// [`RangeLock::release`] of the last earlier one reports it.
    pub(crate) fn acquire(&mut self, blocks: Range<u64>, owner: OpKey) -> (LockKey, bool) {
        assert!(blocks.start < blocks.end, "an empty range needs no lock");
        let overlaps = |e: &Entry| e.blocks.start < blocks.end && blocks.start < e.blocks.end;
        // All of one client's writes in flight: a few hundred at most, next to each other in
        // memory.
        let earlier: Vec<LockKey> =
            self.entries.iter().filter(|(_, e)| overlaps(e)).map(|(key, _)| key).collect();
        let entry = Entry { blocks, owner, blockers: earlier.len() as u32, dependents: Vec::new() };
        let key = self.entries.insert(entry);
        for &other in &earlier {
            let other = self.entries.get_mut(other).expect("listed just now");
            other.dependents.push(key);
        }
        (key, earlier.is_empty())
    }

    /// Gives a range up, held or not, and appends the owners of those that are held from now on.
    pub(crate) fn release(&mut self, key: LockKey, granted: &mut Vec<OpKey>) {
        let entry = self.entries.remove(key).expect("a lock is released once");
        for dependent in entry.dependents {
            let Some(waiting) = self.entries.get_mut(dependent) else { continue };
            waiting.blockers -= 1;
            if waiting.blockers == 0 {
                granted.push(waiting.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::testing::op_keys;

    #[test]
    fn overlapping_ranges_are_granted_in_order() {
        let keys = op_keys(4);
        let mut lock = RangeLock::default();
        let (a, held) = lock.acquire(0..4, keys[0]);
        assert!(held);
        let (b, held) = lock.acquire(2..8, keys[1]);
        assert!(!held);
        // Overlaps only the one that waits, and must still wait for it.
        let (c, held) = lock.acquire(6..9, keys[2]);
        assert!(!held);
        let (_, held) = lock.acquire(9..10, keys[3]);
        assert!(held, "neighbours do not overlap");
        let mut granted = Vec::new();
        lock.release(a, &mut granted);
        assert_eq!(granted, [keys[1]]);
        lock.release(b, &mut granted);
        assert_eq!(granted, [keys[1], keys[2]]);
        lock.release(c, &mut granted);
        assert_eq!(granted.len(), 2);
    }

    #[test]
    fn one_that_gives_up_while_waiting_frees_those_behind_it() {
        let keys = op_keys(3);
        let mut lock = RangeLock::default();
        let (a, _) = lock.acquire(0..2, keys[0]);
        let (b, _) = lock.acquire(1..5, keys[1]);
        let (c, held) = lock.acquire(4..5, keys[2]);
        assert!(!held);
        let mut granted = Vec::new();
        lock.release(b, &mut granted);
        assert_eq!(granted, [keys[2]]);
        lock.release(a, &mut granted);
        lock.release(c, &mut granted);
        assert_eq!(granted, [keys[2]]);
    }
}
