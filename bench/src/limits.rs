//! Bounds on everything in this crate that can grow.

use std::time::Duration;

/// Most requests in flight on one connection. More would only queue in the server; it also bounds
/// the table of slots.
pub const MAX_DEPTH: usize = 1024;

/// Most connections of one run: one thread drives them all.
pub const MAX_CONNECTIONS: usize = 64;

/// Largest request in bytes: what NBD servers accept without being asked (32 MiB by the protocol).
pub const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Most bytes in flight over all connections: they are held in memory.
pub const MAX_IN_FLIGHT_BYTES: usize = 1 << 30;

/// Most blocks that a verifying run may touch: the model keeps about 50 bytes for each, so 1.6 GiB.
pub const MAX_VERIFIED_BLOCKS: u64 = 32 << 20;

/// Faults that a report lists in full; the others are only counted.
pub const MAX_LISTED_FAULTS: usize = 32;

/// Writes of unknown outcome that one block may carry before no further write is sent to it: each
/// is a value that a read may return, so a block with many would prove nothing.
pub const MAX_UNKNOWN_PER_BLOCK: usize = 16;

/// Longest option reply of a server that is read, in bytes; the protocol bounds strings at 4096.
pub const MAX_OPTION_REPLY_BYTES: u32 = 8192;

/// Longest wait for a server to answer the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between attempts to connect again: short beside the gaps that are measured.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(5);

/// Time between two progress reports.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Longest sleep of the loop, so that a stop request is seen soon.
pub const MAX_SLEEP: Duration = Duration::from_millis(20);

/// The same while a connection is being made again, so that the gap is not lengthened.
pub const SEARCH_SLEEP: Duration = Duration::from_millis(1);

/// Longest latency that a histogram tells apart, in nanoseconds; longer ones count as this.
pub const MAX_LATENCY_NS: u64 = 600_000_000_000;

/// Bytes of one read of the final read-back: large enough to be quick, small enough for any server.
pub const READ_BACK_BYTES: usize = 128 << 10;

/// Unanswered requests are given up this long after the end of the load, and after each reply of
/// the final read-back; the time allowed to connect again comes on top.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest message of the RPC benchmark: the largest payload that the transports take.
pub const MAX_RPC_BYTES: usize = ogive_rpc::limits::PAYLOAD_BYTES_MAX;

/// Most requests in flight of the RPC benchmark.
pub const MAX_RPC_DEPTH: usize = 1024;

/// Most bytes in flight of the RPC benchmark: below what a send queue holds before its owner is
/// taken for one that does not read, and deeper only measures memory.
pub const MAX_RPC_IN_FLIGHT_BYTES: usize = 32 << 20;

/// Most rounds of the RPC benchmark; all of their figures are kept.
pub const MAX_RPC_ROUNDS: usize = 1000;

/// A measurement without an answer for this long has failed.
pub const RPC_STALL: Duration = Duration::from_secs(10);

/// The answering end spins this long without anything to do, then sleeps: whose turn it is not must
/// not take the core of another. Far longer than a scheduler's slice, so that it does not sleep
/// within a measurement.
pub const RPC_IDLE: Duration = Duration::from_millis(10);

/// Fewest messages of one run of `ucx_perftest`: it has to warm up too.
pub const PERFTEST_MESSAGES_MIN: u64 = 100;

/// Most messages of one run of `ucx_perftest`.
pub const PERFTEST_MESSAGES_MAX: u64 = 1 << 30;

/// One run of `ucx_perftest` is given up after this; it has no bound of its own.
pub const PERFTEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Most requests in flight of the store benchmark.
pub const MAX_STORE_DEPTH: usize = 256;

/// Most rounds of the store benchmark; all of their figures are kept.
pub const MAX_STORE_ROUNDS: usize = 1000;

/// Memory for the buffers of the store benchmark: far more than is in flight.
pub const STORE_POOL_BYTES: usize = 256 << 20;

/// A device that has not answered for this long has failed.
pub const STORE_STALL: Duration = Duration::from_secs(30);

/// Largest mapped size that the store benchmark makes: beyond it, its maps take hours to write.
pub const STORE_MAPPED_MAX: u64 = 4 << 40;

/// One run of fio is given up this long after it should have ended.
pub const FIO_GRACE: Duration = Duration::from_secs(60);

/// Writing until checkpoints have ended is given up after this.
pub const CHECKPOINTS_TIMEOUT: Duration = Duration::from_secs(120);

/// A client that records a history gives a request up after this: longer than any failover, short
/// beside the faults that do not end by themselves.
pub const HISTORY_PATIENCE: Duration = Duration::from_secs(5);

/// Between two requests of such a client: with a handful of clients, a history of some hundred
/// operations a second, which an hour of them can be kept of in memory.
pub const HISTORY_PAUSE: Duration = Duration::from_millis(4);

const _: () = assert!(MAX_DEPTH <= u32::MAX as usize);
const _: () = assert!(READ_BACK_BYTES.is_multiple_of(4096) && READ_BACK_BYTES <= MAX_REQUEST_BYTES);
