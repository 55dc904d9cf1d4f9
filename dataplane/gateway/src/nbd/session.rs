//! One client's session: handshake, then transmission.

use ogive_buf::Pool;
use ogive_client::{VolumeError, VolumeOutput};

use super::export::{ExportRequest, Exports};
use super::handshake::{Handshake, Step};
use super::out::OutQueue;
use super::protocol::RequestHeader;
use super::transmission::{Room, Transmission};

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client said so.
    #[error("the client ended the session")]
    Client,
    /// The client broke the protocol.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
}

enum State {
    Handshake(Handshake),
    Transmission(Transmission),
    Closing(CloseReason),
}

/// A session. The owner feeds it bytes, carries out what it asks for, and sends what
/// [`Session::out`] holds.
pub struct Session {
    state: State,
    pool: Pool,
    out: OutQueue,
}

/// What a session can take now.
#[derive(Debug)]
pub enum Want<'a> {
    /// Bytes, for [`Session::input`].
    Bytes,
    /// Payload of a write: to be put here and told with [`Session::payload_filled`], or given to
    /// [`Session::input`].
    Payload(&'a mut [u8]),
    /// Nothing, until a request in flight completes or output is sent.
    Nothing,
    /// Nothing, until the pool has memory again.
    Memory,
    /// Nothing any more: close once the output is sent.
    Close(CloseReason),
}

impl Session {
    /// A new session, whose output begins with the greeting. Payload is received into buffers of
    /// `pool`.
    pub fn new(pool: Pool) -> Session {
        let mut out = OutQueue::default();
        let state = State::Handshake(Handshake::new(&mut out));
        Session { state, pool, out }
    }

    /// True once the client has chosen an export.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Transmission(_))
    }

    /// What is to be sent.
    pub fn out(&mut self) -> &mut OutQueue {
        &mut self.out
    }

    /// What the session can take now.
    pub fn want(&mut self) -> Want<'_> {
        match &mut self.state {
            State::Handshake(_) => Want::Bytes,
            State::Closing(reason) => Want::Close(*reason),
            State::Transmission(t) if t.is_over() => Want::Close(CloseReason::Client),
            State::Transmission(t) => match t.room(&self.pool, &self.out) {
                Room::Header => Want::Bytes,
                Room::Payload => t.payload().map_or(Want::Bytes, Want::Payload),
                Room::Full | Room::Disconnected => Want::Nothing,
                Room::Starved => Want::Memory,
            },
        }
    }

    /// Takes bytes from the front of `bytes` and returns how many. The rest is to be offered again,
    /// with what follows it, once the session wants bytes.
    pub fn input(
        &mut self,
        bytes: &[u8],
        exports: &Exports,
        wanted: &mut Vec<ExportRequest>,
    ) -> usize {
        let mut at = 0;
        while let Some(n) = self.step(&bytes[at..], exports, wanted) {
            at += n;
        }
        at
    }

    /// Understands one more thing; `None` when that needs more bytes, or room.
    fn step(
        &mut self,
        bytes: &[u8],
        exports: &Exports,
        wanted: &mut Vec<ExportRequest>,
    ) -> Option<usize> {
        match &mut self.state {
            State::Closing(_) => None,
            State::Handshake(handshake) => match handshake.step(bytes, exports, &mut self.out) {
                Step::Need => None,
                Step::Took(n) => Some(n),
                Step::Enter(n, chosen) => {
                    self.state = State::Transmission(Transmission::new(chosen));
                    Some(n)
                }
                Step::Close(reason) => {
                    self.state = State::Closing(reason);
                    None
                }
            },
            State::Transmission(t) => match t.room(&self.pool, &self.out) {
                Room::Full | Room::Starved | Room::Disconnected => None,
                Room::Payload if bytes.is_empty() => None,
                Room::Payload => Some(t.take_payload(bytes, &mut self.out, wanted)),
                Room::Header => {
                    let header = bytes.first_chunk::<{ RequestHeader::BYTES }>()?;
                    let Some(header) = RequestHeader::decode(header) else {
                        self.state = State::Closing(CloseReason::Protocol("bad request magic"));
                        return None;
                    };
                    t.begin(header, exports, &self.pool, &mut self.out, wanted);
                    Some(RequestHeader::BYTES)
                }
            },
        }
    }

    /// `n` bytes were put into the place of [`Want::Payload`].
    pub fn payload_filled(&mut self, n: usize, wanted: &mut Vec<ExportRequest>) {
        let State::Transmission(t) = &mut self.state else {
            unreachable!("payload is wanted in transmission only")
        };
        t.payload_filled(n, &mut self.out, wanted);
    }

    /// Gives the result of an [`ExportRequest`]; may ask for more.
    pub fn completed(
        &mut self,
        token: u64,
        result: Result<VolumeOutput, VolumeError>,
        wanted: &mut Vec<ExportRequest>,
    ) {
        if let State::Transmission(t) = &mut self.state {
            t.completed(token, result, &mut self.out, wanted);
        }
    }
}
