//! The load: real clients, what they are asked to do, and the check of what they are told.

use std::collections::BTreeMap;

use ogive_buf::{Buf, Pool};
use ogive_client::{
    Client, ClientEffect, ClientOptions, VolumeError, VolumeOp, VolumeOutput, VolumeSpec,
};
use ogive_rpc::hello::Identity;
use ogive_rpc::transport::{CloseReason, Event as NetEvent};
use ogive_types::{BLOCK_BYTES, CopysetId, Epoch, SEGMENT_BYTES, SegmentId, SessionId, VolumeId};

use super::{CLUSTER, Clock, What, World, hello, short};
use crate::fault::Fault;
use crate::limits::{DEVICE_BYTES, HEAL_WITHIN_US, POOL_BYTES};
use crate::model::{Begin, CELL_BYTES};
use crate::net::Party;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A client asked the metadata servers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    Topology,
    Segment(SegmentId, bool),
}

/// An operation in flight.
struct Flight {
    write: Option<u64>,
    first: u64,
    count: u64,
    start: u64,
    reads: bool,
    zeroes: bool,
}

pub(crate) struct SimClient {
    pub(crate) client: Client,
    pub(crate) volume: VolumeId,
    pub(crate) epoch: Epoch,
    session: SessionId,
    pool: Pool,
    clock: Clock,
    flights: BTreeMap<u64, Flight>,
    next_token: u64,
    tick_at: u64,
    /// The segment was allocated before it began, so every operation reaches a copyset.
    sees_all: bool,
    /// Submits operations of its own accord.
    pub(crate) busy: bool,
    pub(crate) lost: bool,
}

impl World {
    /// Attaches a volume for a new client; its former one is not asked.
    pub(super) fn attach(&mut self, volume: VolumeId) -> u32 {
        let id = self.next_client;
        self.next_client += 1;
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let state = self.volumes.get_mut(&volume).expect("a known volume");
        state.epoch = Epoch(state.epoch.0 + 1);
        let (epoch, sees_all) = (state.epoch, state.allocated);
        let spec = VolumeSpec {
            volume,
            size_bytes: SEGMENT_BYTES,
            layout: self.layout,
            epoch,
            session,
            cluster: CLUSTER,
        };
        let pool = Pool::new(POOL_BYTES);
        let options = ClientOptions {
            io_timeout: self.shape.io_timeout.filter(|_| self.chaos),
            attempt_timeout: self.shape.attempt_timeout,
            ..ClientOptions::default()
        };
        let client = Client::new(spec, pool.clone(), options, self.rng.next());
        let clock = Clock::new(self.now, self.rng.between(1, 1 << 40), 0);
        let hello = hello(Identity::Client { session });
        self.net.start(Party::Client(id), hello, pool.clone(), self.now);
        let sim = SimClient {
            client,
            volume,
            epoch,
            session,
            pool,
            clock,
            flights: BTreeMap::new(),
            next_token: 1,
            tick_at: u64::MAX,
            sees_all,
            busy: true,
            lost: false,
        };
        self.trace(|_| format!("client {id} attaches {volume} with {epoch}, {session}"));
        self.clients.insert(id, sim);
        if self.chaos {
            for _ in 0..self.shape.depth {
                let at = self.now + self.rng.between(1, 2_000);
                self.agenda.add(at, What::ClientWork(id));
            }
        }
        id
    }

    /// A client's process ends; the outcome of what it had in flight stays unknown.
    pub(super) fn kill_client(&mut self, id: u32) {
        let Some(sim) = self.clients.remove(&id) else { return };
        self.trace(|_| format!("client {id} is killed"));
        self.net.stop(Party::Client(id), false, self.now);
        for flight in sim.flights.values() {
            self.end_write(sim.volume, flight.write, false);
        }
    }

    /// The newest client of a volume.
    pub(super) fn owner(&self, volume: VolumeId) -> Option<u32> {
        let epoch = self.volumes[&volume].epoch;
        let mut all = self.clients.iter();
        all.find(|(_, c)| c.volume == volume && c.epoch == epoch).map(|(&id, _)| id)
    }

