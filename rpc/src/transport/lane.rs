//! A lane: a path beside TCP, through which [`NetTransport`](super::net::NetTransport) sends the
//! frames of the connections that agreed on it.
//!
//! ```text
//!          open          attach            probe (both ways)
//! nothing ------> open ---------> attached -----------------> in use
//!                   |                |                          |
//!                   +--- close ------+---- close, or Broken ----+---> nothing
//! ```
//! Every connection begins on TCP and stays known by its TCP id. The two ends exchange, over TCP,
//! the addresses of their lanes and a key for the connection; the key tells a lane to which of its
//! connections a message belongs.
//!
//! The owner polls a lane in every turn while connections are open in it, and from time to time
//! otherwise.
//!
//! A lane keeps a connection alive by itself (PING over the lane) and finds silent and stalled
//! peers. Frames of a connection arrive in the order in which they were sent.

use std::fmt;

use ogive_buf::Pool;
use ogive_types::Time;

use super::tcp::Timing;
use super::{CloseReason, ConnId, Incoming, Outgoing, Path, PathStats};

/// What a lane is told at its start.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Where payloads are received.
    pub pool: Pool,
    /// Time-outs; keep-alive and stalled peers are the lane's own business.
    pub timing: Timing,
    /// Connections at once.
    pub connections_max: usize,
}

/// Version of the library under a lane. Both ends of a connection need the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneVersion {
    /// Changes when programs must be changed.
    pub major: u16,
    /// Changes when what goes over the wire may have changed.
    pub minor: u16,
}

impl fmt::Display for LaneVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One way to reach peers beside TCP, owned and polled by one thread.
pub trait Lane {
    /// Which path it is; never [`Path::Tcp`].
    fn path(&self) -> Path;

    /// Version of the library under it.
    fn version(&self) -> LaneVersion;

    /// How the lane of a peer reaches this one, at most
    /// [`LANE_ADDRESS_BYTES_MAX`](crate::limits::LANE_ADDRESS_BYTES_MAX) bytes.
    fn address(&self) -> &[u8];

    /// Begins a connection, and returns the key by which the peer's messages for `conn` will be
    /// known. Panics when `conn` is open already.
    fn open(&mut self, conn: ConnId) -> u64;

    /// The address of the peer's lane, and the peer's key for `conn`, are known. The text of an
    /// `Err` is short and says what went wrong; `close` follows.
    fn attach(&mut self, conn: ConnId, address: &[u8], key: u64, now: Time) -> Result<(), String>;

    /// Sends a sign of life, on which the other end reports [`LaneEvent::Probed`].
    fn probe(&mut self, conn: ConnId, now: Time);

    /// Queues a frame; `flush` sends it. On an unknown or closed connection it is dropped.
    fn send(&mut self, conn: ConnId, frame: Outgoing, now: Time);

    /// Whether everything sent on a connection has left for good, so that it reaches the peer
    /// though `close` follows. Asked again and again until it is so. True when the connection is
    /// unknown or broken.
    fn is_drained(&mut self, conn: ConnId) -> bool;

    /// Ends a connection, in whatever state, at once and silently: no event of it follows. Nothing
    /// happens when it is unknown.
    fn close(&mut self, conn: ConnId);

    /// Makes progress without blocking, and appends what happened. True when anything did.
    fn poll(&mut self, now: Time, events: &mut Vec<LaneEvent>) -> bool;

    /// Sends what `send` queued.
    fn flush(&mut self, now: Time);

    /// When `poll` must be called again even if the descriptor is quiet.
    fn next_deadline(&self) -> Time;

    /// Arms the descriptor. False when something came meanwhile: poll again.
    fn prepare_sleep(&mut self) -> bool;

    /// A descriptor that is readable whenever `poll` would find something, once `prepare_sleep`
    /// returned true.
    fn wake_fd(&self) -> std::os::fd::RawFd;

    /// Counters.
    fn stats(&self) -> PathStats;
}

/// What a lane reports.
#[derive(Debug)]
pub enum LaneEvent {
    /// The probe of the other end arrived.
    Probed {
        /// The connection.
        conn: ConnId,
    },
    /// A frame arrived.
    Received {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Incoming,
    },
    /// The connection can no longer be used; the last event about it.
    Broken {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}
