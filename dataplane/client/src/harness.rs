//! A small cluster for tests: three shards that obey the fence, an unkind network, and a model of
//! the bytes.
//!
//! It is harsher than the real thing: a shard takes the requests of a connection in any order, and
//! what a closed connection still carried may arrive long after. The client must be right without
//! counting on either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ogive_buf::{Buf, Pool};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::{CloseReason, ConnId, Endpoint, Event, Incoming, Outgoing};
use ogive_types::message::{IoError, IoOp, IoReply, IoRequest, Kind, Mapped, decode, encode};
use ogive_types::{
    BLOCK_BYTES, BlockRange, BlockSum, ChunkserverId, ClusterId, CopysetId, Epoch, Incarnation,
    Layout, SEGMENT_BYTES, SegmentId, SessionId, ShardAddr, Term, Time, VolumeId, block_sums,
};

use crate::{Client, ClientEffect, ClientOptions, Topology, VolumeError, VolumeOutput, VolumeSpec};

/// A known bug, put in to prove that the tests find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Overlapping writes run at the same time.
    NoLock,
    /// All connections have the same incarnation.
    OneIncarnation,
    /// A late write is sent again without closing its connection.
    KeepLateConn,
}

impl Client {
    pub(crate) fn ignores_lock(&self) -> bool {
        self.mutant == Some(Mutant::NoLock)
    }

    pub(crate) fn keeps_late_conn(&self) -> bool {
        self.mutant == Some(Mutant::KeepLateConn)
    }

    pub(crate) fn incarnation_for(&mut self, to: ShardAddr) -> Incarnation {
        match self.mutant {
            Some(Mutant::OneIncarnation) => Incarnation(1),
            _ => self.peer_incarnation(to),
        }
    }
}

/// Numbers that look random, for tests (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

pub(crate) const VOLUME: VolumeId = VolumeId(9);
pub(crate) const EPOCH: Epoch = Epoch(3);

pub(crate) fn shard(n: u32) -> ShardAddr {
    ShardAddr { server: ChunkserverId(n), shard: 0 }
}

struct Conn {
    to: ShardAddr,
    open: bool,
    up: bool,
    inbox: VecDeque<Outgoing>,
}

/// A write that is in a leader's log and not committed.
struct Logged {
    op: IoOp,
    payload: Vec<u8>,
    conn: ConnId,
    id: u64,
}

struct Group {
    leader: ShardAddr,
    term: Term,
    log: VecDeque<Logged>,
    blocks: BTreeMap<(u32, u16), Vec<u8>>,
}

impl Group {
    fn led_by(number: u32) -> Group {
        let (log, blocks) = Default::default();
        Group { leader: shard(number), term: Term(u64::from(number)), log, blocks }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) closes: bool,
    pub(crate) elections: bool,
    pub(crate) refusals: bool,
    pub(crate) stalls: bool,
}

/// The cluster and its client.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) pool: Pool,
    pub(crate) now: Time,
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) done: BTreeMap<u64, Result<VolumeOutput, VolumeError>>,
    pub(crate) order: Vec<u64>,
    pub(crate) requests: Vec<(ShardAddr, IoRequest)>,
    pub(crate) questions: Vec<(SegmentId, bool)>,
    pub(crate) allocated: BTreeSet<u32>,
    pub(crate) stalled: BTreeSet<ShardAddr>,
    pub(crate) down: BTreeSet<ShardAddr>,
    pub(crate) corrupt_reads: u32,
    /// Writes stay in the log of their leader, not committed.
    pub(crate) no_quorum: bool,
    pub(crate) answer: Option<IoError>,
    pub(crate) epoch: Epoch,
    pub(crate) session_lost: u32,
    pub(crate) credit_requests: u32,
    groups: BTreeMap<CopysetId, Group>,
    conns: BTreeMap<ConnId, Conn>,
    newest: BTreeMap<ShardAddr, Incarnation>,
    answers: Vec<Event>,
    next_conn: u64,
    wants_topology: bool,
}

