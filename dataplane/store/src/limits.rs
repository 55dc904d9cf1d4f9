//! Limits of this crate, each with its reason.

/// Most bytes of one log batch: a write of this size takes little longer than a sector, and hundreds of records fit.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes of records that may wait for the log; more are refused as `Busy`, which slows the senders down.
pub const PENDING_BYTES_MAX: usize = 8 << 20;
/// Map pages that a checkpoint writes at once: enough to keep a disk busy, few enough not to disturb the log.
pub const CHECKPOINT_PAGES_IN_FLIGHT: usize = 16;
/// Bytes of the directory written with one operation.
pub const DIRECTORY_WRITE_BYTES: usize = 256 << 10;
/// A checkpoint starts when this share of the log ring is in use: 1 / n.
pub const CHECKPOINT_AT: u64 = 2;
/// Reads that wait for buffers; more fail as `Busy`.
pub const READS_WAITING_MAX: usize = 16_384;
