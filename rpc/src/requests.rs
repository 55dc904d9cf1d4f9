//! Requests that this end has sent and not finished, as plain state: no I/O, no clock.
//!
//! ```text
//!  issue            complete
//!  ------> waiting ----------------------------> free     (the answer, to whoever waits)
//!             | expire                             ^
//!             v                complete            |
//!          given up -------------------------------+      (a late answer, to nobody)
//! ```
//! `closed` frees all of a connection at once.
//!
//! A request that is given up keeps its credit until its answer comes or the connection ends, for
//! the peer is still counting it: whoever takes the credit back earlier gets over what was granted,
//! and is disconnected.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ogive_types::Time;

use crate::hello::Hello;
use crate::limits::{EXPIRE_EVERY, REQUESTS_PER_CONN_MAX};
use crate::transport::ConnId;

/// Requests in flight, with a `T` for each that tells its owner what it was about.
///
/// Ids are never 0. An id names a place in a table and how often the place was used, so an answer
/// to an earlier use is recognised; finding a request takes no search.
#[derive(Debug)]
pub struct Requests<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    conns: HashMap<ConnId, Credit, ConnHasher>,
    issued: u64,
    waiting: usize,
    /// No deadline of a waiting request lies before this.
    due: Time,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: SlotState<T>,
}

#[derive(Debug)]
enum SlotState<T> {
    Free,
    Waiting(Flight, T),
    GivenUp(Flight),
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    conn: ConnId,
    bytes: u64,
    deadline: Time,
    /// Counts up over all requests, so that they can be reported in order.
    order: u64,
}

/// What one peer granted, and how much of it is in use.
#[derive(Debug, Clone, Copy)]
struct Credit {
    requests: u32,
    requests_max: u32,
    bytes: u64,
    bytes_max: u64,
}

/// Why a request cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCredit {
    /// The connection is not up.
    #[error("not connected")]
    NotConnected,
    /// As many requests as the peer grants are unanswered; wait for an answer.
    #[error("{0} requests are unanswered, the peer takes no more")]
    Requests(u32),
    /// The payload does not fit into what the peer grants now; wait for an answer.
    #[error("{bytes} bytes are unanswered of {max} that the peer takes")]
    Bytes {
        /// Unanswered bytes.
        bytes: u64,
        /// What the peer grants.
        max: u64,
    },
}

impl<T> Default for Requests<T> {
    fn default() -> Requests<T> {
        Requests::new()
    }
}

impl<T> Requests<T> {
    /// Nothing connected, nothing in flight.
    pub fn new() -> Requests<T> {
        Requests {
            slots: Vec::new(),
            free: Vec::new(),
            conns: HashMap::default(),
            issued: 0,
            waiting: 0,
            due: Time::NEVER,
        }
    }

    /// A connection is up, with the credits of the peer's HELLO. Panics when it already was.
    pub fn opened(&mut self, conn: ConnId, peer: &Hello) {
        let requests_max = peer.credit_requests.min(REQUESTS_PER_CONN_MAX);
        let credit = Credit { requests: 0, requests_max, bytes: 0, bytes_max: peer.credit_bytes };
        let old = self.conns.insert(conn, credit);
        assert!(old.is_none(), "{conn:?} opened twice");
    }

    /// Takes credit for a request with `bytes` of payload and returns the id to send it with. `ctx`
    /// comes back from exactly one of `complete`, `expire` and `closed`.
    pub fn issue(
        &mut self,
        conn: ConnId,
        bytes: u64,
        deadline: Time,
        ctx: T,
    ) -> Result<u64, NoCredit> {
        let credit = self.conns.get_mut(&conn).ok_or(NoCredit::NotConnected)?;
        if credit.requests >= credit.requests_max {
            return Err(NoCredit::Requests(credit.requests));
        }
        if credit.bytes.saturating_add(bytes) > credit.bytes_max {
            return Err(NoCredit::Bytes { bytes: credit.bytes, max: credit.bytes_max });
        }
        credit.requests += 1;
        credit.bytes += bytes;
        self.issued += 1;
        self.waiting += 1;
        self.due = self.due.min(deadline);
        let flight = Flight { conn, bytes, deadline, order: self.issued };
        Ok(self.place(SlotState::Waiting(flight, ctx)))
    }

