//! Memory that buffers are carved from: page-aligned, zeroed once, never moved, freed with the
//! pool.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::ALIGN;

/// Bytes of one arena; a buffer never spans two.
pub const ARENA_BYTES: usize = 4 << 20;

/// Number of an arena within its pool, counted from 0 in order of allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArenaId(pub u16);

/// Where an arena lies, for registration with a ring or a NIC.
#[derive(Clone, Copy, Debug)]
pub struct ArenaInfo {
    /// Its number.
    pub id: ArenaId,
    /// Its first byte. Valid as long as the pool, or any buffer of it, lives.
    pub start: *const u8,
    /// Its length in bytes.
    pub len: usize,
}

pub(crate) struct Arena {
    start: NonNull<u8>,
}

impl Arena {
    const LAYOUT: Layout = match Layout::from_size_align(ARENA_BYTES, ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("arena layout"),
    };

    pub(crate) fn new() -> Arena {
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(Self::LAYOUT) };
        match NonNull::new(start) {
            Some(start) => Arena { start },
            None => handle_alloc_error(Self::LAYOUT),
        }
    }

    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < ARENA_BYTES);
        // SAFETY: the offset lies inside the allocation.
        unsafe { self.start.add(offset) }
    }

    pub(crate) fn info(&self, id: ArenaId) -> ArenaInfo {
        ArenaInfo { id, start: self.start.as_ptr(), len: ARENA_BYTES }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), Self::LAYOUT) }
    }
}