impl World {
    pub(crate) fn new(seed: u64, layout: Layout, io_timeout_ms: Option<u64>) -> World {
        let pool = Pool::new(64 << 20);
        let spec = VolumeSpec {
            volume: VOLUME,
            size_bytes: 4 * SEGMENT_BYTES,
            layout,
            epoch: EPOCH,
            session: SessionId(5),
            cluster: ClusterId(1),
        };
        let io_timeout = io_timeout_ms.map(std::time::Duration::from_millis);
        let opts = ClientOptions { io_timeout, ..ClientOptions::default() };
        World {
            client: Client::new(spec, pool.clone(), opts, seed),
            pool,
            now: Time(1_000_000),
            dice: Dice(seed.wrapping_mul(2) + 1),
            faults: Faults::default(),
            done: BTreeMap::new(),
            order: Vec::new(),
            requests: Vec::new(),
            questions: Vec::new(),
            allocated: BTreeSet::new(),
            stalled: BTreeSet::new(),
            down: BTreeSet::new(),
            corrupt_reads: 0,
            no_quorum: false,
            answer: None,
            epoch: EPOCH,
            session_lost: 0,
            credit_requests: 4,
            groups: [(CopysetId(1), Group::led_by(2)), (CopysetId(2), Group::led_by(3))].into(),
            conns: BTreeMap::new(),
            newest: BTreeMap::new(),
            answers: Vec::new(),
            next_conn: 1,
            wants_topology: false,
        }
    }

    pub(crate) fn buf(&self, bytes: &[u8]) -> Buf {
        let mut buf = self.pool.alloc(bytes.len()).unwrap();
        buf.copy_from_slice(bytes);
        buf.freeze()
    }

    pub(crate) fn topology() -> Topology {
        let members = vec![shard(1), shard(2), shard(3)];
        let endpoint = |n: u32| (shard(n), Endpoint(format!("tcp:127.0.0.1:{}", 7000 + n)));
        let endpoints: BTreeMap<ShardAddr, Endpoint> = (1..=3).map(endpoint).collect();
        let copysets = [(CopysetId(1), members.clone()), (CopysetId(2), members)].into();
        Topology { copysets, endpoints }
    }

    /// Makes another member lead: keeps a prefix of the log, and drops the rest.
    pub(crate) fn elect(&mut self, copyset: CopysetId, leader: ShardAddr, keep: usize) {
        let group = self.groups.get_mut(&copyset).unwrap();
        group.leader = leader;
        group.term = group.term.next();
        for _ in 0..keep.min(self.groups[&copyset].log.len()) {
            self.commit_one(copyset);
        }
        let dropped: Vec<Logged> = self.groups.get_mut(&copyset).unwrap().log.drain(..).collect();
        for logged in dropped {
            self.reply(logged.conn, logged.id, IoReply::Failed(IoError::Interrupted), None);
        }
    }

    pub(crate) fn close_all(&mut self, to: ShardAddr) {
        let conns: Vec<ConnId> =
            self.open_conns().into_iter().filter(|c| self.conns[c].to == to).collect();
        conns.into_iter().for_each(|conn| self.close(conn));
    }

    fn open_conns(&self) -> Vec<ConnId> {
        self.conns.iter().filter(|(_, c)| c.open).map(|(&id, _)| id).collect()
    }

    fn close(&mut self, conn: ConnId) {
        self.conns.get_mut(&conn).unwrap().open = false;
        self.client.on_event(Event::Closed { conn, reason: CloseReason::Peer }, self.now);
        self.effects();
    }

    /// Takes the writes that are on their way out of the network.
    pub(crate) fn hold_writes(&mut self) -> Vec<(ConnId, Outgoing)> {
        let mut held = Vec::new();
        for (&id, conn) in &mut self.conns {
            let (writes, rest): (VecDeque<_>, _) =
                conn.inbox.drain(..).partition(|frame| !frame.payload.is_empty());
            conn.inbox = rest;
            held.extend(writes.into_iter().map(|frame| (id, frame)));
        }
        held
    }

    /// Lets held writes arrive.
    pub(crate) fn let_arrive(&mut self, held: Vec<(ConnId, Outgoing)>) {
        for (id, frame) in held {
            self.conns.get_mut(&id).unwrap().inbox.push_back(frame);
        }
    }

    /// Carries out what the client wants.
    pub(crate) fn effects(&mut self) {
        loop {
            let mut effects = Vec::new();
            self.client.poll_effects(&mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.effect(effect);
            }
        }
    }

