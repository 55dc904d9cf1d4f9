//! The simulated network: what `ogive_rpc::transport` promises, with the unkindness of real ones.
//!
//! A link is one connection. Each direction keeps its order; nothing else is ordered. Frames on
//! their way arrive even if the sender has closed its end meanwhile: a request that its sender gave
//! up can be late by as long as a partition or a stall lasts.
//!
//! ```text
//! connect ──Hello──▶ accepted (Connected, inbound) ──Hello──▶ Connected
//!    └── refused: no process; or nothing for CONNECT_WITHIN: no host, or a partition
//! close   ──(frames on their way)──End──▶ Closed
//! crash   kill: as close. power cut: silence until SILENT_AFTER, or the host is back
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ogive_buf::{MAX_BUF_BYTES, Pool};
use ogive_rpc::hello::Hello;
use ogive_rpc::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use ogive_rpc::transport::{CloseReason, ConnId, Event, Incoming, Outgoing};
use ogive_types::{ChunkserverId, ShardAddr};

use crate::rng::Rng;

/// Whoever has a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Shard(ShardAddr),
    Client(u32),
}

/// A machine, for partitions: servers by their id, all clients from 1000 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host(pub(crate) u32);

impl Party {
    pub(crate) fn host(self) -> Host {
        match self {
            Party::Shard(addr) => Host(addr.server.0),
            Party::Client(n) => Host(1000 + n),
        }
    }
}

/// A process as the network sees it.
struct Process {
    hello: Hello,
    pool: Pool,
    up: bool,
    host_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Gone,
}

struct End {
    party: Party,
    state: State,
    heard: u64,
}

enum Item {
    Hello(Hello),
    Refused,
    Frame(Outgoing),
    End,
}

#[derive(Default)]
struct Direction {
    queue: VecDeque<Item>,
    last: u64,
    /// Arrivals that were held up.
    held: u32,
    stalled_until: u64,
}

struct Link {
    ends: [End; 2],
    ways: [Direction; 2],
    /// Something in it arrives twice.
    duplicates: bool,
}

/// The next item of a direction is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    link: u64,
    way: usize,
}

/// Delays in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    pub(crate) base_us: u64,
    pub(crate) jitter_us: u64,
}

/// What the network did, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetCounters {
    pub(crate) frames: u64,
    pub(crate) links: u64,
    pub(crate) late_frames: u64,
    pub(crate) duplicates: u64,
}

pub(crate) struct Net {
    processes: BTreeMap<Party, Process>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    blocked: BTreeSet<(Host, Host)>,
    slow: BTreeMap<(Host, Host), u64>,
    /// What a connection carries when its sender gives it up arrives twice.
    duplicating: bool,
    /// Two servers that answer at each other's address.
    swapped: Option<(u32, u32)>,
    delays: Delays,
    rng: Rng,
    /// Arrivals to be put on the agenda.
    pub(crate) arrivals: Vec<(u64, Arrival)>,
    /// Events that follow at once.
    pub(crate) events: Vec<(Party, Event)>,
    pub(crate) counters: NetCounters,
}

const CONNECT_WITHIN_US: u64 = ogive_rpc::limits::CONNECT_WITHIN.as_micros() as u64;
const SILENT_AFTER_US: u64 = ogive_rpc::limits::SILENT_AFTER.as_micros() as u64;

fn conn(link: u64, side: usize) -> ConnId {
    ConnId(link * 2 + side as u64)
}

impl Net {
    pub(crate) fn new(delays: Delays, rng: Rng) -> Net {
        Net {
            processes: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 1,
            blocked: BTreeSet::new(),
            slow: BTreeMap::new(),
            duplicating: false,
            swapped: None,
            delays,
            rng,
            arrivals: Vec::new(),
            events: Vec::new(),
            counters: NetCounters::default(),
        }
    }

    /// A process listens and may connect.
    pub(crate) fn start(&mut self, party: Party, hello: Hello, pool: Pool, now: u64) {
        let back = self.processes.get(&party).is_some_and(|p| !p.host_up);
        self.processes.insert(party, Process { hello, pool, up: true, host_up: true });
        if back {
            // The host answers what belongs to its former life with a reset.
            self.end_all_of(party, now, 50_000);
        }
    }

    /// A process ended; with `power` its host too.
    pub(crate) fn stop(&mut self, party: Party, power: bool, now: u64) {
        let Some(process) = self.processes.get_mut(&party) else { return };
        process.up = false;
        process.host_up = !power;
        if !power {
            self.end_all_of(party, now, 0);
        }
        for link in self.links.values_mut() {
            for end in link.ends.iter_mut().filter(|e| e.party == party) {
                end.state = State::Gone;
            }
        }
    }

