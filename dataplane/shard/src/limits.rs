//! Limits of this crate, each with its reason.

use std::time::Duration;

/// Requests that one peer or client may have unanswered here: a queue depth of 128 with splits,
/// several times over.
pub const CREDIT_REQUESTS: u32 = 1024;
/// Payload bytes that one peer or client may have unanswered here.
pub const CREDIT_BYTES: u64 = 64 << 20;
/// Client sessions remembered for the incarnation check; those without a connection are forgotten
/// first.
pub const SESSIONS_MAX: usize = 65_536;
/// Reads of one copyset that wait for an apply or a lease round; more are told to come back.
pub const READS_WAITING_MAX: usize = 4096;
/// Writes of one copyset that wait for their commit; more are told to come back.
pub const WRITES_WAITING_MAX: usize = 4096;
/// How long a peer may take to answer. Longer than a slow disk, since the answer to an append means
/// "persisted".
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A vote that comes later than this is of no use.
pub const VOTE_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause before the next try to connect to a peer, doubled from the first to the second.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between tries; short enough that a peer that restarted is found at once.
pub const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// Timers run on a grid of this step, so that the heartbeats of many copysets share a message and a
/// wake-up.
pub const TIMER_GRID: Duration = Duration::from_millis(10);
/// Blocks in one page of a delta: as much as a payload may hold.
pub const DELTA_BLOCKS: usize = 256;
/// Pages of one delta under way at once: enough to keep the follower's disk and the leader's busy
/// together.
pub const DELTA_PAGES_IN_FLIGHT: usize = 4;
/// Deltas that one shard sends at once.
pub const DELTAS_MAX: usize = 4;
/// Messages to one follower of one copyset that wait for payloads to be read back from the disk.
pub const OUTBOX_MAX: usize = 1024;
