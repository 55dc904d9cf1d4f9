//! One end of a connection over a lane: its endpoint, what it receives, what it has under way.

use std::time::Duration;

use ogive_types::Time;
use ogive_ucx::{Data, Endpoint, Kept, Pending};

use super::inbox::Inbox;
use super::pull::{Offer, Peer};
use crate::limits::{PING_EARLY_PART, SEND_QUEUE_BYTES_SOFT, SILENT_AFTER};
use crate::transport::tcp::Timing;
use crate::transport::{CloseReason, ConnId};

/// Payload that waits for a buffer: held in UCX's memory, or still with the sender.
pub(super) enum Held {
    Eager(Kept),
    Rendezvous(Pending),
    Offer(Offer),
}

impl Held {
    pub(super) fn len(&self) -> usize {
        match self {
            Held::Eager(kept) => kept.len(),
            Held::Rendezvous(pending) => pending.len(),
            Held::Offer(offer) => offer.len,
        }
    }
}

/// See the module.
pub(super) struct Conn {
    pub(super) id: ConnId,
    /// By which the peer's messages are known to be for us.
    pub(super) key: u64,
    /// The peer's end; none before `attach`.
    pub(super) remote: Option<Remote>,
    pub(super) inbox: Inbox<Held>,
    /// The peer can read our memory.
    pub(super) reads_us: bool,
    /// The end is known and was told to the owner, who will close it.
    pub(super) broken: bool,
    pub(super) last_received: Time,
    pub(super) last_sent: Time,
    /// Bytes in operations that UCX has not ended.
    pub(super) queued_bytes: usize,
    /// When they became too many.
    pub(super) stalled_since: Option<Time>,
    /// The last flush, before the end.
    pub(super) last_flush: LastFlush,
}

/// Whether what was sent has arrived, as UCX knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastFlush {
    NotBegun,
    UnderWay,
    Done,
}

/// The other end.
pub(super) struct Remote {
    pub(super) endpoint: Endpoint,
    /// By which our messages are known there.
    pub(super) key: u64,
    /// Number of the next message.
    pub(super) seq: u64,
    /// The endpoint is connected for good, and may be closed.
    pub(super) settled: bool,
    /// The peer's process, when its memory can be read.
    pub(super) memory: Option<Peer>,
}

/// What is due on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    At(Time),
    Ping,
    Broken(CloseReason),
}

impl Conn {
    pub(super) fn new(id: ConnId, key: u64) -> Conn {
        Conn {
            id,
            key,
            remote: None,
            inbox: Inbox::default(),
            reads_us: false,
            broken: false,
            last_received: Time(0),
            last_sent: Time(0),
            queued_bytes: 0,
            stalled_since: None,
            last_flush: LastFlush::NotBegun,
        }
    }

    /// A message for this key is for this end, as long as it can be used.
    pub(super) fn answers_to(&self, key: u64) -> bool {
        self.key == key && !self.broken
    }

    /// Notes that `bytes` more are under way.
    pub(super) fn queued(&mut self, bytes: usize, now: Time) {
        self.queued_bytes += bytes;
        if self.queued_bytes > SEND_QUEUE_BYTES_SOFT {
            self.stalled_since.get_or_insert(now);
        }
    }

    /// Notes that `bytes` have arrived there, or never will.
    pub(super) fn unqueued(&mut self, bytes: usize) {
        assert!(bytes <= self.queued_bytes, "no more ends than was begun");
        self.queued_bytes -= bytes;
        if self.queued_bytes <= SEND_QUEUE_BYTES_SOFT {
            self.stalled_since = None;
        }
    }

    /// What is due at `now`. Before the ends know each other the owner keeps the time; a connection
    /// whose data wait for a buffer of ours is not called silent.
    ///
    /// | since | longer than | then |
    /// |---|---|---|
    /// | the last message came | `silent_after` | `Silent` |
    /// | too many bytes are under way | `stalled_after` | `Stalled` |
    /// | the last message was sent | `ping_after` | PING |
    pub(super) fn due(&self, timing: &Timing, now: Time) -> Due {
        if self.remote.is_none() || self.broken {
            return Due::At(Time::NEVER);
        }
        let waits = self.inbox.waiting() > 0;
        let silent =
            if waits { now + SILENT_AFTER } else { self.last_received + timing.silent_after };
        if silent <= now {
            let ms = now.since(self.last_received).as_millis();
            return Due::Broken(CloseReason::Silent(ms as u64));
        }
        let stalled = self.stalled_since.map_or(Time::NEVER, |since| since + timing.stalled_after);
        if stalled <= now {
            return Due::Broken(CloseReason::Stalled(self.queued_bytes));
        }
        let ping = self.last_sent + timing.ping_after.max(Duration::from_millis(1));
        // As over TCP, PINGs that are due soon go with those that are.
        if ping <= now + timing.ping_after / PING_EARLY_PART {
            Due::Ping
        } else {
            Due::At(silent.min(stalled).min(ping))
        }
    }
}

impl From<Data<'_>> for Held {
    fn from(data: Data<'_>) -> Held {
        match data {
            Data::Eager(bytes) => Held::Eager(bytes.keep()),
            Data::Rendezvous(pending) => Held::Rendezvous(pending),
        }
    }
}
