//! Aligned, pooled, reference counted buffers shared by network and disk.
//!
//! A payload is received into a [`BufMut`], frozen into a [`Buf`], and from that one piece of
//! memory written to the disk and sent to the followers. Buffers are 4 KiB aligned (O_DIRECT, RDMA)
//! and carved from arenas, so that a ring or a NIC can register the arenas once. Everything here
//! belongs to one thread (`Rc`), as everything of a shard does. A payload that arrives in pieces is
//! written through a [`Landing`], whose parts have an owner each.

mod arena;
mod parts;
mod pool;

pub use arena::{ARENA_BYTES, ArenaId, ArenaInfo};
pub use parts::{Landing, PartMut};
pub use pool::{Buf, BufMut, MAX_BUF_BYTES, Pool, PoolStats};

/// Alignment of every buffer in bytes: the page size, the block size, and what O_DIRECT asks of any
/// device.
pub const ALIGN: usize = 4096;
