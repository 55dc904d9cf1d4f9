//! One connection: a socket around a session.

// A shell: it owns a socket.
#![allow(clippy::disallowed_methods)]

use std::io::{ErrorKind, IoSliceMut};

use ogive_buf::Pool;
use ogive_types::Time;

use crate::limits::{HANDSHAKE_TIMEOUT, POLL_BYTES_MAX, STAGING_BYTES};
use crate::nbd::{ExportRequest, Exports, Session, Want};
use crate::socket::Socket;

/// Slices of one write call.
const IOVECS_MAX: usize = 64;

/// A connection. Its socket is registered edge-triggered, so what was reported is remembered here
/// until it is used up.
pub(crate) struct Conn {
    pub(crate) socket: Socket,
    pub(crate) session: Session,
    staging: Vec<u8>,
    staged: std::ops::Range<usize>,
    readable: bool,
    writable: bool,
    /// The peer has sent its last byte, or the socket has failed.
    hung_up: bool,
    /// The session waits for memory.
    pub(crate) starved: bool,
    /// Until when the handshake must be done.
    pub(crate) handshake_until: Time,
}

/// Why a connection is to be closed.
pub(crate) enum End {
    /// The session says so; its last output is sent.
    Session(crate::nbd::CloseReason),
    /// The client has closed its end.
    HungUp,
    /// The socket failed.
    Failed(std::io::Error),
}

impl Conn {
    pub(crate) fn new(socket: Socket, pool: Pool, now: Time) -> Conn {
        Conn {
            socket,
            session: Session::new(pool),
            staging: vec![0; STAGING_BYTES],
            staged: 0..0,
            readable: false,
            writable: true,
            hung_up: false,
            starved: false,
            handshake_until: now + HANDSHAKE_TIMEOUT,
        }
    }

    pub(crate) fn on_ready(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.readable |= readable || hung_up;
        self.writable |= writable;
        self.hung_up |= hung_up;
    }

    /// Receives and understands what it can, up to a bound. True when anything came.
    pub(crate) fn receive(
        &mut self,
        exports: &Exports,
        wanted: &mut Vec<ExportRequest>,
    ) -> Result<bool, End> {
        let mut received = 0;
        loop {
            self.feed(exports, wanted);
            self.starved = false;
            let close = match self.session.want() {
                Want::Bytes | Want::Payload(_) => None,
                Want::Nothing => break,
                Want::Memory => {
                    self.starved = true;
                    break;
                }
                Want::Close(reason) => Some(reason),
            };
            match close {
                Some(reason) if self.session.out().bytes() == 0 => {
                    return Err(End::Session(reason));
                }
                Some(_) => break,
                None => {}
            }
            if !self.readable || received >= POLL_BYTES_MAX {
                break;
            }
            received += self.read(wanted)?;
        }
        Ok(received > 0)
    }

    /// True when `receive` stopped for the sake of others.
    pub(crate) fn has_more(&mut self) -> bool {
        self.readable && matches!(self.session.want(), Want::Bytes | Want::Payload(_))
    }

    fn feed(&mut self, exports: &Exports, wanted: &mut Vec<ExportRequest>) {
        let took = self.session.input(&self.staging[self.staged.clone()], exports, wanted);
        self.staged.start += took;
        if self.staged.is_empty() {
            self.staged = 0..0;
        } else if self.staged.start > 0 && self.staged.end == STAGING_BYTES {
            self.staging.copy_within(self.staged.clone(), 0);
            self.staged = 0..self.staged.len();
        }
    }

    /// One read: payload goes where it belongs, the rest behind what is staged.
    fn read(&mut self, wanted: &mut Vec<ExportRequest>) -> Result<usize, End> {
        let mut bufs = Vec::with_capacity(2);
        let mut room = 0;
        if let Want::Payload(place) = self.session.want() {
            room = place.len();
            bufs.push(IoSliceMut::new(place));
        }
        let staging = &mut self.staging[self.staged.end..];
        let size = room + staging.len();
        bufs.push(IoSliceMut::new(staging));
        let n = match self.socket.read(&mut bufs) {
            Ok(0) => return Err(End::HungUp),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(0),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(0);
            }
            Err(e) => return Err(End::Failed(e)),
        };
        // A short read has emptied the socket; what comes later is reported anew. Only the end is
        // not.
        if n < size && !self.hung_up {
            self.readable = false;
        }
        if room > 0 {
            self.session.payload_filled(n.min(room), wanted);
        }
        self.staged.end += n.saturating_sub(room);
        Ok(n)
    }

    /// Sends what it can. True when anything went.
    pub(crate) fn send(&mut self) -> Result<bool, End> {
        let mut sent = false;
        while self.writable && self.session.out().bytes() > 0 {
            let out = self.session.out();
            match self.socket.write(&out.slices(IOVECS_MAX)) {
                Ok(n) => {
                    out.advance(n);
                    sent = true;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(e) => return Err(End::Failed(e)),
            }
        }
        Ok(sent)
    }
}
