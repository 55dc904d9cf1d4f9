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
/// How long a peer may take to answer with copies of damaged blocks: a few slow reads. A client
/// waits for it, and the next peer is asked after it.
pub const FETCH_TIMEOUT: Duration = Duration::from_millis(500);
/// Requests for copies that a shard has out at once.
pub const FETCHES_MAX: usize = 4;
/// Damaged blocks that a shard repairs or remembers; more are found again later.
pub const REPAIRS_MAX: usize = 4096;
/// Reads that wait for repairs, each with a buffer; more are told to come back.
pub const REPAIR_READERS_MAX: usize = 256;
/// Pause after all peers were asked in vain, doubled from the first to the second.
pub const REPAIR_RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest such pause: a peer that comes back with a good copy is asked within it.
pub const REPAIR_RETRY_MAX: Duration = Duration::from_secs(10);
/// Blocks that one step of a scrub reads: long enough for a disk to be efficient, short enough
/// that a client's read behind it does not wait long.
pub const SCRUB_BLOCKS: usize = 64;
/// Pause after a lap that met no data: a shard that has just started shows its data only when it
/// learns what is committed.
pub const SCRUB_EMPTY_PAUSE: Duration = Duration::from_secs(1);
/// Times that a step of a scrub gives way to other operations, a grid step each: under constant
/// load it takes place nevertheless.
pub const SCRUB_YIELDS_MAX: u32 = 20;
/// Damaged blocks found since the start with which a device is to be replaced: single blocks rot,
/// and a device that is well does not lose so many.
pub const DAMAGE_MAX: u64 = 64;
/// Blocks that could not be read since the start with which a device is to be replaced.
pub const IO_ERRORS_MAX: u64 = 8;
