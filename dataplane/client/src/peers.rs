//! Connections to shards, at most one for each.
//!
//! ```text
//!          wanted                 HELLO done
//!   Down ──────────> Connecting ─────────────> Up
//!    ^                   │ refused, late        │ closed
//!    └───────────────────┴──────────────────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};

use ogive_rpc::transport::ConnId;
use ogive_types::{CopysetId, Incarnation, ShardAddr, Time};

use crate::part::PartKey;

/// What a request in flight is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// A part.
    Part(PartKey),
    /// A question to this member, whether it leads the copyset.
    Probe(CopysetId, ShardAddr),
}

/// See the module's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// No connection; none is tried before the given moment.
    Down { not_before: Time },
    /// On its way; the owner's name for it is `None` until it tells.
    Connecting { conn: Option<ConnId> },
    /// Up.
    Up { conn: ConnId },
}

/// One shard.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) state: PeerState,
    /// Of the newest connection to it.
    pub(crate) incarnation: Incarnation,
    /// Connections in a row that failed before anything was heard.
    pub(crate) failures: u32,
    /// Copysets whose search waits for the connection.
    pub(crate) probes: Vec<CopysetId>,
    /// What waits for credit, in order.
    pub(crate) credit: VecDeque<Pending>,
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            state: PeerState::Down { not_before: Time(0) },
            incarnation: Incarnation(0),
            failures: 0,
            probes: Vec::new(),
            credit: VecDeque::new(),
        }
    }
}

/// All shards that were wanted so far.
#[derive(Default)]
pub(crate) struct Peers {
    peers: BTreeMap<ShardAddr, Peer>,
    conns: BTreeMap<ConnId, ShardAddr>,
    incarnation: u32,
}

impl Peers {
    pub(crate) fn peer(&mut self, addr: ShardAddr) -> &mut Peer {
        self.peers.entry(addr).or_default()
    }

    /// Who is at the other end of a connection that is still wanted.
    pub(crate) fn at(&self, conn: ConnId) -> Option<ShardAddr> {
        self.conns.get(&conn).copied()
    }

    /// Marks the start of a connection. Each one, to whichever shard, gets a higher incarnation
    /// than all before it, so that a shard that has seen it refuses what older connections still
    /// deliver.
    pub(crate) fn begin(&mut self, addr: ShardAddr) {
        self.incarnation += 1;
        let incarnation = Incarnation(self.incarnation);
        let peer = self.peer(addr);
        assert!(matches!(peer.state, PeerState::Down { .. }), "one connection for each shard");
        peer.state = PeerState::Connecting { conn: None };
        peer.incarnation = incarnation;
    }

    /// Takes the name of a connection that was begun; false when it is not wanted any more.
    pub(crate) fn named(&mut self, addr: ShardAddr, conn: ConnId) -> bool {
        let peer = self.peer(addr);
        if peer.state != (PeerState::Connecting { conn: None }) {
            return false;
        }
        peer.state = PeerState::Connecting { conn: Some(conn) };
        self.conns.insert(conn, addr);
        true
    }

    /// Forgets a connection.
    pub(crate) fn forget(&mut self, conn: ConnId) -> Option<ShardAddr> {
        self.conns.remove(&conn)
    }

    /// The shards that have a connection or one on its way.
    pub(crate) fn connected(&self) -> Vec<(ShardAddr, ConnId)> {
        self.conns.iter().map(|(&conn, &addr)| (addr, conn)).collect()
    }

    /// Takes a part out of the row for credit.
    pub(crate) fn forget_waiting(&mut self, addr: ShardAddr, part: PartKey) {
        self.peer(addr).credit.retain(|&p| p != Pending::Part(part));
    }
}
