//! The way of a part to a connection: segment, copyset, leader, credit.

use ogive_rpc::requests::NoCredit;
use ogive_rpc::transport::{ConnId, Outgoing};
use ogive_types::layout::{copyset_slot, segment_of};
use ogive_types::message::{Fence, IoOp, IoRequest, Kind, encode};
use ogive_types::{CopysetId, Incarnation, SegmentId, ShardAddr, Term, Time};

use super::Client;
use crate::api::ClientEffect;
use crate::chain;
use crate::limits::TIMEOUT_DOUBLINGS_MAX;
use crate::part::{PartKey, PartState, Sent};
use crate::peers::{PeerState, Pending};
use crate::segments::SegmentState;
use crate::timers::Timer;

impl Client {
    /// Sends a part, or lets it wait for what is missing.
    pub(super) fn dispatch(&mut self, key: PartKey, now: Time) {
        let Some(part) = self.parts.get(key).filter(|p| p.state == PartState::Ready) else {
            return;
        };
        let chunk = part.spec.chunk;
        let number = segment_of(chunk).number;
        match self.segments.state(number) {
            SegmentState::Unallocated if !part.needs_space() => self.finish_unmapped(key),
            SegmentState::Unknown | SegmentState::Unallocated => {
                let allocate = part.needs_space();
                self.wait_for_segment(key, number, allocate, now);
            }
            SegmentState::Allocated(copysets) => {
                let copyset = copysets[copyset_slot(chunk, copysets.len())];
                match self.route(copyset, chunk).known() {
                    Some((leader, term)) => self.send_part(key, copyset, leader, term, now),
                    None => self.wait_for_route(key, copyset, now),
                }
            }
        }
    }

    fn wait_for_segment(&mut self, key: PartKey, number: u32, allocate: bool, now: Time) {
        self.parts.get_mut(key).expect("dispatched").state = PartState::Segment(number);
        if self.segments.wait(number, key, allocate, now) {
            self.ask_segment(number, allocate, now);
        }
    }

    fn ask_segment(&mut self, number: u32, allocate: bool, now: Time) {
        let segment = SegmentId { volume: self.spec.volume, number };
        self.effects.push(ClientEffect::NeedSegment { segment, allocate });
        self.timers.arm(Timer::Segment(number), now + self.opts.metadata_retry);
    }

    pub(super) fn ask_segment_again(&mut self, number: u32, now: Time) {
        if let Some(allocate) = self.segments.ask_again(number, now) {
            self.ask_segment(number, allocate, now);
        }
    }

    fn send_part(
        &mut self,
        key: PartKey,
        copyset: CopysetId,
        leader: ShardAddr,
        term: Term,
        now: Time,
    ) {
        let peer = self.peers.peer(leader);
        let PeerState::Up { conn } = peer.state else {
            self.wait_for_route(key, copyset, now);
            return self.leader_lost(copyset, leader, None, now);
        };
        let behind = !peer.credit.is_empty();
        if behind || !self.issue_part(key, conn, Sent { conn, to: leader, copyset, term }, now) {
            self.parts.get_mut(key).expect("dispatched").state = PartState::Credit(leader);
            self.peers.peer(leader).credit.push_back(Pending::Part(key));
        }
    }

    /// False when there is no credit for it now.
    fn issue_part(&mut self, key: PartKey, conn: ConnId, sent: Sent, now: Time) -> bool {
        let part = self.parts.get_mut(key).expect("dispatched");
        let (op, payload) = part.request();
        let doublings = part.timeouts.min(TIMEOUT_DOUBLINGS_MAX);
        let deadline = self.ops.get(part.op).map_or(Time::NEVER, |op| op.deadline);
        let deadline = deadline.min(now + self.opts.attempt_timeout * (1 << doublings));
        let bytes = chain::len(&payload) as u64;
        let Ok(id) = self.requests.issue(conn, bytes, deadline, Pending::Part(key)) else {
            return false;
        };
        part.state = PartState::Sent(sent);
        let body = self.io_body(sent.copyset, sent.to, sent.term, op);
        self.push_send(conn, id, deadline, now, body, payload);
        true
    }