    pub(super) fn client_hears(&mut self, id: u32, event: NetEvent) {
        if !self.clients.contains_key(&id) {
            return;
        }
        self.trace(|_| format!("client {id} <- {}", short(&event)));
        let now = self.now;
        let sim = self.clients.get_mut(&id).expect("checked above");
        sim.client.on_event(event, sim.clock.local(now));
        self.client_acts(id);
    }

    pub(super) fn client_tick(&mut self, id: u32) {
        let now = self.now;
        let Some(sim) = self.clients.get_mut(&id).filter(|c| c.tick_at == now) else { return };
        sim.tick_at = u64::MAX;
        sim.client.tick(sim.clock.local(now));
        self.client_acts(id);
    }

    /// Submits one operation, drawn from the seed.
    pub(super) fn client_work(&mut self, id: u32) {
        let Some(sim) = self.clients.get(&id) else { return };
        if !self.chaos || !sim.busy || sim.lost {
            return;
        }
        let pool = sim.pool.clone();
        let (first, count) = self.draw_cells();
        let (offset, len) = (first * CELL_BYTES, count * CELL_BYTES);
        let id_of_write = self.next_write;
        let op = match self.rng.below(20) {
            0..8 => VolumeOp::Read { offset, len },
            8..16 => match stamped(&pool, first, count, id_of_write) {
                Some(data) => VolumeOp::Write { offset, data },
                None => VolumeOp::Read { offset, len },
            },
            16 => VolumeOp::WriteZeroes { offset, len },
            17 => {
                let (first, count) = (first / 4 * 4, count.next_multiple_of(4));
                VolumeOp::Trim { offset: first * CELL_BYTES, len: count * CELL_BYTES }
            }
            18 => VolumeOp::Map { offset, len },
            _ => VolumeOp::Flush,
        };
        self.submit_op(id, op);
    }

    /// Some neighbouring cells, most of them whole blocks.
    fn draw_cells(&mut self) -> (u64, u64) {
        let per_block = BLOCK / CELL_BYTES;
        // Stripes of 64 KiB spread them over the chunks.
        let hot = self.shape.hot_blocks * self.shape.chunks;
        let blocks = self.rng.pick(&[1, 1, 1, 1, 2, 2, 8, 8, 60]).min(hot);
        let block = self.rng.below(hot - blocks + 1);
        let (mut first, mut count) = (block * per_block, blocks * per_block);
        if self.shape.parts_of_blocks() && self.rng.chance(15) {
            let skip = self.rng.below(per_block);
            (first, count) = (first + skip, (count - skip).min(self.rng.between(1, per_block)));
        }
        (first, count)
    }

    pub(super) fn submit_op(&mut self, id: u32, op: VolumeOp) {
        let now = self.now;
        let Some(sim) = self.clients.get_mut(&id) else { return };
        let (offset, len) = op.span();
        let (first, count) = (offset / CELL_BYTES, len / CELL_BYTES);
        let zeroes = matches!(op, VolumeOp::Trim { .. } | VolumeOp::WriteZeroes { .. });
        let changes = zeroes || matches!(op, VolumeOp::Write { .. });
        let mut write = None;
        if changes {
            let (session, epoch) = (sim.session, sim.epoch);
            write = Some(self.next_write);
            let begin = Begin { id: self.next_write, first, count, session, epoch, zeroes };
            self.next_write += 1;
            let volume = self.volumes.get_mut(&sim.volume).expect("a known volume");
            volume.model.begin(begin, now);
        }
        let token = sim.next_token;
        sim.next_token += 1;
        let reads = matches!(op, VolumeOp::Read { .. });
        sim.flights.insert(token, Flight { write, first, count, start: now, reads, zeroes });
        let local = sim.clock.local(now);
        self.trace(|_| match &op {
            VolumeOp::Write { .. } => {
                format!("client {id} op {token}: write {write:?} cells {first}+{count}")
            }
            other => format!("client {id} op {token}: {other:?} {write:?} cells {first}+{count}"),
        });
        self.clients.get_mut(&id).expect("looked up above").client.submit(token, op, local);
        self.client_acts(id);
    }

