//! Connections that come and go, and requests that stay unanswered.

use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::ConnId;
use ogive_types::{ShardAddr, Time};

use super::{Client, Ready};
use crate::api::ClientEffect;
use crate::part::{PartKey, PartState};
use crate::peers::{PeerState, Pending};
use crate::timers::Timer;

impl Client {
    pub(super) fn on_up(&mut self, conn: ConnId, hello: &Hello, now: Time) {
        let Some(addr) = self.peers.at(conn) else { return };
        let expected = Identity::Shard { server: addr.server, shard: addr.shard };
        if hello.cluster != self.spec.cluster || hello.identity != expected {
            // Its address has a new owner: what is known of the cluster is out of date.
            tracing::warn!(%addr, found = ?hello.identity, "another peer than expected");
            self.drop_conn(conn, now);
            return self.ask_topology(now);
        }
        self.timers.cancel(Timer::Peer(addr));
        self.requests.opened(conn, hello);
        let peer = self.peers.peer(addr);
        peer.state = PeerState::Up { conn };
        for copyset in std::mem::take(&mut peer.probes) {
            self.send_probe(copyset, addr, conn, now);
        }
    }

    /// Closes a connection of our own accord.
    pub(super) fn drop_conn(&mut self, conn: ConnId, now: Time) {
        if let Some(addr) = self.peers.forget(conn) {
            self.effects.push(ClientEffect::Close { conn });
            self.on_down(addr, conn, now);
        }
    }

    /// A connection is gone: whatever waited on it goes elsewhere.
    pub(super) fn on_down(&mut self, addr: ShardAddr, conn: ConnId, now: Time) {
        let orphans = self.requests.closed(conn);
        self.peer_down(addr, now);
        for (_, pending) in orphans {
            match pending {
                Pending::Part(key) => self.part_lost(key, conn, now),
                Pending::Probe(copyset, _) => self.probe_refused(copyset, addr, None, now),
            }
        }
    }

    fn peer_down(&mut self, addr: ShardAddr, now: Time) {
        self.timers.cancel(Timer::Peer(addr));
        let (min, max) = (self.opts.backoff_min, self.opts.backoff_max);
        let peer = self.peers.peer(addr);
        peer.failures += 1;
        let pause = self.jitter.pause(peer.failures, min, max);
        peer.state = PeerState::Down { not_before: now + pause };
        let probes = std::mem::take(&mut peer.probes);
        for pending in std::mem::take(&mut peer.credit) {
            match pending {
                Pending::Part(key) => self.requeue(key),
                Pending::Probe(copyset, _) => self.probe_refused(copyset, addr, None, now),
            }
        }
        for copyset in probes {
            self.probe_refused(copyset, addr, None, now);
        }
    }

    pub(super) fn connect_late(&mut self, addr: ShardAddr, now: Time) {
        match self.peers.peer(addr).state {
            PeerState::Connecting { conn: Some(conn) } => self.drop_conn(conn, now),
            PeerState::Connecting { conn: None } => self.peer_down(addr, now),
            PeerState::Up { .. } | PeerState::Down { .. } => {}
        }
    }

    /// A part was sent on `conn` and will not be answered there.
    fn part_lost(&mut self, key: PartKey, conn: ConnId, now: Time) {
        let Some(part) = self.parts.get(key) else { return };
        let PartState::Sent(sent) = part.state else { return };
        if sent.conn != conn {
            return;
        }
        self.stats.retries += 1;
        self.requeue(key);
        self.leader_lost(sent.copyset, sent.to, None, now);
    }

    /// Gives up on requests that took too long.
    pub(super) fn expire(&mut self, now: Time) {
        let mut late = Vec::new();
        self.requests.expire(now, &mut late);
        for (conn, _, pending) in late {
            self.stats.timeouts += 1;
            match pending {
                Pending::Probe(copyset, from) => self.probe_refused(copyset, from, None, now),
                Pending::Part(key) => self.part_late(key, conn, now),
            }
        }
    }

    /// A part got no answer in time. If it changes data it may still sit in a queue on its way to
    /// the leader, so its connection is closed before it is sent again: see
    /// `design/0001-order-and-retries.md`.
    fn part_late(&mut self, key: PartKey, conn: ConnId, now: Time) {
        let Some(part) = self.parts.get_mut(key) else { return };
        part.timeouts = part.timeouts.saturating_add(1);
        let close = part.changes_data();
        self.part_lost(key, conn, now);
        if close && !self.keeps_late_conn() {
            self.drop_conn(conn, now);
        }
    }

    /// A connection that works: the next failure starts from the shortest pause.
    pub(super) fn heard(&mut self, addr: ShardAddr) {
        self.peers.peer(addr).failures = 0;
    }

    /// Tries a part again after a pause that grows.
    pub(super) fn pause_part(&mut self, key: PartKey, now: Time) {
        let Some(part) = self.parts.get_mut(key) else { return };
        if self.ops.get(part.op).is_none_or(|op| op.error.is_some()) {
            let op = part.op;
            self.drop_part(key);
            return self.ready.push_back(Ready::Op(op));
        }
        part.pauses = part.pauses.saturating_add(1);
        part.state = PartState::Pause;
        self.stats.retries += 1;
        let (min, max) = (self.opts.backoff_min, self.opts.backoff_max);
        let pause = self.jitter.pause(part.pauses, min, max);
        self.timers.arm(Timer::Part(key), now + pause);
    }

    #[cfg(not(test))]
    pub(super) fn keeps_late_conn(&self) -> bool {
        false
    }
}
