//! What a received frame does: HELLO is judged, GOODBYE ends, PING is enough by arriving, and the
//! rest, PATH too where paths are offered, belongs to the layers above.

use super::config::TcpConfig;
use super::conn::{Conn, ConnState};
use super::paths::Paths;
use crate::frame::{FrameError, KIND_GOODBYE, KIND_HELLO, KIND_PATH, KIND_PING};
use crate::goodbye;
use crate::hello::Greeting;
use crate::transport::{CloseReason, ConnId, Event, Incoming};

/// Where the consequences of frames go.
pub(super) struct Frames<'a> {
    pub(super) config: &'a TcpConfig,
    pub(super) paths: &'a Paths,
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
            KIND_PATH if !self.paths.talk(&conn.offers) => {
                Err(FrameError::OutOfTurn(KIND_PATH).into())
            }
            _ => {
                self.events.push(Event::Received { conn: conn.id, frame });
                Ok(())
            }
        }
    }

    fn greet(&mut self, conn: &mut Conn, body: &[u8]) -> Result<(), CloseReason> {
        assert_eq!(conn.state, ConnState::Greeting, "the decoder lets one HELLO pass");
        let Greeting { hello: peer, offers } =
            Greeting::decode(body).map_err(|e| CloseReason::Protocol(format!("HELLO: {e}")))?;
        let verdict = self.config.accept.judge(&self.config.hello, &peer, conn.inbound);
        verdict.and_then(|()| (self.paths.check)(&offers)).map_err(CloseReason::Refused)?;
        conn.offers = offers;
        conn.state = ConnState::Up;
        conn.receive.establish();
        self.established = true;
        if conn.inbound {
            conn.queue.push_control(KIND_HELLO, self.paths.greet(&self.config.hello));
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(conn.id);
            }
        }
        self.events.push(Event::Connected { conn: conn.id, peer, inbound: conn.inbound });
        Ok(())
    }
}