    fn effect(&mut self, effect: ClientEffect) {
        match effect {
            ClientEffect::Connect { peer, .. } => {
                let conn = ConnId(self.next_conn);
                self.next_conn += 1;
                let inbox = VecDeque::new();
                self.conns.insert(conn, Conn { to: peer, open: true, up: false, inbox });
                self.client.connected(peer, conn);
            }
            ClientEffect::Send { conn, frame } => {
                let to = self.conns.get_mut(&conn).unwrap();
                assert!(to.open && to.up, "sent on a connection that is not up");
                to.inbox.push_back(frame);
            }
            ClientEffect::Close { conn } => self.conns.get_mut(&conn).unwrap().open = false,
            ClientEffect::NeedSegment { segment, allocate } => {
                self.questions.push((segment, allocate))
            }
            ClientEffect::NeedTopology => self.wants_topology = true,
            ClientEffect::Completed { token, result } => {
                self.order.push(token);
                assert!(self.done.insert(token, result).is_none(), "completed twice");
            }
            ClientEffect::SessionLost { .. } => self.session_lost += 1,
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        match self.dice.roll(16) {
            0 | 1 => self.metadata(),
            2..=4 => self.connect_or_deliver(),
            5..=8 => self.deliver(),
            9 | 10 => self.commit_any(),
            11 | 12 => self.answer_any(),
            13 => self.fault(),
            _ => {
                let most = if self.faults.stalls && self.dice.chance(5) { 700_000 } else { 3_000 };
                self.now = Time(self.now.0 + self.dice.roll(most));
                self.client.tick(self.now);
            }
        }
        self.effects();
    }

    fn metadata(&mut self) {
        if self.wants_topology {
            self.wants_topology = false;
            self.client.on_topology(World::topology(), self.now);
        } else if !self.questions.is_empty() {
            let (segment, allocate) = self.questions.remove(0);
            if allocate {
                self.allocated.insert(segment.number);
            }
            let known = self.allocated.contains(&segment.number);
            let copysets = known.then(|| vec![CopysetId(1), CopysetId(2)]);
            self.client.on_segment(segment, copysets, self.now);
        }
    }

    fn connect_or_deliver(&mut self) {
        let conns = self.open_conns();
        let Some(&conn) = conns.iter().find(|c| !self.conns[c].up) else { return self.deliver() };
        let to = self.conns[&conn].to;
        if self.down.contains(&to) {
            return self.close(conn);
        }
        self.conns.get_mut(&conn).unwrap().up = true;
        let peer = Hello {
            cluster: ClusterId(1),
            identity: Identity::Shard { server: to.server, shard: to.shard },
            features: 0,
            token: Vec::new(),
            credit_requests: self.credit_requests,
            credit_bytes: 4 << 20,
        };
        self.client.on_event(Event::Connected { conn, peer, inbound: false }, self.now);
    }

    /// A shard takes one of the first requests of some connection, open or not.
    fn deliver(&mut self) {
        let carrying: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| !c.inbox.is_empty() && !self.stalled.contains(&c.to))
            .map(|(&id, _)| id)
            .collect();
        if carrying.is_empty() {
            return;
        }
        let id = carrying[self.dice.roll(carrying.len() as u64) as usize];
        let depth = self.conns[&id].inbox.len().min(3) as u64;
        let at = self.dice.roll(depth) as usize;
        let conn = self.conns.get_mut(&id).unwrap();
        let (to, frame) = (conn.to, conn.inbox.remove(at).unwrap());
        self.serve(to, id, frame);
    }

    fn serve(&mut self, at: ShardAddr, conn: ConnId, frame: Outgoing) {
        let request: IoRequest = decode(&frame.body).unwrap();
        let payload: Vec<u8> = frame.payload.iter().flat_map(|b| b.to_vec()).collect();
        request.validate(payload.len()).unwrap();
        self.requests.push((at, request.clone()));
        let refused = self.refuse(at, &request);
        if let Some(error) = refused {
            return self.reply(conn, frame.id, IoReply::Failed(error), None);
        }
        if let IoOp::Write { sums, .. } = &request.op {
            assert_eq!(*sums, block_sums(&payload), "checksums of the writer");
        }
        let group = self.groups.get_mut(&request.copyset).unwrap();
        match request.op {
            IoOp::Write { .. } | IoOp::Trim { .. } => {
                group.log.push_back(Logged { op: request.op, payload, conn, id: frame.id });
            }
            IoOp::Read { chunk, range, settled } => {
                // It waits until all before it is committed; then that may as well be now.
                while settled && !self.groups[&request.copyset].log.is_empty() {
                    self.commit_one(request.copyset);
                }
                let (data, sums) = self.stored(request.copyset, chunk.number, range);
                self.reply(conn, frame.id, IoReply::Data(sums), Some(data));
            }
            IoOp::Map { chunk, range } => {
                let one = |b| Mapped {
                    range: BlockRange::new(b, 1).unwrap(),
                    mapped: group.blocks.contains_key(&(chunk.number, b)),
                };
                let map = IoReply::Map(range.iter().map(one).collect());
                self.reply(conn, frame.id, map, None);
            }
        }
    }

