//! The pool's arenas as registered buffers of the ring: the kernel then pins and maps them once,
//! not per operation.

use ogive_buf::{ARENA_BYTES, ArenaId, ArenaInfo, Pool};

use crate::limits;
use crate::ring::Ring;

/// Which arenas are registered. Index in the ring's table = number of the arena.
pub(super) struct Registered {
    pool: Pool,
    /// First bytes of the registered arenas, by number.
    starts: Vec<usize>,
    /// Entries of the ring's table; 0 when it has none, or when the kernel refused one more.
    room: usize,
}

impl Registered {
    pub(super) fn new(ring: &mut Ring, pool: Pool) -> Registered {
        let room = (pool.stats().limit_bytes / ARENA_BYTES).min(limits::REGISTERED_ARENAS_MAX);
        let table = ring.uring().submitter().register_buffers_sparse(room as u32);
        let room = match table {
            Ok(()) => room,
            Err(error) => {
                tracing::info!(%error, "no table of registered buffers; disk I/O goes on without");
                0
            }
        };
        let mut registered = Registered { pool, starts: Vec::new(), room };
        registered.follow(ring);
        registered
    }

    /// Registers the arenas that the pool got since the last call. A comparison when there are
    /// none.
    pub(super) fn follow(&mut self, ring: &mut Ring) {
        if self.starts.len() == self.pool.arena_count().min(self.room) {
            return;
        }
        for arena in self.pool.arenas().into_iter().take(self.room).skip(self.starts.len()) {
            if let Err(error) = register(ring, arena) {
                let arenas = self.starts.len();
                tracing::info!(
                    %error, arenas,
                    "no more memory can be registered for disk I/O, which goes on without; \
                     raise RLIMIT_MEMLOCK \
                     (ulimit -l) to save CPU",
                );
                self.room = arenas;
                return;
            }
            self.starts.push(arena.start as usize);
        }
    }

    /// The table's index for memory at `at` in `arena`, if that is registered. A buffer of another
    /// pool is not.
    pub(super) fn index(&self, arena: ArenaId, at: *const u8) -> Option<u16> {
        let start = *self.starts.get(arena.0 as usize)?;
        let inside = (start..start + ARENA_BYTES).contains(&(at as usize));
        inside.then_some(arena.0)
    }

    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }
}

fn register(ring: &mut Ring, arena: ArenaInfo) -> std::io::Result<()> {
    let memory = libc::iovec { iov_base: arena.start.cast_mut().cast(), iov_len: arena.len };
    // SAFETY: arenas live as long as their pool, which `Registered` holds beside the ring until the
    // ring is closed; the kernel holds the pages themselves beyond that.
    unsafe { ring.uring().submitter().register_buffers_update(arena.id.0.into(), &[memory], None) }
}
