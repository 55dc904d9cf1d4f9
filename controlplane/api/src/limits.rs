//! Limits of the client, each with its reason.

use std::time::Duration;

/// Deadline of a call, redirects and retries included: well past an election (about 1 s), short
/// enough that a person waits for the message.
pub const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait for one server before the next is asked: a metadata write takes milliseconds, an
/// election a second.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(2000);

/// Longest wait for a TCP connection: two lost SYNs would take 3 s, and the other servers may well
/// be up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// First and longest pause after all servers failed.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// Redirects followed without a pause; more means that the servers disagree, as in an election.
pub const REDIRECTS_MAX: u32 = 3;

/// Metadata servers that a client may be given: a Raft group of more than 9 is a mistake.
pub const ADDRESSES_MAX: usize = 16;

/// Largest message in either direction: a status of a full cluster.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
