//! Ids, units, volume layout and message bodies of the data plane.
//!
//! Everything that two crates must agree on lives here, and nothing that does work: no I/O, no
//! clocks.

pub mod checksum;
pub mod ids;
pub mod layout;
pub mod message;
pub mod time;
pub mod units;

pub use checksum::{BlockSum, block_sum, block_sums};
pub use ids::{
    ChunkId, ChunkserverId, ClusterId, CopysetId, Epoch, HardState, Incarnation, Index, LogPos,
    SegmentId, SessionId, ShardAddr, Term, VolumeId,
};
pub use layout::{ChunkSpan, Layout};
pub use time::Time;
pub use units::{
    BLOCK_BYTES, BLOCKS_PER_CHUNK, BlockRange, CHUNK_BYTES, MAX_IO_BYTES, SEGMENT_BYTES,
};
