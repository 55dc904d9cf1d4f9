//! The state machine: everything a client knows, and its entry points. What they set in motion goes
//! into the queue `ready`, which each of them works off before it returns.

mod net;
mod ops;
mod replies;
mod routes;
mod send;

use std::collections::{BTreeMap, VecDeque};

use ogive_buf::{Buf, Pool};
use ogive_rpc::requests::Requests;
use ogive_rpc::transport::{ConnId, Event};
use ogive_types::{CopysetId, SegmentId, ShardAddr, Time};

use crate::api::{
    ClientEffect, ClientOptions, ClientStats, LostReason, Topology, VolumeError, VolumeOp,
    VolumeSpec,
};
use crate::backoff::Jitter;
use crate::limits::ZERO_BYTES;
use crate::lock::RangeLock;
use crate::op::{Op, OpKey};
use crate::part::{Part, PartKey};
use crate::peers::{Peers, Pending};
use crate::route::Route;
use crate::segments::Segments;
use crate::slab::Slab;
use crate::timers::{Timer, Timers};

/// A client of one volume. See the crate's documentation.
pub struct Client {
    spec: VolumeSpec,
    opts: ClientOptions,
    jitter: Jitter,
    zero: Buf,
    topology: Topology,
    /// When the topology was last asked for and not answered.
    topology_asked: Option<Time>,
    segments: Segments,
    routes: BTreeMap<CopysetId, Route>,
    peers: Peers,
    requests: Requests<Pending>,
    ops: Slab<Op>,
    parts: Slab<Part>,
    locks: RangeLock,
    timers: Timers,
    ready: VecDeque<Ready>,
    effects: Vec<ClientEffect>,
    lost: bool,
    stats: ClientStats,
    #[cfg(test)]
    pub(crate) mutant: Option<crate::harness::Mutant>,
}

/// Something that can go on now.
#[derive(Clone, Copy, Debug)]
enum Ready {
    Op(OpKey),
    Part(PartKey),
}

impl Client {
    /// A client that knows nothing but its volume yet; it asks for what it needs. `seed` drives the
    /// jitter of pauses.
    ///
    /// # Panics
    ///
    /// When `pool` has not even 64 KiB left.
    pub fn new(spec: VolumeSpec, pool: Pool, opts: ClientOptions, seed: u64) -> Client {
        let zero = pool.alloc_zeroed(ZERO_BYTES).expect("a pool with room for the first buffer");
        Client {
            spec,
            opts,
            jitter: Jitter::new(seed),
            zero: zero.freeze(),
            topology: Topology::default(),
            topology_asked: None,
            segments: Segments::default(),
            routes: BTreeMap::new(),
            peers: Peers::default(),
            requests: Requests::new(),
            ops: Slab::default(),
            parts: Slab::default(),
            locks: RangeLock::default(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            effects: Vec::new(),
            lost: false,
            stats: ClientStats::default(),
            #[cfg(test)]
            mutant: None,
        }
    }

    /// Starts an operation. [`ClientEffect::Completed`] with this token follows exactly once.
    pub fn submit(&mut self, token: u64, op: VolumeOp, now: Time) {
        self.begin_op(token, op, now);
        self.run(now);
    }

    /// Takes an event of the transport. Those of connections that are not this client's are
    /// ignored.
    pub fn on_event(&mut self, event: Event, now: Time) {
        match event {
            Event::Connected { conn, peer, inbound } if !inbound => self.on_up(conn, &peer, now),
            Event::Connected { .. } => {}
            Event::Received { conn, frame } => self.on_frame(conn, frame, now),
            Event::Closed { conn, reason } => {
                if let Some(addr) = self.peers.forget(conn) {
                    tracing::debug!(%addr, %reason, "connection lost");
                    self.on_down(addr, conn, now);
                }
            }
        }
        self.run(now);
    }

    /// Answers [`ClientEffect::Connect`]: the connection to `peer` that was started is called
    /// `conn`.
    pub fn connected(&mut self, peer: ShardAddr, conn: ConnId) {
        if !self.peers.named(peer, conn) {
            self.effects.push(ClientEffect::Close { conn });
        }
    }

    /// Answers [`ClientEffect::NeedTopology`], or brings news of it.
    pub fn on_topology(&mut self, topology: Topology, now: Time) {
        self.topology_asked = None;
        self.topology = topology;
        for (addr, conn) in self.peers.connected() {
            if !self.topology.endpoints.contains_key(&addr) {
                self.drop_conn(conn, now);
            }
        }
        let copysets: Vec<CopysetId> = self.routes.keys().copied().collect();
        for copyset in copysets {
            self.recheck_route(copyset, now);
        }
        self.run(now);
    }

    /// Answers [`ClientEffect::NeedSegment`]: the copysets of an allocated segment, or `None` for
    /// one that is not.
    pub fn on_segment(&mut self, segment: SegmentId, copysets: Option<Vec<CopysetId>>, now: Time) {
        if segment.volume != self.spec.volume {
            return;
        }
        let waiting = self.segments.told(segment.number, copysets);
        waiting.into_iter().for_each(|part| self.requeue(part));
        self.run(now);
    }

    /// Answers [`ClientEffect::NeedSegment`] when the metadata servers refuse for good: the
    /// operations that wait for the segment fail; with [`VolumeError::Fenced`], which says that
    /// there is a newer attachment, the session is lost.
    pub fn on_segment_failed(&mut self, segment: SegmentId, error: VolumeError, now: Time) {
        if segment.volume != self.spec.volume {
            return;
        }
        if error == VolumeError::Fenced {
            return self.lose_session(LostReason::Expired);
        }
        for part in self.segments.failed(segment.number) {
            if let Some(op) = self.parts.get(part).map(|p| p.op) {
                self.fail_op(op, error.clone());
            }
        }
        self.run(now);
    }

    /// The volume's size changed. Operations in flight past a new end go on.
    pub fn on_resize(&mut self, size_bytes: u64) {
        self.spec.size_bytes = size_bytes;
    }

    /// The metadata servers ended the attachment.
    pub fn on_session_expired(&mut self) {
        self.lose_session(LostReason::Expired);
    }

    /// Acts on what is due. To be called at [`Client::next_deadline`]; more often does no harm.
    pub fn tick(&mut self, now: Time) {
        self.expire(now);
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Op(op) => self.op_late(op, now),
                Timer::Part(part) => self.requeue(part),
                Timer::Peer(addr) => self.connect_late(addr, now),
                Timer::Route(copyset) => self.resume_route(copyset, now),
                Timer::Segment(number) => self.ask_segment_again(number, now),
            }
        }
        self.run(now);
    }

    /// When [`Client::tick`] must be called at the latest.
    pub fn next_deadline(&self) -> Time {
        self.timers.next().min(self.requests.next_deadline())
    }

    /// Appends what is to be done, in order.
    pub fn poll_effects(&mut self, out: &mut Vec<ClientEffect>) {
        out.append(&mut self.effects);
    }

    /// The volume, with its size as known now.
    pub fn spec(&self) -> &VolumeSpec {
        &self.spec
    }

    /// Counters.
    pub fn stats(&self) -> ClientStats {
        ClientStats { ops_in_flight: self.ops.len(), ..self.stats }
    }

    fn run(&mut self, now: Time) {
        while let Some(ready) = self.ready.pop_front() {
            match ready {
                Ready::Op(op) => self.advance(op),
                Ready::Part(part) => self.dispatch(part, now),
            }
        }
    }
}