    /// An answer arrived. Gives the credit back, and returns what the request was about; `None`
    /// when it was given up before, or when there is no such request on this connection.
    pub fn complete(&mut self, conn: ConnId, id: u64) -> Option<T> {
        let index = id as u32;
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != (id >> 32) as u32 || slot.flight()?.conn != conn {
            return None;
        }
        let (flight, ctx) = match self.release(index) {
            SlotState::Waiting(flight, ctx) => (flight, Some(ctx)),
            SlotState::GivenUp(flight) => (flight, None),
            SlotState::Free => unreachable!("it has a flight"),
        };
        self.waiting -= usize::from(ctx.is_some());
        let credit = self.conns.get_mut(&conn).expect("a request's connection is open");
        assert!(credit.requests > 0 && credit.bytes >= flight.bytes, "credit is conserved");
        credit.requests -= 1;
        credit.bytes -= flight.bytes;
        ctx
    }

    /// Gives up the requests whose deadline has come, and appends them in the order in which they
    /// were issued. Late by at most [`EXPIRE_EVERY`]. Costs a comparison when nothing is due.
    pub fn expire(&mut self, now: Time, out: &mut Vec<(ConnId, u64, T)>) {
        if now < self.due {
            return;
        }
        let mut next = Time::NEVER;
        let mut overdue = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            match slot.state {
                SlotState::Waiting(flight, _) if flight.deadline <= now => {
                    let state = std::mem::replace(&mut slot.state, SlotState::GivenUp(flight));
                    let SlotState::Waiting(_, ctx) = state else { unreachable!("matched above") };
                    overdue.push((flight.order, (flight.conn, id_of(index, slot.generation), ctx)));
                }
                SlotState::Waiting(flight, _) => next = next.min(flight.deadline),
                SlotState::Free | SlotState::GivenUp(_) => {}
            }
        }
        self.waiting -= overdue.len();
        self.due = if next == Time::NEVER { next } else { next.max(now + EXPIRE_EVERY) };
        overdue.sort_unstable_by_key(|&(order, _)| order);
        out.extend(overdue.into_iter().map(|(_, request)| request));
    }

    /// A connection is gone, and its credits with it. Returns the requests that waited on it, in
    /// the order in which they were issued; nobody else will.
    pub fn closed(&mut self, conn: ConnId) -> Vec<(u64, T)> {
        if self.conns.remove(&conn).is_none() {
            return Vec::new();
        }
        let mut orphans = Vec::new();
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let id = id_of(index, slot.generation);
            if slot.flight().is_none_or(|flight| flight.conn != conn) {
                continue;
            }
            if let SlotState::Waiting(flight, ctx) = self.release(index as u32) {
                orphans.push((flight.order, (id, ctx)));
            }
        }
        self.waiting -= orphans.len();
        orphans.sort_unstable_by_key(|&(order, _)| order);
        orphans.into_iter().map(|(_, request)| request).collect()
    }

    /// When `expire` has to be called next; never later than the earliest deadline plus
    /// [`EXPIRE_EVERY`], and sometimes earlier than needed.
    pub fn next_deadline(&self) -> Time {
        if self.waiting == 0 { Time::NEVER } else { self.due }
    }

    /// Requests that wait for an answer, on all connections.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests of one connection that hold credit: those that wait and those given up.
    pub fn in_flight(&self, conn: ConnId) -> u32 {
        self.conns.get(&conn).map_or(0, |credit| credit.requests)
    }

    /// Payload bytes of one connection that hold credit.
    pub fn bytes_in_flight(&self, conn: ConnId) -> u64 {
        self.conns.get(&conn).map_or(0, |credit| credit.bytes)
    }

    fn place(&mut self, state: SlotState<T>) -> u64 {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => {
                self.slots.push(Slot { generation: 0, state: SlotState::Free });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[index];
        // Skips 0, so that no id is 0.
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.state = state;
        id_of(index, slot.generation)
    }

    fn release(&mut self, index: u32) -> SlotState<T> {
        self.free.push(index);
        std::mem::replace(&mut self.slots[index as usize].state, SlotState::Free)
    }
}

impl<T> Slot<T> {
    fn flight(&self) -> Option<&Flight> {
        match &self.state {
            SlotState::Free => None,
            SlotState::Waiting(flight, _) | SlotState::GivenUp(flight) => Some(flight),
        }
    }
}

fn id_of(index: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | index as u64
}

/// Hashes connection ids, which transports give out and no peer chooses, with one multiplication.
pub(crate) type ConnHasher = BuildHasherDefault<MultiplyHasher>;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MultiplyHasher(u64);

impl Hasher for MultiplyHasher {
    fn write_u64(&mut self, n: u64) {
        // Fibonacci hashing (Knuth, TAOCP 6.4); the table uses the high bits and the low ones.
        let product = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 ^ u64::from(byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