    fn end_all_of(&mut self, party: Party, now: u64, extra: u64) {
        let of_party = |l: &Link, side: usize| l.ends[side].party == party;
        let all = self.links.iter().flat_map(|(&id, l)| {
            (0..2).filter(move |&side| of_party(l, side)).map(move |side| (id, side))
        });
        for (id, side) in all.collect::<Vec<_>>() {
            if self.links[&id].ends[1 - side].state != State::Gone {
                let extra = if extra > 0 { self.rng.below(extra) } else { 0 };
                self.push(id, side, Item::End, now + extra);
            }
        }
    }

    pub(crate) fn connect(&mut self, from: Party, to: ShardAddr, now: u64) -> ConnId {
        let id = self.next_link;
        self.next_link += 1;
        self.counters.links += 1;
        let end = |party, state| End { party, state, heard: now };
        let to = Party::Shard(self.found_at(to));
        let ends = [end(from, State::Opening), end(to, State::Gone)];
        self.links.insert(id, Link { ends, ways: Default::default(), duplicates: false });
        let hello = self.processes[&from].hello.clone();
        self.push(id, 0, Item::Hello(hello), now);
        conn(id, 0)
    }

    pub(crate) fn send(&mut self, from: Party, on: ConnId, frame: Outgoing, now: u64) {
        let (id, side) = (on.0 / 2, (on.0 % 2) as usize);
        let payload: usize = frame.payload.iter().map(|b| b.len()).sum();
        assert!(frame.body.len() <= BODY_BYTES_MAX, "a body of {} bytes", frame.body.len());
        assert!(payload <= PAYLOAD_BYTES_MAX, "a payload of {payload} bytes");
        let Some(link) = self.links.get(&id) else { return };
        let end = &link.ends[side];
        if end.party == from && end.state == State::Open {
            self.push(id, side, Item::Frame(frame), now);
        }
    }

    pub(crate) fn close(&mut self, party: Party, on: ConnId, reason: CloseReason, now: u64) {
        let (id, side) = (on.0 / 2, (on.0 % 2) as usize);
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.ends[side].party != party || link.ends[side].state == State::Gone {
            return;
        }
        link.ends[side].state = State::Gone;
        if self.duplicating {
            self.repeat(id, side, now);
        }
        self.push(id, side, Item::End, now);
        self.events.push((party, Event::Closed { conn: on, reason }));
    }

    /// What is on its way comes again, behind itself.
    fn repeat(&mut self, id: u64, way: usize, now: u64) {
        let link = self.links.get_mut(&id).expect("the caller looked it up");
        let frame = |item: &Item| match item {
            Item::Frame(frame) => Some(frame.clone()),
            _ => None,
        };
        let again: Vec<Outgoing> = link.ways[way].queue.iter().filter_map(frame).collect();
        link.duplicates |= !again.is_empty();
        self.counters.duplicates += again.len() as u64;
        for frame in again {
            self.push(id, way, Item::Frame(frame), now);
        }
    }

    /// Whether something came twice on a connection.
    pub(crate) fn had_duplicates(&self, on: ConnId) -> bool {
        self.links.get(&(on.0 / 2)).is_some_and(|link| link.duplicates)
    }

    /// Begins or ends to let frames arrive twice.
    pub(crate) fn duplicate(&mut self, on: bool) {
        self.duplicating = on;
    }

    /// Whether two servers answer at each other's address.
    pub(crate) fn is_swapped(&self) -> bool {
        self.swapped.is_some()
    }

    /// Lets two servers answer at each other's address, or all at their own.
    pub(crate) fn swap(&mut self, servers: Option<(u32, u32)>) {
        self.swapped = servers;
    }

    /// Who answers at the address of a shard.
    fn found_at(&self, addr: ShardAddr) -> ShardAddr {
        let server = match self.swapped {
            Some((a, b)) if addr.server.0 == a => b,
            Some((a, b)) if addr.server.0 == b => a,
            _ => addr.server.0,
        };
        ShardAddr { server: ChunkserverId(server), ..addr }
    }

    fn delay(&mut self, from: Host, to: Host) -> u64 {
        let factor = self.slow.get(&(from, to)).copied().unwrap_or(1);
        (self.delays.base_us + self.rng.below(self.delays.jitter_us + 1)) * factor
    }

