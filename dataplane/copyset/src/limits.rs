//! Bounds on everything that can grow, each with its reason.

/// Most replicas of a copyset: nine survive four failures, and more would only slow every write.
pub const VOTERS_MAX: usize = 9;

/// Appends that a follower holds unanswered. Far above what one leader keeps in flight
/// ([`crate::Timing::inflight_max`]), so that only a misbehaving peer ever meets it.
pub const PENDING_APPENDS_MAX: usize = 4096;

/// Reads that wait for one confirmation of leadership. A round lasts one round trip, so this many
/// reads in one round trip of 50 us would be 80 million a second.
pub const PENDING_READS_MAX: usize = 4096;

/// Answers that wait for the term and vote to be on stable storage. They come from requests of at
/// most [`VOTERS_MAX`] peers and from the appends above, all of them answered within one save.
pub const PARKED_ANSWERS_MAX: usize = PENDING_APPENDS_MAX + 64 * VOTERS_MAX;

/// Entries by which the preferred leader may lag when leadership is handed to it: it gets them in
/// one or two round trips, while new writes wait.
pub const HANDOVER_LAG_MAX: u64 = 256;
