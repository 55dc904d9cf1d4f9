//! Limits of this crate, each with its reason.

/// Operations in flight: far above what all connections of a gateway may have together, so that it
/// only stops a caller that does not count.
pub const OPS_MAX: usize = 65_536;
/// Pieces of one operation in flight: keeps several copysets busy with a long trim without crowding
/// out others.
pub const PARTS_PER_OP_MAX: usize = 64;
/// Runs in one map answer (1 MiB of memory); a longer answer is cut short, which callers must
/// expect.
pub const MAP_RUNS_MAX: usize = 65_536;
/// Times that a read with bad checksums, or a write refused for them, is tried in all: one bad
/// transfer is forgiven.
pub const BAD_SUM_TRIES: u8 = 2;
/// Redirects of one request without a pause; past that, members disagree about the leader and need
/// time.
pub const REDIRECTS_MAX: u8 = 8;
/// Doublings of a time-out.
pub const TIMEOUT_DOUBLINGS_MAX: u8 = 4;
/// Bytes of zeroes kept to answer reads of unallocated segments from.
pub const ZERO_BYTES: usize = 64 << 10;
