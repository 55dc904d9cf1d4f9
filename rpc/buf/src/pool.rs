//! The pool: power-of-two size classes from 4 KiB to 4 MiB over arenas, with a limit in bytes.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::ALIGN;
use crate::arena::{ARENA_BYTES, Arena, ArenaId, ArenaInfo};

/// Longest buffer in bytes.
pub const MAX_BUF_BYTES: usize = ARENA_BYTES;

/// Classes: 4 KiB << 0 ..= 4 KiB << 10 (4 MiB).
const CLASSES: usize = (ARENA_BYTES / ALIGN).ilog2() as usize + 1;

/// A pool of aligned buffers. Cloning gives another handle to the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    arenas: Vec<Arena>,
    /// Free places by class; a larger place is split when a class runs dry.
    free: [Vec<Place>; CLASSES],
    limit_bytes: usize,
    used_bytes: usize,
    /// Bytes given back since the last merge.
    freed_bytes: usize,
}

#[derive(Clone, Copy)]
struct Place {
    arena: ArenaId,
    offset: u32,
}

/// What a pool holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes in buffers that are alive, rounded up to their classes.
    pub used_bytes: usize,
    /// Bytes in arenas.
    pub arena_bytes: usize,
    /// The limit given to [`Pool::new`].
    pub limit_bytes: usize,
}

impl Pool {
    /// A pool that grows on demand to at most `limit_bytes` (rounded down to whole arenas, at least
    /// one).
    pub fn new(limit_bytes: usize) -> Pool {
        let arenas_max = (limit_bytes / ARENA_BYTES).clamp(1, u16::MAX as usize);
        Pool {
            shared: Rc::new(RefCell::new(Shared {
                arenas: Vec::new(),
                free: Default::default(),
                limit_bytes: arenas_max * ARENA_BYTES,
                used_bytes: 0,
                freed_bytes: 0,
            })),
        }
    }

    /// A buffer of `len` bytes with unspecified (but initialised) contents, or `None` when the
    /// limit is reached or `len` is above [`MAX_BUF_BYTES`]. A length of zero is allowed.
    pub fn alloc(&self, len: usize) -> Option<BufMut> {
        if len > MAX_BUF_BYTES {
            return None;
        }
        let class = class_of(len);
        let mut shared = self.shared.borrow_mut();
        let place = shared.take(class).or_else(|| shared.take_merged(class))?;
        shared.used_bytes += ALIGN << class;
        let start = shared.arenas[place.arena.0 as usize].at(place.offset as usize);
        let block = Block { pool: Rc::clone(&self.shared), place, class, start };
        Some(BufMut { block, len })
    }

    /// Like [`Pool::alloc`], filled with zeroes.
    pub fn alloc_zeroed(&self, len: usize) -> Option<BufMut> {
        let mut buf = self.alloc(len)?;
        buf.fill(0);
        Some(buf)
    }

    /// The arenas allocated so far, in order of their ids; grows only.
    pub fn arenas(&self) -> Vec<ArenaInfo> {
        let shared = self.shared.borrow();
        let ids = (0..shared.arenas.len()).map(|i| ArenaId(i as u16));
        ids.zip(&shared.arenas).map(|(id, arena)| arena.info(id)).collect()
    }

    /// Number of arenas, cheap: compare with the last one seen to learn of growth.
    pub fn arena_count(&self) -> usize {
        self.shared.borrow().arenas.len()
    }

    /// True when `other` is a handle to the same pool, so that their [`ArenaId`]s mean the same.
    pub fn is_same(&self, other: &Pool) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// Current use.
    pub fn stats(&self) -> PoolStats {
        let shared = self.shared.borrow();
        PoolStats {
            used_bytes: shared.used_bytes,
            arena_bytes: shared.arenas.len() * ARENA_BYTES,
            limit_bytes: shared.limit_bytes,
        }
    }
}

impl Shared {
    fn take(&mut self, class: usize) -> Option<Place> {
        if let Some(place) = self.free[class].pop() {
            return Some(place);
        }
        let place = if class + 1 < CLASSES { self.take(class + 1)? } else { self.grow()? };
        if class + 1 == CLASSES {
            return Some(place);
        }
        let other = Place { arena: place.arena, offset: place.offset + (ALIGN << class) as u32 };
        self.free[class].push(other);
        Some(place)
    }

    /// Tries again with neighbouring free places joined, once the pool is at its limit. Joining is
    /// not worth a look before as much was given back as is wanted, which also keeps its cost in
    /// proportion while the pool stays exhausted.
    fn take_merged(&mut self, class: usize) -> Option<Place> {
        if self.freed_bytes < ALIGN << class {
            return None;
        }
        self.freed_bytes = 0;
        for class in 0..CLASSES - 1 {
            self.merge(class);
        }
        self.take(class)
    }

    /// Joins pairs of free places that one place of the next class was split into.
    fn merge(&mut self, class: usize) {
        let per_arena = (ARENA_BYTES / ALIGN) >> class;
        let number =
            |p: &Place| p.arena.0 as usize * per_arena + p.offset as usize / (ALIGN << class);
        let mut is_free = vec![false; self.arenas.len() * per_arena];
        for place in &self.free[class] {
            is_free[number(place)] = true;
        }
        let (places, joined) = self.free.split_at_mut(class + 1);
        places[class].retain(|place| {
            let n = number(place);
            let pair = is_free[n ^ 1];
            if pair && n.is_multiple_of(2) {
                joined[0].push(*place);
            }
            !pair
        });
    }

    fn grow(&mut self) -> Option<Place> {
        if (self.arenas.len() + 1) * ARENA_BYTES > self.limit_bytes {
            return None;
        }
        self.arenas.push(Arena::new());
        Some(Place { arena: ArenaId((self.arenas.len() - 1) as u16), offset: 0 })
    }
}

