//! What UCX calls back with while it is polled, applied to the connections.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use ogive_buf::{PartMut, Pool};
use ogive_types::Time;
use ogive_ucx::{Completion, Data, EndpointId, Handler, Pending, UcxError};

use super::conn::{Conn, Held, Remote};
use super::inbox::{Act, FrameNo};
use super::pull::Offer;
use super::wire::{self, LaneHead, Message};
use crate::limits::LANE_WAITING_MAX;
use crate::requests::ConnHasher;
use crate::transport::lane::LaneEvent;
use crate::transport::{CloseReason, ConnId, PathStats};

/// Bits of a key that name the connection's place; the others are random, so that keys cannot be
/// guessed.
pub(super) const PLACE_BITS: u32 = 20;
/// The bits of a key that are its place.
pub(super) const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// The connections, and what happened to them since the last poll. Inside of the lane a connection
/// goes by its key, which leads to its place without a search and is never used again.
pub(super) struct Arrivals {
    pub(super) pool: Pool,
    pub(super) places: Vec<Option<Box<Conn>>>,
    /// Places without a connection.
    free: Vec<usize>,
    /// Makes keys that nobody can guess.
    random: RandomState,
    opened: u64,
    pub(super) by_conn: HashMap<ConnId, u64, ConnHasher>,
    pub(super) by_endpoint: HashMap<EndpointId, u64>,
    pub(super) events: Vec<LaneEvent>,
    /// Rendezvous with a place for their data, to be begun.
    pub(super) pulls: Vec<Pull>,
    /// Offers that were read, and have to be answered: connection and token.
    pub(super) taken: Vec<(u64, u64)>,
    /// Offers of ours that were read: connection and token.
    pub(super) returned: Vec<(u64, u64)>,
    /// Operations that UCX ended.
    pub(super) ended: Vec<Completion>,
    /// Data that wait for a buffer, on all connections.
    pub(super) waiting: usize,
    /// PINGs since the last poll, and whether anything else came.
    pub(super) pings: usize,
    pub(super) worked: bool,
    pub(super) stats: PathStats,
    /// Messages for keys that nobody has: late ones of connections that are closed.
    pub(super) strays: u64,
    pub(super) now: Time,
}

/// A rendezvous and its place.
pub(super) struct Pull {
    pub(super) key: u64,
    pub(super) at: FrameNo,
    pub(super) pending: Pending,
    pub(super) into: PartMut,
}

impl Arrivals {
    pub(super) fn new(pool: Pool) -> Arrivals {
        Arrivals {
            pool,
            places: Vec::new(),
            free: Vec::new(),
            random: RandomState::new(),
            opened: 0,
            by_conn: HashMap::default(),
            by_endpoint: HashMap::new(),
            events: Vec::new(),
            pulls: Vec::new(),
            taken: Vec::new(),
            returned: Vec::new(),
            ended: Vec::new(),
            waiting: 0,
            pings: 0,
            worked: false,
            stats: PathStats::default(),
            strays: 0,
            now: Time(0),
        }
    }

