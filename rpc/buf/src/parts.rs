//! Filling one buffer from several places: each writer owns a part, nobody owns the whole.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::arena::ArenaId;
use crate::pool::{Block, Buf, BufMut};

/// A buffer that is handed out in parts to be written, by a NIC for example, and becomes a [`Buf`]
/// when all parts are back.
pub struct Landing {
    block: Rc<Block>,
    taken: usize,
    len: usize,
}

/// A part of a [`Landing`], writable by its owner alone. It keeps the memory alive by itself: a
/// part that is still being written outlives its landing.
pub struct PartMut {
    block: Rc<Block>,
    start: usize,
    len: usize,
}

impl BufMut {
    /// Makes it a landing, of which parts are taken from the front on. No bytes are copied.
    pub fn parts(self) -> Landing {
        let len = self.len();
        Landing { block: Rc::new(self.into_block()), taken: 0, len }
    }
}

impl Landing {
    /// The next `len` bytes, or `None` when fewer are left. Parts never overlap.
    pub fn take(&mut self, len: usize) -> Option<PartMut> {
        if len > self.remaining() {
            return None;
        }
        let start = self.taken;
        self.taken += len;
        Some(PartMut { block: Rc::clone(&self.block), start, len })
    }

    /// Bytes that were not taken yet.
    pub fn remaining(&self) -> usize {
        self.len - self.taken
    }

    /// The whole buffer once no part is alive, otherwise the landing again. Bytes that nobody wrote
    /// are unspecified, but initialised.
    pub fn finish(self) -> Result<Buf, Landing> {
        // Nobody else holds a handle, and none can come to be: parts are made from `self` only.
        if Rc::strong_count(&self.block) == 1 {
            Ok(Buf::whole(self.block, self.len))
        } else {
            Err(self)
        }
    }
}

impl PartMut {
    /// The arena it lies in, for operations on registered memory.
    pub fn arena(&self) -> ArenaId {
        self.block.arena()
    }
}

impl Deref for PartMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start + len` lies inside the initialised block, which the Rc keeps alive, and
        // no other part covers these bytes. A `Buf` of the block exists only without parts.
        unsafe { std::slice::from_raw_parts(self.block.at(self.start), self.len) }
    }
}

impl DerefMut for PartMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.block.at(self.start), self.len) }
    }
}

impl fmt::Debug for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Landing({} of {} bytes taken)", self.taken, self.len)
    }
}

impl fmt::Debug for PartMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartMut({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use crate::{ARENA_BYTES, Pool};

    #[test]
    fn parts_are_disjoint_and_fill_the_whole() {
        let pool = Pool::new(ARENA_BYTES);
        let mut landing = pool.alloc(10_000).expect("space").parts();
        let lens = [1, 4095, 0, 4096, 1808];
        let mut parts: Vec<_> = lens.iter().map(|&n| landing.take(n).expect("left")).collect();
        assert_eq!(landing.remaining(), 0);
        assert!(landing.take(1).is_none());
        assert!(landing.take(0).is_some());
        // Written in an order other than that of taking, with all of them alive.
        for (n, part) in parts.iter_mut().enumerate().rev() {
            part.fill(n as u8);
        }
        for (n, part) in parts.iter().enumerate() {
            assert!(part.len() == lens[n] && part.iter().all(|&b| b == n as u8));
        }
        drop(parts);
        let whole = landing.finish().expect("all parts are back");
        assert_eq!(whole.len(), 10_000);
        let mut at = 0;
        for (n, len) in lens.into_iter().enumerate() {
            assert!(whole[at..at + len].iter().all(|&b| b == n as u8), "part {n}");
            at += len;
        }
    }

    #[test]
    fn the_whole_waits_for_every_part() {
        let pool = Pool::new(ARENA_BYTES);
        let mut landing = pool.alloc(8192).expect("space").parts();
        let (first, second) = (landing.take(4096), landing.take(100));
        let landing = landing.finish().expect_err("two parts are alive");
        drop(first);
        let landing = landing.finish().expect_err("one part is alive");
        drop(second);
        assert_eq!(landing.finish().expect("none is alive").len(), 8192);
        assert_eq!(pool.stats().used_bytes, 0);
    }

    #[test]
    fn a_part_outlives_its_landing_and_its_pool() {
        let pool = Pool::new(ARENA_BYTES);
        let mut landing = pool.alloc(8192).expect("space").parts();
        let mut part = landing.take(4096).expect("left");
        drop(landing);
        assert_eq!(pool.stats().used_bytes, 8192, "the part holds the block");
        assert_eq!(part.arena(), pool.arenas()[0].id);
        drop(pool);
        part.fill(3);
        assert!(part.iter().all(|&b| b == 3));
    }

    #[test]
    fn nothing_taken_is_the_same_as_freezing() {
        let pool = Pool::new(ARENA_BYTES);
        let mut buf = pool.alloc(5).expect("space");
        buf.copy_from_slice(b"ogive");
        assert_eq!(&*buf.parts().finish().expect("no parts"), b"ogive");
    }
}
