//! Connections to the other shards, and the requests that we have sent to them.
//!
//! We call others on connections that we make ourselves; what others ask of us comes on theirs. A
//! peer is connected to as soon as it shares a copyset with us and its endpoint is known, and again
//! whenever the connection is lost.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ogive_buf::Buf;
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::requests::Requests;
use ogive_rpc::transport::{CloseReason, ConnId, Endpoint, Outgoing};
use ogive_types::message::{Kind, ReplicaRequest, encode};
use ogive_types::{CopysetId, ShardAddr, Time};

use crate::event::Effect;
use crate::limits::{CALL_TIMEOUT, FETCH_TIMEOUT, RECONNECT_FIRST, RECONNECT_MAX, VOTE_TIMEOUT};

/// A request to a peer that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerCall {
    pub(crate) to: ShardAddr,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Vote(CopysetId),
    Append(CopysetId),
    Heartbeats,
    Delta(CopysetId),
    DeltaEnd(CopysetId),
    TimeoutNow(CopysetId),
    /// Blocks for repairs; the number of the fetch.
    Fetch(u64),
}

#[derive(Default)]
pub(crate) struct Peers {
    known: BTreeMap<ShardAddr, Peer>,
    by_conn: HashMap<ConnId, ShardAddr>,
    requests: Requests<PeerCall>,
    expired: Vec<(ConnId, u64, PeerCall)>,
}

struct Peer {
    endpoint: Option<Endpoint>,
    wanted: bool,
    link: Link,
    retry_at: Time,
    pause: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    /// Asked for; the connection's id comes with [`crate::Event::Connecting`].
    Asked,
    Connecting(ConnId),
    Up(ConnId),
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            endpoint: None,
            wanted: false,
            link: Link::Down,
            retry_at: Time(0),
            pause: RECONNECT_FIRST,
        }
    }
}

impl Peers {
    /// The peer shares a copyset with us: stay connected to it.
    pub(crate) fn want(&mut self, peer: ShardAddr) {
        self.known.entry(peer).or_default().wanted = true;
    }

    /// Where peers listen. A connection to an address that changed is closed, to be made anew.
    pub(crate) fn set_endpoints(
        &mut self,
        all: BTreeMap<ShardAddr, Endpoint>,
        out: &mut Vec<Effect>,
    ) {
        for (addr, endpoint) in all {
            let peer = self.known.entry(addr).or_default();
            if peer.endpoint.as_ref() == Some(&endpoint) {
                continue;
            }
            peer.endpoint = Some(endpoint);
            peer.retry_at = Time(0);
            peer.pause = RECONNECT_FIRST;
            if let Link::Up(conn) | Link::Connecting(conn) = peer.link {
                out.push(Effect::Close { conn, reason: CloseReason::Local });
            }
        }
    }

    /// Connects where a connection is wanted, possible and due.
    pub(crate) fn maintain(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (&addr, peer) in &mut self.known {
            let due = peer.wanted && peer.link == Link::Down && peer.retry_at <= now;
            if let (true, Some(endpoint)) = (due, peer.endpoint.clone()) {
                peer.link = Link::Asked;
                out.push(Effect::Connect { peer: addr, endpoint });
            }
        }
    }

    pub(crate) fn connecting(&mut self, addr: ShardAddr, conn: ConnId) {
        if let Some(peer) = self.known.get_mut(&addr) {
            peer.link = Link::Connecting(conn);
            self.by_conn.insert(conn, addr);
        }
    }

    /// An outgoing connection is up. Closes it when another shard than the one asked for answered
    /// (an address that was given to somebody else); the peer when it can be used.
    pub(crate) fn connected(
        &mut self,
        conn: ConnId,
        hello: &Hello,
        out: &mut Vec<Effect>,
    ) -> Option<ShardAddr> {
        let &addr = self.by_conn.get(&conn)?;
        let said = match hello.identity {
            Identity::Shard { server, shard } => Some(ShardAddr { server, shard }),
            Identity::Client { .. } => None,
        };
        if said != Some(addr) {
            let reason = CloseReason::Refused(format!("expected shard {addr}, found {said:?}"));
            out.push(Effect::Close { conn, reason });
            return None;
        }
        let peer = self.known.get_mut(&addr).expect("by_conn names known peers");
        peer.link = Link::Up(conn);
        peer.pause = RECONNECT_FIRST;
        self.requests.opened(conn, hello);
        Some(addr)
    }

    /// A connection ended. If it was one of ours: the peer, and the calls that died with it.
    pub(crate) fn closed(&mut self, conn: ConnId, now: Time) -> Option<(ShardAddr, Vec<PeerCall>)> {
        let addr = self.by_conn.remove(&conn)?;
        let peer = self.known.get_mut(&addr).expect("by_conn names known peers");
        peer.link = Link::Down;
        peer.retry_at = now + peer.pause;
        peer.pause = (peer.pause * 2).min(RECONNECT_MAX);
        let calls = self.requests.closed(conn).into_iter().map(|(_, call)| call).collect();
        Some((addr, calls))
    }

    /// Whether requests can reach the peer.
    pub(crate) fn is_up(&self, addr: ShardAddr) -> bool {
        matches!(self.known.get(&addr).map(|p| p.link), Some(Link::Up(_)))
    }

    /// Sends a request; false when the peer cannot be reached now or has no credit left for us.
    pub(crate) fn call(
        &mut self,
        call: PeerCall,
        request: &ReplicaRequest,
        payload: Vec<Buf>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(Link::Up(conn)) = self.known.get(&call.to).map(|p| p.link) else { return false };
        let timeout = match call.what {
            What::Vote(_) | What::TimeoutNow(_) => VOTE_TIMEOUT,
            What::Fetch(_) => FETCH_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        let bytes = payload.iter().map(|b| b.len() as u64).sum();
        let Ok(id) = self.requests.issue(conn, bytes, now + timeout, call) else { return false };
        let frame = Outgoing {
            kind: Kind::Replica as u8,
            response: false,
            id,
            deadline_ms: timeout.as_millis() as u32,
            body: encode(request),
            payload,
        };
        out.push(Effect::Send { conn, frame });
        true
    }

    /// The call that a response answers; `None` for one that was given up.
    pub(crate) fn answered(&mut self, conn: ConnId, id: u64) -> Option<PeerCall> {
        self.requests.complete(conn, id)
    }

    /// Calls whose time is up.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<PeerCall> {
        self.requests.expire(now, &mut self.expired);
        self.expired.drain(..).map(|(_, _, call)| call).collect()
    }

    /// When `maintain` or `expire` have something to do.
    pub(crate) fn next_deadline(&self) -> Time {
        let down = self.known.values().filter(|p| p.wanted && p.link == Link::Down);
        let retry = down.filter(|p| p.endpoint.is_some()).map(|p| p.retry_at).min();
        retry.unwrap_or(Time::NEVER).min(self.requests.next_deadline())
    }
}
