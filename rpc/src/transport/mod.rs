//! Transports: how frames get from one process to another. One trait, polled by the reactor of the
//! owning thread.
//!
//! | module | what |
//! |---|---|
//! | [`net`] | [`net::NetTransport`], which owners use: meets over TCP, then takes the best path |
//! | [`tcp`] | TCP, always there |
//! | [`lane`] | what a faster path is to `net` |
//! | [`usage`] | what goes over which path, for operators |
//! | `path`, `endpoint` | the names of the paths; where a peer is met and what it offers |

mod endpoint;
pub mod lane;
pub mod net;
mod path;
pub mod tcp;
#[cfg(feature = "ucx")]
pub mod ucx;
pub mod usage;

pub use endpoint::{Endpoint, EndpointError};
pub use path::{Path, PathChoice, PathStats, UnknownPath};

use ogive_buf::Buf;
use ogive_types::Time;

use crate::hello::Hello;

/// A connection of one transport; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A frame to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Body's kind; 16 and above belong to the layers over this one.
    pub kind: u8,
    /// False for a request, true for its response.
    pub response: bool,
    /// Request id: chosen by the requester, echoed by the response.
    pub id: u64,
    /// For a request, milliseconds that the requester will wait; 0 means no bound.
    pub deadline_ms: u32,
    /// The small, encoded part.
    pub body: Vec<u8>,
    /// The data, sent from these buffers without a copy.
    pub payload: Vec<Buf>,
}

/// A frame that arrived, header and body checked against their checksums.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// As in [`Outgoing`].
    pub kind: u8,
    /// As in [`Outgoing`].
    pub response: bool,
    /// As in [`Outgoing`].
    pub id: u64,
    /// As in [`Outgoing`].
    pub deadline_ms: u32,
    /// As in [`Outgoing`].
    pub body: Vec<u8>,
    /// The data, in one aligned buffer of the pool; `None` when there was none.
    pub payload: Option<Buf>,
}

/// What a transport reports.
#[derive(Debug)]
pub enum Event {
    /// The connection is up and both HELLOs are done. For outgoing ones too.
    Connected {
        /// The connection.
        conn: ConnId,
        /// What the peer said.
        peer: Hello,
        /// True when the peer connected to us.
        inbound: bool,
    },
    /// A frame arrived.
    Received {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Incoming,
    },
    /// The connection is gone, or was never made; the last event about it.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// We closed it.
    #[error("closed by this side")]
    Local,
    /// The peer closed it, or its process died.
    #[error("closed by the peer")]
    Peer,
    /// It could not be made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The system reported an error.
    #[error("connection failed: {0}")]
    System(String),
    /// The peer broke the protocol.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The peer speaks another version, is of another cluster, or has a bad token.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing was heard from the peer for too long.
    #[error("peer silent for {0} ms")]
    Silent(u64),
    /// The peer does not read what it is sent.
    #[error("peer does not read: {0} bytes queued")]
    Stalled(usize),
}

/// A transport, owned by one thread and polled by its reactor.
pub trait Transport {
    /// Starts connecting; `Connected` or `Closed` follows.
    fn connect(&mut self, to: &Endpoint, now: Time) -> ConnId;

    /// Queues a frame; `flush` sends it. On a connection that is closed or not yet up the frame is
    /// dropped: the `Closed` event is, or will be, reported to whoever waits. Panics when body or
    /// payload is longer than [`crate::limits`] allow, or the kind is not one of the upper layers'.
    fn send(&mut self, conn: ConnId, frame: Outgoing, now: Time);

    /// Closes a connection; `Closed` follows from the next poll.
    fn close(&mut self, conn: ConnId, reason: CloseReason);

    /// Makes progress without blocking, and appends what happened. True when anything did, but for
    /// keep-alive.
    fn poll(&mut self, now: Time, events: &mut Vec<Event>) -> bool;

    /// Sends what `send` queued; called once per turn of the loop, after all of its sends. What the
    /// network does not take now is sent by later polls.
    fn flush(&mut self, now: Time);

    /// When `poll` must be called again even if the descriptor is quiet (keep-alive, time-outs,
    /// events that are already known).
    fn next_deadline(&self) -> Time;

    /// Arms the descriptor; called before each sleep on it, after the last `poll`. False when
    /// something came meanwhile: poll again before sleeping.
    fn prepare_sleep(&mut self) -> bool {
        true
    }

    /// A descriptor that is readable whenever `poll` would find something, once `prepare_sleep`
    /// returned true.
    fn wake_fd(&self) -> std::os::fd::RawFd;
}