    /// A place and a key for a connection.
    pub(super) fn open(&mut self, id: ConnId) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        assert!(place as u64 <= PLACE_MASK, "more connections than a key can tell apart");
        self.opened += 1;
        let key = self.random.hash_one(self.opened) & !PLACE_MASK | place as u64;
        self.places[place] = Some(Box::new(Conn::new(id, key)));
        let old = self.by_conn.insert(id, key);
        assert!(old.is_none(), "{id:?} opened twice");
        key
    }

    /// Forgets a connection; its key, and the way to the peer if it had one. What it has under way
    /// ends by itself.
    pub(super) fn close(&mut self, id: ConnId) -> Option<(u64, Option<Remote>)> {
        let key = self.by_conn.remove(&id)?;
        let place = (key & PLACE_MASK) as usize;
        let conn = self.places[place].take().expect("by_conn names connections");
        self.free.push(place);
        self.waiting -= conn.inbox.waiting();
        self.pulls.retain(|pull| pull.key != key);
        self.events.retain(|event| conn_of(event) != id);
        if let Some(remote) = &conn.remote {
            self.by_endpoint.remove(&remote.endpoint.id());
        }
        Some((key, conn.remote))
    }

    /// The connection with a key, unless its end is known.
    pub(super) fn conn(&mut self, key: u64) -> Option<&mut Conn> {
        let place = (key & PLACE_MASK) as usize;
        let conn = self.places.get_mut(place)?.as_deref_mut()?;
        conn.answers_to(key).then_some(conn)
    }

    /// The connection cannot go on; its owner is told, once.
    pub(super) fn broken(&mut self, key: u64, reason: CloseReason) {
        let Some(conn) = self.conn(key) else { return };
        conn.broken = true;
        let event = LaneEvent::Broken { conn: conn.id, reason };
        self.events.push(event);
    }

    /// The peer can read our memory.
    fn reads_us(&mut self, key: u64) {
        if let Some(conn) = self.conn(key) {
            conn.reads_us = true;
        }
    }

    /// Hands out the frames of a connection that are complete.
    pub(super) fn deliver(&mut self, key: u64) {
        while let Some(conn) = self.conn(key) {
            let Some(frame) = conn.inbox.pop() else { return };
            let event = LaneEvent::Received { conn: conn.id, frame };
            self.stats.frames_received += 1;
            self.events.push(event);
        }
    }

    /// Works off a message that is not a frame as a whole, or comes while others are under way.
    fn take(&mut self, key: u64, head: LaneHead<'_>, data: Data<'_>) {
        let ping = head.message == Message::Ping;
        self.pings += usize::from(ping);
        self.worked |= !ping;
        let Some(conn) = self.conn(key) else { return };
        let (id, message) = (conn.id, head.message.clone());
        match (conn.inbox.take(head, data.len()), message) {
            (Ok(Act::Land(at)), Message::Offer(offer)) => self.land(key, at, Load::Offer(offer)),
            (Ok(Act::Land(at)), _) => self.land(key, at, Load::Data(data)),
            (Ok(Act::Probed), _) => self.events.push(LaneEvent::Probed { conn: id }),
            (Ok(Act::None), Message::Open) => self.reads_us(key),
            (Ok(Act::None), Message::Taken(token)) => self.returned.push((key, token)),
            (Ok(Act::None), _) => {}
            (Err(violation), _) => self.broken(key, CloseReason::Protocol(violation.to_string())),
        }
        self.deliver(key);
    }

    /// Data for a frame: puts them where they belong, or has them wait.
    fn land(&mut self, key: u64, at: FrameNo, load: Load<'_>) {
        let len = load.len();
        let (others_wait, pool) = (self.waiting > 0, self.pool.clone());
        let Some(conn) = self.conn(key) else { return };
        let space = if others_wait { None } else { conn.inbox.space(at, len, &pool) };
        match (load, space) {
            (Load::Data(Data::Eager(bytes)), Some(into)) => self.copy(key, at, &bytes, into),
            (load, Some(into)) => self.fetch(key, at, load.hold(), into),
            (load, None) => {
                conn.inbox.wait(at, load.hold());
                self.waiting += 1;
                if self.waiting > LANE_WAITING_MAX {
                    let text = format!("over {LANE_WAITING_MAX} messages wait for a buffer");
                    self.broken(key, CloseReason::Protocol(text));
                }
            }
        }
    }

    /// Brings data to their place, from wherever they are.
    fn fetch(&mut self, key: u64, at: FrameNo, held: Held, into: PartMut) {
        match held {
            Held::Eager(kept) => self.copy(key, at, &kept, into),
            Held::Rendezvous(pending) => self.pulls.push(Pull { key, at, pending, into }),
            Held::Offer(offer) => self.read(key, at, offer, into),
        }
    }

    fn copy(&mut self, key: u64, at: FrameNo, bytes: &[u8], mut into: PartMut) {
        into.copy_from_slice(bytes);
        drop(into);
        self.stats.copied_bytes += bytes.len() as u64;
        if let Some(conn) = self.conn(key) {
            conn.inbox.landed(at, bytes.len());
        }
    }

    fn read(&mut self, key: u64, at: FrameNo, offer: Offer, mut into: PartMut) {
        let Some(conn) = self.conn(key) else { return };
        let Some(memory) = conn.remote.as_ref().and_then(|remote| remote.memory) else {
            let text = "an offer of memory that this end cannot read".to_owned();
            return self.broken(key, CloseReason::Protocol(text));
        };
        if let Err(error) = memory.read(offer.at, &mut into) {
            let text = format!("cannot read the peer's memory: {error}");
            return self.broken(key, CloseReason::System(text));
        }
        drop(into);
        conn.inbox.landed(at, offer.len);
        self.taken.push((key, offer.token));
        self.stats.bytes_received += offer.len as u64;
    }

    /// Data that waited take their places, as far as there are buffers now.
    pub(super) fn resume(&mut self) {
        let pool = self.pool.clone();
        for place in 0..self.places.len() {
            while self.waiting > 0 {
                let Some(conn) = self.places[place].as_deref_mut() else { break };
                let key = conn.key;
                let Some((at, held, into)) = conn.inbox.resume(Held::len, &pool) else { break };
                self.waiting -= 1;
                self.fetch(key, at, held, into);
                self.deliver(key);
            }
        }
    }
}