    fn push(&mut self, id: u64, way: usize, item: Item, now: u64) {
        let link = &self.links[&id];
        let (from, to) = (link.ends[way].party.host(), link.ends[1 - way].party.host());
        let at = now + self.delay(from, to);
        let link = self.links.get_mut(&id).expect("looked up above");
        let direction = &mut link.ways[way];
        direction.last = direction.last.max(at);
        direction.queue.push_back(item);
        self.arrivals.push((direction.last, Arrival { link: id, way }));
    }

    /// Lets the next item of a direction arrive.
    pub(crate) fn arrive(&mut self, arrival: Arrival, now: u64) {
        let Arrival { link: id, way } = arrival;
        let Some(link) = self.links.get_mut(&id) else { return };
        let hosts = (link.ends[way].party.host(), link.ends[1 - way].party.host());
        let direction = &mut link.ways[way];
        if self.blocked.contains(&hosts) {
            direction.held += 1;
            return;
        }
        if direction.stalled_until > now {
            let at = direction.stalled_until;
            self.arrivals.push((at, arrival));
            return;
        }
        let Some(item) = direction.queue.pop_front() else { return };
        if let Some(item) = self.take_in(id, way, item, now) {
            // No buffer is free: the transport tries again later, and so keeps the order.
            let link = self.links.get_mut(&id).expect("looked up above");
            link.ways[way].queue.push_front(item);
            self.arrivals.push((now + 1_000, arrival));
        }
        let link = &self.links[&id];
        let quiet = link.ways.iter().all(|w| w.queue.is_empty());
        if quiet && link.ends.iter().all(|e| e.state == State::Gone) {
            self.links.remove(&id);
        }
    }

    fn take_in(&mut self, id: u64, way: usize, item: Item, now: u64) -> Option<Item> {
        let link = self.links.get_mut(&id).expect("the caller looked it up");
        let sender_gone = link.ends[way].state == State::Gone;
        let end = &mut link.ends[1 - way];
        let (party, on) = (end.party, conn(id, 1 - way));
        match item {
            Item::Hello(peer) if way == 0 => self.accept(id, peer, now),
            Item::Hello(peer) if end.state == State::Opening => {
                (end.state, end.heard) = (State::Open, now);
                self.events.push((party, Event::Connected { conn: on, peer, inbound: false }));
            }
            Item::Hello(_) => {}
            Item::Refused if end.state == State::Opening => {
                end.state = State::Gone;
                let reason = CloseReason::Connect("connection refused".into());
                self.events.push((party, Event::Closed { conn: on, reason }));
            }
            Item::Refused => {}
            Item::End if end.state != State::Gone => {
                end.state = State::Gone;
                self.events.push((party, Event::Closed { conn: on, reason: CloseReason::Peer }));
                self.push(id, 1 - way, Item::End, now);
            }
            Item::End => {}
            Item::Frame(frame) if end.state == State::Open => {
                end.heard = now;
                let frame = self.receive(party, frame)?;
                match frame {
                    Ok(frame) => {
                        self.counters.frames += 1;
                        self.counters.late_frames += u64::from(sender_gone);
                        self.events.push((party, Event::Received { conn: on, frame }));
                    }
                    Err(frame) => return Some(Item::Frame(frame)),
                }
            }
            Item::Frame(_) => {}
        }
        None
    }

    fn accept(&mut self, id: u64, peer: Hello, now: u64) {
        let link = self.links.get_mut(&id).expect("the caller looked it up");
        let party = link.ends[1].party;
        match self.processes.get(&party) {
            Some(process) if process.up => {
                (link.ends[1].state, link.ends[1].heard) = (State::Open, now);
                let hello = process.hello.clone();
                let on = conn(id, 1);
                self.events.push((party, Event::Connected { conn: on, peer, inbound: true }));
                self.push(id, 1, Item::Hello(hello), now);
            }
            Some(process) if !process.host_up => {}
            _ => self.push(id, 1, Item::Refused, now),
        }
    }

