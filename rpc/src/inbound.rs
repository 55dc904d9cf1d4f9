//! Requests that peers have unanswered at this end, held against the credits that our HELLO
//! granted.

use std::collections::HashMap;

use crate::requests::ConnHasher;
use crate::transport::ConnId;

/// The receiving side of the credits.
///
/// A peer that keeps to its credits never meets [`OverCredit`]; close the connection of one that
/// does.
#[derive(Debug, Default)]
pub struct Inbound {
    conns: HashMap<ConnId, Load, ConnHasher>,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    requests: u32,
    requests_max: u32,
    bytes: u64,
    bytes_max: u64,
}

/// A peer has more unanswered than it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more unanswered than granted: {requests} requests of {requests_max}, {bytes} bytes of \
     {bytes_max}"
)]
pub struct OverCredit {
    /// Requests unanswered, with the one refused.
    pub requests: u32,
    /// Requests granted.
    pub requests_max: u32,
    /// Payload bytes unanswered, with the one refused.
    pub bytes: u64,
    /// Payload bytes granted.
    pub bytes_max: u64,
}

impl Inbound {
    /// Nothing connected.
    pub fn new() -> Inbound {
        Inbound::default()
    }

    /// A connection is up on which our HELLO granted `requests_max` requests with together
    /// `bytes_max` bytes of payload.
    pub fn opened(&mut self, conn: ConnId, requests_max: u32, bytes_max: u64) {
        let load = Load { requests: 0, requests_max, bytes: 0, bytes_max };
        let old = self.conns.insert(conn, load);
        assert!(old.is_none(), "{conn:?} opened twice");
    }

    /// Counts a request with `bytes` of payload that arrived. On `OverCredit` it is not counted,
    /// and the caller closes the connection. A connection that was not opened has no credit.
    pub fn admit(&mut self, conn: ConnId, bytes: u64) -> Result<(), OverCredit> {
        let Some(load) = self.conns.get_mut(&conn) else {
            return Err(OverCredit { requests: 1, requests_max: 0, bytes, bytes_max: 0 });
        };
        let Load { requests_max, bytes_max, .. } = *load;
        let (requests, bytes) = (load.requests + 1, load.bytes + bytes);
        if requests > requests_max || bytes > bytes_max {
            return Err(OverCredit { requests, requests_max, bytes, bytes_max });
        }
        (load.requests, load.bytes) = (requests, bytes);
        Ok(())
    }

    /// A request that was admitted with `bytes` is answered. Nothing happens after `closed`, for
    /// answers to a dead connection come late.
    pub fn answered(&mut self, conn: ConnId, bytes: u64) {
        let Some(load) = self.conns.get_mut(&conn) else { return };
        assert!(load.requests > 0, "more answers than requests");
        assert!(load.bytes >= bytes, "more bytes answered than admitted");
        load.requests -= 1;
        load.bytes -= bytes;
    }

    /// Forgets a connection, and returns how many requests it left unanswered.
    pub fn closed(&mut self, conn: ConnId) -> u32 {
        self.conns.remove(&conn).map_or(0, |load| load.requests)
    }

    /// Requests unanswered on one connection.
    pub fn in_flight(&self, conn: ConnId) -> u32 {
        self.conns.get(&conn).map_or(0, |load| load.requests)
    }

    /// Payload bytes unanswered on one connection.
    pub fn bytes_in_flight(&self, conn: ConnId) -> u64 {
        self.conns.get(&conn).map_or(0, |load| load.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    #[test]
    fn counts_requests_and_bytes_per_connection() {
        let mut inbound = Inbound::new();
        inbound.opened(A, 2, 8192);
        inbound.opened(B, 2, 8192);
        assert_eq!(inbound.admit(A, 4096), Ok(()));
        assert_eq!(inbound.admit(A, 0), Ok(()));
        let over = inbound.admit(A, 0).expect_err("third request");
        assert_eq!((over.requests, over.requests_max), (3, 2));
        assert_eq!(inbound.admit(B, 8192), Ok(()), "the other connection has its own credits");
        assert!(inbound.admit(B, 1).is_err());
        inbound.answered(A, 4096);
        assert_eq!((inbound.in_flight(A), inbound.bytes_in_flight(A)), (1, 0));
        assert_eq!(inbound.admit(A, 8192), Ok(()), "answers give credit back");
    }

    #[test]
    fn without_a_connection_there_is_no_credit() {
        let mut inbound = Inbound::new();
        assert!(inbound.admit(A, 0).is_err());
        inbound.opened(A, 2, 8192);
        inbound.admit(A, 1).expect("credit");
        assert_eq!(inbound.closed(A), 1);
        inbound.answered(A, 1);
        assert_eq!(inbound.in_flight(A), 0);
        assert!(inbound.admit(A, 0).is_err());
    }
}
