//! Requests from others that this shard has not answered yet.
//!
//! The core, the store and the groups know a request by a token; here the token leads back to the
//! connection. Every request is answered exactly once: `answer` takes the call out.

use std::collections::HashMap;

use ogive_rpc::inbound::Inbound;
use ogive_rpc::transport::{ConnId, Incoming, Outgoing};

use crate::event::Effect;

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) conn: ConnId,
    id: u64,
    kind: u8,
    payload_bytes: u64,
}

/// Names a request within this shard; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) u64);

#[derive(Default)]
pub(crate) struct Calls {
    open: HashMap<Token, Call>,
    next: u64,
    inbound: Inbound,
}

impl Calls {
    /// Notes a request; `Err` when its sender has used up its credits.
    pub(crate) fn admit(&mut self, conn: ConnId, frame: &Incoming) -> Result<Token, String> {
        let payload_bytes = frame.payload.as_ref().map_or(0, |p| p.len() as u64);
        self.inbound.admit(conn, payload_bytes).map_err(|e| e.to_string())?;
        let token = self.token();
        self.open.insert(token, Call { conn, id: frame.id, kind: frame.kind, payload_bytes });
        Ok(token)
    }

    /// A token that stands for no request, for the shard's own reads.
    pub(crate) fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    /// Answers a request, unless its connection is gone.
    pub(crate) fn answer(
        &mut self,
        token: Token,
        body: Vec<u8>,
        payload: Vec<ogive_buf::Buf>,
        out: &mut Vec<Effect>,
    ) {
        let Some(call) = self.open.remove(&token) else { return };
        self.inbound.answered(call.conn, call.payload_bytes);
        let Call { conn, id, kind, .. } = call;
        let frame = Outgoing { kind, response: true, id, deadline_ms: 0, body, payload };
        out.push(Effect::Send { conn, frame });
    }

    /// A connection was accepted with the credits that our HELLO grants.
    pub(crate) fn opened(&mut self, conn: ConnId) {
        let (requests, bytes) = (crate::limits::CREDIT_REQUESTS, crate::limits::CREDIT_BYTES);
        self.inbound.opened(conn, requests, bytes);
    }

    /// The connection is gone: nobody waits for the answers any more.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        self.inbound.closed(conn);
        self.open.retain(|_, call| call.conn != conn);
    }

    /// Requests not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