    /// The frame with its payload in a buffer of the receiver's; `Err` when none is free.
    fn receive(&self, party: Party, frame: Outgoing) -> Option<Result<Incoming, Outgoing>> {
        let process = self.processes.get(&party).filter(|p| p.up)?;
        let len: usize = frame.payload.iter().map(|b| b.len()).sum();
        assert!(len <= MAX_BUF_BYTES);
        let mut payload = None;
        if len > 0 {
            let Some(mut buf) = process.pool.alloc(len) else { return Some(Err(frame)) };
            let mut at = 0;
            for part in &frame.payload {
                buf[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            payload = Some(buf.freeze());
        }
        let Outgoing { kind, response, id, deadline_ms, body, .. } = frame;
        Some(Ok(Incoming { kind, response, id, deadline_ms, body, payload }))
    }

    /// Keep-alive and time-outs, to be called about once a second.
    pub(crate) fn sweep(&mut self, now: u64) {
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            for side in 0..2 {
                self.sweep_end(id, side, now);
            }
        }
        let dead = |l: &Link| l.ends.iter().all(|e| e.state == State::Gone);
        self.links.retain(|_, l| !dead(l) || l.ways.iter().any(|w| !w.queue.is_empty()));
    }

    fn sweep_end(&mut self, id: u64, side: usize, now: u64) {
        let link = self.links.get_mut(&id).expect("listed by the caller");
        let (me, peer) = (link.ends[side].party, link.ends[1 - side].party);
        let stalled = link.ways[1 - side].stalled_until > now;
        let peer_alive = link.ends[1 - side].state == State::Open;
        let end = &mut link.ends[side];
        let on = conn(id, side);
        match end.state {
            State::Gone => return,
            State::Opening if now > end.heard + CONNECT_WITHIN_US => {
                let reason = CloseReason::Connect("connection timed out".into());
                self.events.push((me, Event::Closed { conn: on, reason }));
            }
            State::Opening => return,
            State::Open => {
                let open_way = !self.blocked.contains(&(peer.host(), me.host())) && !stalled;
                if open_way && peer_alive {
                    end.heard = now; // a PING came
                }
                if now <= end.heard + SILENT_AFTER_US {
                    return;
                }
                let reason = CloseReason::Silent((now - end.heard) / 1000);
                self.events.push((me, Event::Closed { conn: on, reason }));
            }
        }
        end.state = State::Gone;
        self.push(id, side, Item::End, now);
    }

    /// Cuts one direction between two hosts.
    pub(crate) fn block(&mut self, from: Host, to: Host) {
        self.blocked.insert((from, to));
    }

    /// Opens it again; what was held up arrives after a retransmission's time.
    pub(crate) fn unblock(&mut self, from: Host, to: Host, now: u64) {
        if !self.blocked.remove(&(from, to)) {
            return;
        }
        for (&id, link) in &mut self.links {
            for way in 0..2 {
                let hosts = (link.ends[way].party.host(), link.ends[1 - way].party.host());
                if hosts != (from, to) {
                    continue;
                }
                let held = std::mem::take(&mut link.ways[way].held);
                let at = now + self.rng.below(400_000);
                let again = (0..held).map(|_| (at, Arrival { link: id, way }));
                self.arrivals.extend(again);
            }
        }
    }

    /// Directions that are cut.
    pub(crate) fn blocked(&self) -> Vec<(Host, Host)> {
        self.blocked.iter().copied().collect()
    }

    /// Makes one direction between two hosts slower by a factor; 1 makes it normal.
    pub(crate) fn slow(&mut self, from: Host, to: Host, factor: u64) {
        self.slow.insert((from, to), factor);
    }

    /// All directions at their normal speed.
    pub(crate) fn clear_slow(&mut self) {
        self.slow.clear();
    }

    fn open_links(&self) -> Vec<u64> {
        let open = |l: &Link| l.ends.iter().any(|e| e.state == State::Open);
        self.links.iter().filter(|(_, l)| open(l)).map(|(&id, _)| id).collect()
    }

    /// Holds one direction of some connection up until `until`.
    pub(crate) fn stall_some(&mut self, until: u64) -> bool {
        let open = self.open_links();
        if open.is_empty() {
            return false;
        }
        let id = self.rng.pick(&open);
        let way = self.rng.below(2) as usize;
        self.links.get_mut(&id).expect("listed").ways[way].stalled_until = until;
        true
    }

    /// Holds up what clients send to a host on the connections that they have now.
    pub(crate) fn stall_clients(&mut self, to: Host, until: u64) {
        for link in self.links.values_mut() {
            let client = matches!(link.ends[0].party, Party::Client(_));
            if client && link.ends[1].party.host() == to {
                link.ways[0].stalled_until = until;
            }
        }
    }

    /// Breaks some connection: each end learns of it at its own time, and frames on their way are
    /// lost.
    pub(crate) fn reset_some(&mut self, now: u64) -> bool {
        let open = self.open_links();
        if open.is_empty() {
            return false;
        }
        let id = self.rng.pick(&open);
        for way in 0..2 {
            let lag = self.rng.below(300_000);
            let link = self.links.get_mut(&id).expect("listed");
            // The items are replaced rather than removed: each has its arrival on the agenda.
            link.ways[way].queue.iter_mut().for_each(|item| *item = Item::End);
            self.push(id, way, Item::End, now + lag);
        }
        true
    }
}