fn class_of(len: usize) -> usize {
    len.div_ceil(ALIGN).max(1).next_power_of_two().ilog2() as usize
}

/// One allocation; goes back to the pool when the last handle is dropped.
pub(crate) struct Block {
    pool: Rc<RefCell<Shared>>,
    place: Place,
    class: usize,
    start: NonNull<u8>,
}

impl Block {
    pub(crate) fn arena(&self) -> ArenaId {
        self.place.arena
    }

    /// The byte at `offset`, which may also be the one past the end.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= ALIGN << self.class);
        // SAFETY: inside the block, or just past it.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut shared = self.pool.borrow_mut();
        shared.used_bytes -= ALIGN << self.class;
        shared.freed_bytes += ALIGN << self.class;
        shared.free[self.class].push(self.place);
    }
}

/// A buffer with one owner, writable.
pub struct BufMut {
    block: Block,
    len: usize,
}

impl BufMut {
    /// Makes it shareable and read-only, without a copy.
    pub fn freeze(self) -> Buf {
        let range = 0..self.len as u32;
        Buf { block: Rc::new(self.block), range }
    }

    /// Shortens the visible part to `len` bytes; nothing happens when it is already shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The arena it lies in, for operations on registered memory.
    pub fn arena(&self) -> ArenaId {
        self.block.arena()
    }

    pub(crate) fn into_block(self) -> Block {
        self.block
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is initialised memory of at least `len` bytes that this handle alone
        // owns.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr(), self.len) }
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.block.start.as_ptr(), self.len) }
    }
}

/// A shared, read-only view of a buffer; cloning and slicing copy no bytes.
#[derive(Clone)]
pub struct Buf {
    block: Rc<Block>,
    range: Range<u32>,
}

impl Buf {
    /// The part `range` of this view, in bytes. Panics when it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Buf {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of {}",
            self.len()
        );
        let start = self.range.start + range.start as u32;
        Buf { block: Rc::clone(&self.block), range: start..start + range.len() as u32 }
    }

    /// The arena it lies in, for operations on registered memory.
    pub fn arena(&self) -> ArenaId {
        self.block.arena()
    }

    /// The first `len` bytes of a block that nobody writes to any more.
    pub(crate) fn whole(block: Rc<Block>, len: usize) -> Buf {
        Buf { block, range: 0..len as u32 }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, len) =
            (self.range.start as usize, (self.range.end - self.range.start) as usize);
        // SAFETY: the range lies inside the initialised block, which nobody can write to once it is
        // frozen.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr().add(start), len) }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({} bytes)", self.len())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_reused_and_bounded() {
        let pool = Pool::new(2 * ARENA_BYTES);
        let sizes = [0, 1, 4096, 4097, 65536, 1 << 20, MAX_BUF_BYTES];
        let bufs: Vec<_> = sizes.iter().filter_map(|&n| pool.alloc(n)).collect();
        assert_eq!(bufs.len(), sizes.len());
        assert!(bufs.iter().all(|b| (b.as_ptr() as usize).is_multiple_of(ALIGN)));
        assert!(pool.alloc(MAX_BUF_BYTES).is_none(), "the limit holds");
        assert!(pool.alloc(MAX_BUF_BYTES + 1).is_none());
        drop(bufs);
        assert_eq!(pool.stats().used_bytes, 0);
        assert_eq!(pool.arena_count(), 2);
        assert!(pool.is_same(&pool.clone()) && !pool.is_same(&Pool::new(ARENA_BYTES)));
    }

    #[test]
    fn small_buffers_given_back_make_room_for_large_ones() {
        let pool = Pool::new(2 * ARENA_BYTES);
        for round in 0..3 {
            let mut small: Vec<_> = std::iter::from_fn(|| pool.alloc(ALIGN)).collect();
            assert_eq!(small.len(), 2 * ARENA_BYTES / ALIGN, "all of it, in round {round}");
            assert!(pool.alloc(1 << 20).is_none());
            small.sort_by_key(|buf| buf.as_ptr());
            let pinned = small.swap_remove(300);
            drop(small);
            let large: Vec<_> = std::iter::from_fn(|| pool.alloc(1 << 20)).collect();
            assert_eq!(large.len(), 7, "one MiB holds the small one that is left");
            drop((pinned, large));
            let whole = (pool.alloc(MAX_BUF_BYTES), pool.alloc(MAX_BUF_BYTES));
            assert!(whole.0.is_some() && whole.1.is_some());
        }
        assert_eq!(pool.stats().used_bytes, 0);
    }

    #[test]
    fn live_buffers_never_overlap() {
        let pool = Pool::new(ARENA_BYTES);
        let mut live: Vec<(u8, BufMut)> = Vec::new();
        for i in 0..2000usize {
            if i % 3 == 2 {
                live.swap_remove(i * 7 % live.len());
            } else if let Some(mut b) = pool.alloc(((i * 977) % 20_000) << (i % 7)) {
                b.fill(i as u8);
                live.push((i as u8, b));
            }
        }
        assert!(live.iter().all(|(n, b)| b.iter().all(|x| x == n)));
    }

    #[test]
    fn slices_share_and_keep_the_block_alive() {
        let pool = Pool::new(ARENA_BYTES);
        let mut b = pool.alloc(8192).expect("space");
        b[4096..].fill(7);
        let whole = b.freeze();
        let tail = whole.slice(4096..8192);
        drop(whole);
        assert!(tail.iter().all(|&x| x == 7));
        assert_eq!(pool.stats().used_bytes, 8192);
        drop(tail);
        assert_eq!(pool.stats().used_bytes, 0);
    }
}
