//! Limits of this crate, each with its reason.

use std::time::Duration;

/// Largest read or write request; what the protocol asks of every server, and what Linux and QEMU
/// stay below.
pub const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// Requests of one connection in flight. Linux sends at most 128 by default; the rest stays in the
/// socket.
pub const REQUESTS_MAX: usize = 256;
/// Data of one connection in flight, in either direction, past which no new request is read: one of
/// the largest, so that the worst case is twice that.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Pieces of one long `WRITE_ZEROES | NO_HOLE` in flight: as busy as a client with a queue of that
/// depth.
pub const ZERO_PIECES_MAX: u32 = 8;
/// Longest option data in the handshake: a name and a few context queries, with room to spare.
pub const OPTION_BYTES_MAX: usize = 16 << 10;
/// Longest name, by the protocol.
pub const NAME_BYTES_MAX: usize = 4096;
/// Options in one handshake; a client needs fewer than ten.
pub const OPTIONS_MAX: u32 = 256;
/// Most bytes that one block status request looks at. An answer may always be shorter than asked.
pub const STATUS_BYTES_MAX: u64 = 1 << 30;
/// Extents in one block status answer (64 KiB of them).
pub const EXTENTS_MAX: usize = 8192;
/// Connections of one server; a client with many queues opens 16.
pub const CONNECTIONS_MAX: usize = 128;
/// A handshake takes a few round trips; who needs longer is not an NBD client.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes received ahead of what is understood: the longest option with its header, or several small
/// writes.
pub const STAGING_BYTES: usize = OPTION_BYTES_MAX + 16384;
/// Bytes that one poll takes from one connection before the others have their turn.
pub const POLL_BYTES_MAX: usize = 1 << 20;
/// How soon to look again when the buffer pool was empty.
pub const STARVED_RETRY: Duration = Duration::from_millis(1);
/// Connections that wait to be accepted.
pub const BACKLOG: i32 = 64;
/// Messages of the control side that wait for the loop: one answer for each segment that a burst of
/// first writes touches, many times over.
pub const CONTROL_QUEUE: usize = 4096;
/// Longest wait for requests in flight when a gateway is told to end: what init systems grant, less
/// the time to detach.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Volumes of one gateway: each has a transport with a descriptor that the reactor waits on, and a
/// reactor waits on few.
pub const VOLUMES_MAX: usize = 48;

const _: () = assert!(VOLUMES_MAX + 4 <= ogive_reactor::limits::WAKE_FDS_MAX);
