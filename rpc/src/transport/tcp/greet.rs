//! What a received frame does: HELLO is judged, GOODBYE ends, PING is enough by arriving, and the
//! rest belongs to the layers above.

use super::config::TcpConfig;
use super::conn::{Conn, ConnState};
use crate::frame::{KIND_GOODBYE, KIND_HELLO, KIND_PING};
use crate::goodbye;
use crate::hello::Hello;
use crate::transport::{CloseReason, ConnId, Event, Incoming};

/// Where the consequences of frames go.
pub(super) struct Frames<'a> {
    pub(super) config: &'a TcpConfig,
    pub(super) events: &'a mut Vec<Event>,
    pub(super) dirty: &'a mut Vec<ConnId>,
    /// Set to true when a connection reached `Up`.
    pub(super) established: bool,
}

impl Frames<'_> {
    /// The decoder has checked that the kind may come now.
    pub(super) fn take(&mut self, conn: &mut Conn, frame: Incoming) -> Result<(), CloseReason> {
        match frame.kind {
            KIND_HELLO => self.greet(conn, &frame.body),
            KIND_PING => Ok(()),
            KIND_GOODBYE => Err(goodbye::decode(&frame.body)),
            _ => {
                self.events.push(Event::Received { conn: conn.id, frame });
                Ok(())
            }
        }
    }

    fn greet(&mut self, conn: &mut Conn, body: &[u8]) -> Result<(), CloseReason> {
        assert_eq!(conn.state, ConnState::Greeting, "the decoder lets one HELLO pass");
        let peer = Hello::decode(body).map_err(|e| CloseReason::Protocol(format!("HELLO: {e}")))?;
        let verdict = self.config.accept.judge(&self.config.hello, &peer, conn.inbound);
        verdict.map_err(CloseReason::Refused)?;
        conn.state = ConnState::Up;
        conn.receive.establish();
        self.established = true;
        if conn.inbound {
            conn.queue.push_control(KIND_HELLO, self.config.hello.encode());
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(conn.id);
            }
        }
        self.events.push(Event::Connected { conn: conn.id, peer, inbound: conn.inbound });
        Ok(())
    }
}