    fn stored(
        &mut self,
        copyset: CopysetId,
        chunk: u32,
        range: BlockRange,
    ) -> (Vec<u8>, Vec<BlockSum>) {
        let blocks = &self.groups[&copyset].blocks;
        let block = |b| blocks.get(&(chunk, b)).cloned().unwrap_or(vec![0; BLOCK_BYTES]);
        let data: Vec<u8> = range.iter().flat_map(block).collect();
        let mut sums = block_sums(&data);
        if self.corrupt_reads > 0 {
            self.corrupt_reads -= 1;
            sums[0].0 ^= 1;
        }
        (data, sums)
    }

    fn refuse(&mut self, at: ShardAddr, request: &IoRequest) -> Option<IoError> {
        let fence = request.fence;
        if fence.epoch < self.epoch {
            return Some(IoError::Fenced { current: self.epoch });
        }
        let newest = self.newest.entry(at).or_default();
        if fence.incarnation < *newest {
            return Some(IoError::StaleIncarnation);
        }
        *newest = fence.incarnation;
        let group = &self.groups[&request.copyset];
        if group.leader != at {
            let hint = (self.dice.0 & 64 == 0).then_some(group.leader);
            return Some(IoError::NotLeader { leader: hint });
        }
        if fence.term != group.term {
            return Some(IoError::StaleTerm { current: group.term });
        }
        if self.faults.refusals && self.dice.chance(10) {
            return Some(IoError::Busy);
        }
        self.answer.take()
    }

    fn commit_any(&mut self) {
        if self.no_quorum {
            return;
        }
        let copyset = CopysetId(1 + self.dice.roll(2) as u32);
        self.commit_one(copyset);
    }

    fn commit_one(&mut self, copyset: CopysetId) {
        let group = self.groups.get_mut(&copyset).unwrap();
        let Some(logged) = group.log.pop_front() else { return };
        let (chunk, range) = logged.op.place();
        for (i, block) in range.iter().enumerate() {
            let key = (chunk.number, block);
            match logged.op {
                IoOp::Write { .. } => {
                    let data = logged.payload[i * BLOCK_BYTES..(i + 1) * BLOCK_BYTES].to_vec();
                    group.blocks.insert(key, data);
                }
                _ => drop(group.blocks.remove(&key)),
            }
        }
        self.reply(logged.conn, logged.id, IoReply::Done, None);
    }

    fn reply(&mut self, conn: ConnId, id: u64, reply: IoReply, data: Option<Vec<u8>>) {
        let payload = data.map(|data| self.buf(&data));
        let (kind, body) = (Kind::Io as u8, encode(&reply));
        let frame = Incoming { kind, response: true, id, deadline_ms: 0, body, payload };
        self.answers.push(Event::Received { conn, frame });
    }

    fn answer_any(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let at = self.dice.roll(self.answers.len() as u64) as usize;
        let event = self.answers.swap_remove(at);
        let Event::Received { conn, .. } = &event else { unreachable!("only answers") };
        if self.conns[conn].open {
            self.client.on_event(event, self.now);
        }
    }

    fn fault(&mut self) {
        let copyset = CopysetId(1 + self.dice.roll(2) as u32);
        match self.dice.roll(12) {
            0 if self.faults.closes => {
                let conns = self.open_conns();
                if !conns.is_empty() {
                    let at = self.dice.roll(conns.len() as u64) as usize;
                    self.close(conns[at]);
                }
            }
            1 if self.faults.elections => {
                let (leader, keep) =
                    (shard(1 + self.dice.roll(3) as u32), self.dice.roll(4) as usize);
                self.elect(copyset, leader, keep);
            }
            2 | 3 if self.faults.stalls => {
                self.stalled.clear();
                if self.dice.chance(50) {
                    self.stalled.insert(shard(1 + self.dice.roll(3) as u32));
                }
            }
            _ => {}
        }
    }

    /// Runs until all of `tokens` are done.
    pub(crate) fn finish(&mut self, tokens: impl IntoIterator<Item = u64>) {
        self.effects();
        for token in tokens {
            let mut steps = 0;
            while !self.done.contains_key(&token) {
                self.step();
                steps += 1;
                assert!(steps < 200_000, "operation {token} hangs");
            }
        }
    }

    /// The bytes that a read gave.
    pub(crate) fn data(&self, token: u64) -> Vec<u8> {
        match &self.done[&token] {
            Ok(VolumeOutput::Data(data)) => data.iter().flat_map(|b| b.to_vec()).collect(),
            other => panic!("{token}: {other:?}"),
        }
    }
}
