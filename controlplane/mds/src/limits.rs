//! Limits of a metadata server, each with its reason.

use std::time::Duration;

/// Commands that may wait for the log. More than that means that the disk does not keep up: callers
/// are told to come again rather than left to time out.
pub const PROPOSALS_WAITING_MAX: usize = 1024;

/// Commands of one log entry: enough to hide the cost of an fsync, few enough that an entry stays
/// below a megabyte.
pub const COMMANDS_PER_ENTRY_MAX: usize = 128;

/// Log entries after which a snapshot is taken. With entries of some hundred bytes the log stays in
/// the megabytes, and a restart replays it in milliseconds.
pub const ENTRIES_PER_SNAPSHOT: u64 = 4096;

/// Log entries kept behind a snapshot, so that a server that was away for a moment needs no
/// snapshot.
pub const ENTRIES_KEPT: u64 = 2048;

/// Entries of one append message; with [`COMMANDS_PER_ENTRY_MAX`] that stays below
/// [`MESSAGE_BYTES_MAX`] by far.
pub const ENTRIES_PER_APPEND_MAX: u64 = 64;

/// Log operations written in one transaction.
pub const OPS_PER_COMMIT_MAX: usize = 256;

/// Bytes of a snapshot sent at once.
pub const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;

/// Largest message between or to servers; a heartbeat of a chunkserver with thousands of replicas
/// takes a megabyte.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Time that a change may take before the caller is told that no majority answers.
pub const WRITE_TIMEOUT: Duration = Duration::from_millis(1900);

/// Time that a read may take to learn that this server still leads.
pub const READ_TIMEOUT: Duration = Duration::from_millis(1500);

/// Age up to which an earlier proof of leadership does for signs of life, which change nothing that
/// is replicated.
pub const PROOF_AGE_MAX: Duration = Duration::from_millis(400);

/// Time to wait before asking an unreachable server again.
pub const PEER_BACKOFF: Duration = Duration::from_millis(200);

/// Longest wait for a connection to another server.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// Time for running requests to end at shutdown.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Volumes of one page of a listing.
pub const VOLUMES_PER_PAGE_MAX: u32 = 1000;

/// Segment numbers looked at in one request.
pub const SEGMENTS_PER_REPLY_MAX: u32 = 4096;

/// Replica reports of one heartbeat: what all shards of one chunkserver may hold.
pub const REPORTS_MAX: usize = 65_536;

/// Log entries up to which a follower counts as caught up. A busy leader always is a few batches
/// ahead.
pub const CAUGHT_UP_LAG_MAX: u64 = 1024;

/// Servers of one group.
pub const PEERS_MAX: usize = 9;

/// Connections that may run requests at once, per connection; the rest waits in the socket.
pub const REQUESTS_PER_CONNECTION_MAX: usize = 256;

/// How long a token holds. A peer whose token has ended cannot connect, so this bounds how long
/// data I/O goes on without metadata servers: a week covers the longest weekend. A shorter life
/// would not make a stolen token much less dangerous: whoever could read one can read the next.
pub const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token is renewed when it has lost so much of its life: an outage begins with nearly all of it,
/// at the cost of one signature an hour and holder.
pub const TOKEN_RENEW_EVERY: Duration = Duration::from_secs(3600);

/// Paths that a process may report on; this release knows three.
pub const PATHS_MAX: usize = 8;

/// Bytes of a path's name.
pub const PATH_NAME_BYTES_MAX: usize = 16;

/// Reasons given in a status; the rest is counted.
pub const REASONS_MAX: usize = 16;
