//! Limits of this crate, each with its reason.

use ogive_types::MAX_IO_BYTES;

/// Longest body: an append of many small entries, or the checksums of a chunk, with room to spare.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// Longest payload: one I/O of the largest size.
pub const PAYLOAD_BYTES_MAX: usize = MAX_IO_BYTES;
