//! Limits of the simulated world, each with its reason.

/// Size of a simulated device for each shard: small, so that its log ring turns around many times.
pub const DEVICE_BYTES: u64 = 48 << 20;
/// The same where space is to run out: some 1,900 data blocks.
pub const DEVICE_BYTES_TIGHT: u64 = 12 << 20;
/// Log ring of each shard: the smallest that a store takes, so that checkpoints are frequent.
pub const LOG_BYTES: u64 = 1 << 20;
/// Buffers of one process.
pub const POOL_BYTES: usize = 24 << 20;
/// After all faults have stopped everything is healthy within this much simulated time: a silent
/// connection costs 4 s, a search for a leader with doubled time-outs a few more.
pub const HEAL_WITHIN_US: u64 = 40_000_000;
/// Turns after which a run is given up: a loop that does not let time pass.
pub const EVENTS_MAX: u64 = 20_000_000;
/// Lines of the trace kept for a failure.
pub const TRACE_LINES: usize = 400;