    fn client_acts(&mut self, id: u32) {
        loop {
            let Some(sim) = self.clients.get_mut(&id) else { return };
            let mut effects = Vec::new();
            sim.client.poll_effects(&mut effects);
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.client_effect(id, effect);
            }
        }
        let now = self.now;
        let sim = self.clients.get_mut(&id).expect("checked above");
        let next = sim.clock.global(sim.client.next_deadline()).max(now + 1);
        if next < sim.tick_at {
            sim.tick_at = next;
            if next != u64::MAX {
                self.agenda.add(next, What::ClientTick(id));
            }
        }
    }

    fn client_effect(&mut self, id: u32, effect: ClientEffect) {
        let now = self.now;
        let party = Party::Client(id);
        match effect {
            ClientEffect::Connect { peer, .. } => {
                let conn = self.net.connect(party, peer, now);
                if let Some(sim) = self.clients.get_mut(&id) {
                    sim.client.connected(peer, conn);
                }
            }
            ClientEffect::Send { conn, frame } => self.net.send(party, conn, frame, now),
            ClientEffect::Close { conn } => self.net.close(party, conn, CloseReason::Local, now),
            ClientEffect::NeedSegment { segment, allocate } => {
                self.ask_metadata(id, Question::Segment(segment, allocate));
            }
            ClientEffect::NeedTopology => self.ask_metadata(id, Question::Topology),
            ClientEffect::Completed { token, result } => self.completed(id, token, result),
            ClientEffect::SessionLost { reason } => {
                self.trace(|_| format!("client {id} lost its session: {reason}"));
                self.report.sessions_lost += 1;
                let Some(sim) = self.clients.get_mut(&id) else { return };
                sim.lost = true;
                if self.volumes[&sim.volume].epoch == sim.epoch {
                    self.fail(format!("client {id} lost the newest attachment: {reason}"));
                }
            }
        }
    }

    fn ask_metadata(&mut self, id: u32, question: Question) {
        if !self.metadata_down {
            let at = self.now + self.rng.between(300, 20_000);
            self.agenda.add(at, What::Metadata(id, question));
        }
    }

    pub(super) fn metadata_answer(&mut self, id: u32, question: Question) {
        let Some(sim) = self.clients.get_mut(&id) else { return };
        let local = sim.clock.local(self.now);
        match question {
            Question::Topology => sim.client.on_topology(self.topology.clone(), local),
            Question::Segment(segment, allocate) => {
                let volume = self.volumes.get_mut(&sim.volume).expect("a known volume");
                if sim.epoch == volume.epoch {
                    volume.allocated |= allocate;
                    let all = self.topology.copysets.keys().copied().collect::<Vec<CopysetId>>();
                    sim.client.on_segment(segment, volume.allocated.then_some(all), local);
                } else {
                    sim.client.on_segment_failed(segment, VolumeError::Fenced, local);
                }
            }
        }
        self.client_acts(id);
    }

    fn completed(&mut self, id: u32, token: u64, result: Result<VolumeOutput, VolumeError>) {
        let sim = self.clients.get_mut(&id).expect("it just said so");
        let Some(flight) = sim.flights.remove(&token) else {
            return self.fail(format!("client {id} completes op {token} which is not in flight"));
        };
        let (volume, epoch) = (sim.volume, sim.epoch);
        // Where it knows no space it answers by itself, and may not know that it was taken over:
        // zeroes that it wrote or read then say nothing about the disk.
        let blind = !sim.sees_all && epoch != self.volumes[&volume].epoch;
        let alone = if flight.write.is_some() { flight.zeroes && blind } else { !sim.sees_all };
        self.trace(|_| match &result {
            Ok(VolumeOutput::Data(_)) => format!("client {id} op {token}: data"),
            other => format!("client {id} op {token}: {other:?}"),
        });
        self.report.ops += 1;
        self.note(token);
        self.report.ops_failed += u64::from(result.is_err());
        let lenient = !self.reads_are_strict && flight.write.is_none();
        if result.is_ok() && !alone && flight.count > 0 && !lenient {
            self.served(volume, epoch, &flight);
        }
        if matches!(result, Err(VolumeError::NoSpace)) {
            let whole = [flight.first, flight.count].iter().all(|n| n % (BLOCK / CELL_BYTES) == 0);
            self.no_space(id, token, flight.write.is_none() || flight.zeroes && whole);
        }
        self.end_write(volume, flight.write, result.is_ok() && !alone);
        if let (Ok(VolumeOutput::Data(bufs)), true) = (&result, flight.reads && !blind) {
            self.check_data(volume, &flight, bufs);
        }
        if matches!(result, Err(VolumeError::Io(_) | VolumeError::OutOfRange { .. })) {
            self.fail(format!("client {id} op {token}: {result:?}"));
        }
        let pause = self.rng.around(self.shape.think_us);
        self.agenda.add(self.now + pause, What::ClientWork(id));
    }

    /// An operation found no space.
    fn no_space(&mut self, id: u32, token: u64, needs_none: bool) {
        self.count_fault(Fault::DiskFull);
        if needs_none || self.space_must_do {
            self.fail(format!("client {id} op {token}: there is no space for it"));
        }
    }

    /// Where space runs out, gives it back: whoever holds a volume trims all of it.
    pub(super) fn make_space(&mut self) {
        if self.shape.device_bytes == DEVICE_BYTES {
            return;
        }
        for volume in (1..=self.shape.volumes).map(VolumeId) {
            let client = self.attach(volume);
            let len = self.shape.hot_blocks * self.shape.chunks * BLOCK;
            self.submit_op(client, VolumeOp::Trim { offset: 0, len });
        }
    }

    /// Where there was no space before, a write finds some again.
    pub(super) fn use_space_again(&mut self) {
        if self.shape.device_bytes == DEVICE_BYTES || self.failure.is_some() {
            return;
        }
        self.space_must_do = true;
        for volume in (1..=self.shape.volumes).map(VolumeId) {
            let client = self.attach(volume);
            let pool = self.clients[&client].pool.clone();
            for block in 0..8 {
                let first = block * BLOCK / CELL_BYTES;
                if let Some(data) = stamped(&pool, first, BLOCK / CELL_BYTES, self.next_write) {
                    self.submit_op(client, VolumeOp::Write { offset: block * BLOCK, data });
                }
            }
        }
        self.run_until(self.now + HEAL_WITHIN_US, World::clients_idle);
        if !self.clients_idle() {
            let flights = self.flights();
            self.fail(format!("writes after a trim do not end: {flights}"));
        }
    }

    fn end_write(&mut self, volume: VolumeId, write: Option<u64>, done: bool) {
        let Some(write) = write else { return };
        let model = &mut self.volumes.get_mut(&volume).expect("a known volume").model;
        if let Err(why) = model.end(write, done, self.now) {
            self.wrong(volume, why);
        }
    }

    pub(super) fn wrong(&mut self, volume: VolumeId, why: String) {
        let cell = why
            .strip_prefix("cell ")
            .and_then(|rest| rest.split([',', ':']).next().and_then(|number| number.parse().ok()));
        let history = cell.map(|c| self.volumes[&volume].model.history(c)).unwrap_or_default();
        let chunk =
            |cell| ogive_types::ChunkId { volume, number: self.layout.locate(cell * CELL_BYTES).0 };
        let place = cell.map(|c| format!(", in {}", self.copyset_of(chunk(c)))).unwrap_or_default();
        self.fail(format!("{volume} is not one disk{place}: {why}\n{history}"));
    }

    /// An operation was served: older attachments must not be, in those copysets, from now on.
    fn served(&mut self, volume: VolumeId, epoch: Epoch, flight: &Flight) {
        let block = |cell: u64| cell * CELL_BYTES / BLOCK;
        let blocks = block(flight.first)..=block(flight.first + flight.count - 1);
        let chunk = |block: u64| self.layout.locate(block * BLOCK).0;
        let chunks: std::collections::BTreeSet<u32> = blocks.map(chunk).collect();
        for number in chunks {
            let copyset = self.copyset_of(ogive_types::ChunkId { volume, number });
            let state = &self.volumes[&volume];
            let newer = state.served.iter();
            let mut newer =
                newer.filter(|((c, e), at)| *c == copyset && *e > epoch && **at <= flight.start);
            if let Some(((_, newest), at)) = newer.next() {
                let why = format!(
                    "{copyset} served {epoch} of {volume} (asked at {}) after it had served \
                     {newest} at {at}",
                    flight.start
                );
                return self.fail(why);
            }
            let known = state.served.contains_key(&(copyset, epoch));
            if !known {
                self.fence_model(volume, copyset, epoch);
            }
        }
    }

    fn fence_model(&mut self, volume: VolumeId, copyset: CopysetId, epoch: Epoch) {
        let (layout, count) = (self.layout, self.shape.copysets as usize);
        let is_fenced = |cell: u64| {
            let chunk = ogive_types::ChunkId { volume, number: layout.locate(cell * CELL_BYTES).0 };
            ogive_types::layout::copyset_slot(chunk, count) as u32 + 1 == copyset.0
        };
        let now = self.now;
        let state = self.volumes.get_mut(&volume).expect("a known volume");
        state.served.insert((copyset, epoch), now);
        state.model.fence(is_fenced, epoch, now);
    }

    fn check_data(&mut self, volume: VolumeId, flight: &Flight, bufs: &[Buf]) {
        let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        if bytes.len() as u64 != flight.count * CELL_BYTES {
            return self.fail(format!(
                "a read of {} cells gave {} bytes",
                flight.count,
                bytes.len()
            ));
        }
        for (cell, data) in (flight.first..).zip(bytes.chunks_exact(CELL_BYTES as usize)) {
            let Some(seen) = read_stamp(cell, data) else {
                return self.fail(format!("{volume} cell {cell}: bytes that nobody wrote"));
            };
            let strict = self.reads_are_strict;
            let model = &mut self.volumes.get_mut(&volume).expect("a known volume").model;
            if !strict {
                model.checked += 1;
                continue;
            }
            if let Err(why) = model.saw(cell, seen, flight.start, self.now) {
                return self.wrong(volume, why);
            }
        }
    }

    /// Clients have nothing in flight.
    pub(super) fn clients_idle(&self) -> bool {
        self.clients.values().all(|c| c.flights.is_empty())
    }

    /// What is still in flight, for a failure.
    pub(super) fn flights(&self) -> String {
        let of = |(id, c): (&u32, &SimClient)| {
            let flights = c.flights.iter();
            let ops: Vec<String> = flights
                .map(|(t, f)| format!("op {t} cells {}+{} since {}", f.first, f.count, f.start))
                .collect();
            format!("client {id} ({} {}): {}", c.volume, c.epoch, ops.join(", "))
        };
        self.clients
            .iter()
            .filter(|(_, c)| !c.flights.is_empty())
            .map(of)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Data that names its write and its place in every eight bytes.
fn stamped(pool: &Pool, first: u64, count: u64, write: u64) -> Option<Buf> {
    let mut data = pool.alloc((count * CELL_BYTES) as usize)?;
    for (cell, bytes) in (first..).zip(data.chunks_exact_mut(CELL_BYTES as usize)) {
        let stamp = (write << 24 | cell).to_le_bytes();
        bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&stamp));
    }
    Some(data.freeze())
}

/// The write that a cell shows, 0 for zeroes; `None` for anything else.
fn read_stamp(cell: u64, data: &[u8]) -> Option<u64> {
    let (first, _) = data.split_first_chunk::<8>()?;
    if data.chunks_exact(8).any(|word| word != first) {
        return None;
    }
    match u64::from_le_bytes(*first) {
        0 => Some(0),
        stamp if stamp & 0xff_ffff == cell => Some(stamp >> 24),
        _ => None,
    }
}