    /// Asks a member whether it leads. Term 0 is never current, so that a leader answers with its
    /// own.
    pub(super) fn send_probe(
        &mut self,
        copyset: CopysetId,
        to: ShardAddr,
        conn: ConnId,
        now: Time,
    ) {
        let pending = Pending::Probe(copyset, to);
        let Some(route) = self.routes.get(&copyset) else { return };
        let members = self.topology.copysets.get(&copyset).map_or(&[][..], |m| m);
        let doublings = route.rounds(members).min(TIMEOUT_DOUBLINGS_MAX as u32);
        let deadline = now + self.opts.probe_timeout * (1 << doublings);
        let range = ogive_types::BlockRange::new(0, 1).expect("one block");
        let op = IoOp::Map { chunk: route.chunk, range };
        match self.requests.issue(conn, 0, deadline, pending) {
            Ok(id) => {
                let body = self.io_body(copyset, to, Term(0), op);
                self.push_send(conn, id, deadline, now, body, Vec::new());
            }
            Err(NoCredit::NotConnected) => unreachable!("probes go to peers that are up"),
            Err(_) => self.peers.peer(to).credit.push_back(pending),
        }
    }

    /// Sends what waited for credit, in order, until it is used up again.
    pub(super) fn use_credit(&mut self, addr: ShardAddr, now: Time) {
        loop {
            let peer = self.peers.peer(addr);
            let PeerState::Up { conn } = peer.state else { return };
            let Some(&first) = peer.credit.front() else { return };
            match first {
                Pending::Part(key) => {
                    let Some(sent) = self.still_for(key, addr, conn) else {
                        self.peers.peer(addr).credit.pop_front();
                        self.requeue(key);
                        continue;
                    };
                    if !self.issue_part(key, conn, sent, now) {
                        return;
                    }
                    self.peers.peer(addr).credit.pop_front();
                }
                Pending::Probe(copyset, to) => {
                    self.peers.peer(addr).credit.pop_front();
                    let waiting = self.peers.peer(addr).credit.len();
                    self.send_probe(copyset, to, conn, now);
                    if self.peers.peer(addr).credit.len() > waiting {
                        self.peers.peer(addr).credit.rotate_right(1);
                        return;
                    }
                }
            }
        }
    }

    /// How to send a part that waited for credit of `addr`, if that still leads its copyset.
    fn still_for(&self, key: PartKey, addr: ShardAddr, conn: ConnId) -> Option<Sent> {
        let chunk = self.parts.get(key)?.spec.chunk;
        let SegmentState::Allocated(copysets) = self.segments.state(segment_of(chunk).number)
        else {
            return None;
        };
        let copyset = copysets[copyset_slot(chunk, copysets.len())];
        let (leader, term) = self.routes.get(&copyset)?.known()?;
        (leader == addr).then_some(Sent { conn, to: addr, copyset, term })
    }

    fn io_body(&mut self, copyset: CopysetId, to: ShardAddr, term: Term, op: IoOp) -> Vec<u8> {
        let incarnation = self.incarnation_for(to);
        let (volume, epoch, session) = (self.spec.volume, self.spec.epoch, self.spec.session);
        encode(&IoRequest {
            copyset,
            fence: Fence { volume, epoch, session, incarnation, term },
            op,
        })
    }

    fn push_send(
        &mut self,
        conn: ConnId,
        id: u64,
        deadline: Time,
        now: Time,
        body: Vec<u8>,
        payload: Vec<ogive_buf::Buf>,
    ) {
        // A deadline of 0 ms would mean none.
        let wait_ms = deadline.since(now).as_millis().clamp(1, u32::MAX as u128) as u32;
        let kind = Kind::Io as u8;
        let frame = Outgoing { kind, response: false, id, deadline_ms: wait_ms, body, payload };
        self.stats.sent += 1;
        self.effects.push(ClientEffect::Send { conn, frame });
    }

    pub(crate) fn peer_incarnation(&mut self, to: ShardAddr) -> Incarnation {
        self.peers.peer(to).incarnation
    }

    #[cfg(not(test))]
    fn incarnation_for(&mut self, to: ShardAddr) -> Incarnation {
        self.peer_incarnation(to)
    }
}