/// What a message brings for a frame.
enum Load<'a> {
    Data(Data<'a>),
    Offer(Offer),
}

impl Load<'_> {
    fn len(&self) -> usize {
        match self {
            Load::Data(data) => data.len(),
            Load::Offer(offer) => offer.len,
        }
    }

    fn hold(self) -> Held {
        match self {
            Load::Data(data) => data.into(),
            Load::Offer(offer) => Held::Offer(offer),
        }
    }
}

impl Handler for Arrivals {
    fn message(&mut self, header: &[u8], data: Data<'_>) {
        let len = data.len();
        let Some(key) = wire::key(header) else {
            self.strays += 1;
            return;
        };
        let place = self.places.get_mut((key & PLACE_MASK) as usize);
        let conn = place.and_then(Option::as_deref_mut).filter(|conn| conn.answers_to(key));
        let Some(conn) = conn else {
            self.strays += 1;
            return;
        };
        conn.last_received = self.now;
        self.stats.bytes_received += (header.len() + len) as u64;
        let head = match LaneHead::decode(header) {
            Ok(head) => head,
            Err(error) => {
                self.worked = true;
                return self.broken(key, CloseReason::Protocol(error.to_string()));
            }
        };
        if let (Data::Eager(bytes), 0) = (&data, self.waiting) {
            let (id, events) = (conn.id, &mut self.events);
            let out = |frame| events.push(LaneEvent::Received { conn: id, frame });
            match conn.inbox.whole(&head, bytes, &self.pool, out) {
                Ok(false) => {}
                Ok(true) => {
                    self.worked = true;
                    self.stats.copied_bytes += len as u64;
                    self.stats.frames_received += 1;
                    return;
                }
                Err(violation) => {
                    self.worked = true;
                    return self.broken(key, CloseReason::Protocol(violation.to_string()));
                }
            }
        }
        self.take(key, head, data);
    }

    fn completed(&mut self, done: Completion) {
        self.worked = true;
        self.ended.push(done);
    }

    fn failed(&mut self, endpoint: EndpointId, error: UcxError) {
        if let Some(&key) = self.by_endpoint.get(&endpoint) {
            self.broken(key, reason(&error));
        }
    }
}

/// A peer that is gone is told from trouble of the network, as far as UCX does.
pub(super) fn reason(error: &UcxError) -> CloseReason {
    if error.is_peer_gone() { CloseReason::Peer } else { CloseReason::System(error.to_string()) }
}

fn conn_of(event: &LaneEvent) -> ConnId {
    match event {
        LaneEvent::Probed { conn }
        | LaneEvent::Received { conn, .. }
        | LaneEvent::Broken { conn, .. } => *conn,
    }
}
