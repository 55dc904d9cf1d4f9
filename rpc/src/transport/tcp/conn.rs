//! One connection: its socket, what has half arrived, what waits to be sent.
//!
//! ```text
//!             connected,                their HELLO is good,
//!             our HELLO sent            (inbound: ours is sent)
//! Connecting ----------------> Greeting -----------------------> Up
//!     inbound connections start here ^
//! ```
//! From every state an error, a time-out or GOODBYE leads to the end, which the transport reports.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;

use ogive_buf::{BufMut, Pool};
use ogive_types::Time;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::Socket;

use super::epoll::Interest;
use super::queue::{JOINED_SEND_BYTES, SendQueue};
use super::stats::TcpStats;
use crate::assemble::{Assembler, Step};
use crate::frame::{FrameError, KIND_PING};
use crate::limits::{READ_BYTES_PER_POLL, SCRATCH_BYTES, SLICES_PER_WRITE};
use crate::offer::Offer;
use crate::transport::{CloseReason, ConnId, Incoming};

const _: () = assert!(JOINED_SEND_BYTES <= SCRATCH_BYTES);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnState {
    Connecting,
    Greeting,
    Up,
}

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) socket: Socket,
    pub(super) peer: SocketAddr,
    pub(super) inbound: bool,
    /// What the peer's HELLO offers beside TCP.
    pub(super) offers: Vec<Offer>,
    pub(super) state: ConnState,
    pub(super) receive: Assembler,
    /// What epoll watches the socket for.
    pub(super) interest: Interest,
    /// Bytes read behind a frame that waits for a buffer; empty unless paused.
    held: Vec<u8>,
    /// Not read because the pool has no buffer.
    pub(super) paused: bool,
    pub(super) queue: SendQueue,
    /// The kernel takes no more; epoll tells when it does.
    pub(super) blocked: bool,
    /// In the transport's list of connections to flush.
    pub(super) dirty: bool,
    /// Another path carries its frames, and keeps it alive.
    pub(super) resting: bool,
    /// A write failed because the peer is gone. What it sent before is still read.
    pub(super) broken: bool,
    pub(super) opened: Time,
    pub(super) last_sent: Time,
    pub(super) last_received: Time,
    /// When the first byte of the frame that is incomplete was seen.
    pub(super) partial_since: Option<Time>,
    /// When the queue grew over its soft limit.
    pub(super) stalled_since: Option<Time>,
}

/// What reading a connection needs of its transport.
pub(super) struct Reading<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) pool: &'a Pool,
    /// Others were first in waiting for a buffer.
    pub(super) others_wait: bool,
    pub(super) stats: &'a mut TcpStats,
    pub(super) now: Time,
}

/// What happens with a frame; `Err` ends the connection.
pub(super) type OnFrame<'a> = dyn FnMut(&mut Conn, Incoming) -> Result<(), CloseReason> + 'a;

impl Conn {
    pub(super) fn new(
        id: ConnId,
        socket: Socket,
        peer: SocketAddr,
        inbound: bool,
        now: Time,
    ) -> Conn {
        Conn {
            id,
            socket,
            peer,
            inbound,
            offers: Vec::new(),
            state: if inbound { ConnState::Greeting } else { ConnState::Connecting },
            receive: Assembler::new(),
            interest: if inbound { Interest::READ } else { Interest::WRITE },
            held: Vec::new(),
            paused: false,
            queue: SendQueue::default(),
            blocked: false,
            dirty: false,
            resting: false,
            broken: false,
            opened: now,
            last_sent: now,
            last_received: now,
            partial_since: None,
            stalled_since: None,
        }
    }

    /// Reads what has arrived, a bounded amount, and gives each frame to `on_frame`, which may end
    /// the connection. How many bytes arrived.
    pub(super) fn read(
        &mut self,
        cx: &mut Reading<'_>,
        on_frame: &mut OnFrame<'_>,
    ) -> Result<usize, CloseReason> {
        let mut total = 0;
        while !self.paused && total < READ_BYTES_PER_POLL {
            let in_place_max = self.receive.payload_space().len();
            let room = in_place_max + cx.scratch.len();
            let n = match self.receive_into(cx.scratch) {
                Ok(0) => return Err(CloseReason::Peer),
                Ok(n) => n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(reason_of(error)),
            };
            total += n;
            cx.stats.reads += 1;
            cx.stats.bytes_received += n as u64;
            self.last_received = cx.now;
            self.arrived(n.min(in_place_max), n, cx, on_frame)?;
            // A short read means that the socket is empty; asking again would only cost.
            if n < room {
                break;
            }
        }
        Ok(total)
    }

    /// One system call: into the payload's buffer, then into `scratch`.
    fn receive_into(&mut self, scratch: &mut [u8]) -> rustix::io::Result<usize> {
        let space = self.receive.payload_space();
        if space.is_empty() {
            return rustix::net::recv(&self.socket, scratch, RecvFlags::DONTWAIT).map(|r| r.1);
        }
        rustix::io::readv(&self.socket, &mut [IoSliceMut::new(space), IoSliceMut::new(scratch)])
    }

    /// `n` bytes came: `in_place` of them into the payload's buffer, the others into the scratch.
    fn arrived(
        &mut self,
        in_place: usize,
        n: usize,
        cx: &mut Reading<'_>,
        on_frame: &mut OnFrame<'_>,
    ) -> Result<(), CloseReason> {
        if let Some(frame) = self.receive.payload_filled(in_place) {
            self.frame_done(frame, cx.stats, on_frame)?;
        }
        let rest = &cx.scratch[..n - in_place];
        let alloc = |bytes| if cx.others_wait { None } else { cx.pool.alloc(bytes) };
        let used = self.assemble(rest, &alloc, cx.stats, on_frame)?;
        assert!(self.paused || used == rest.len(), "only a missing buffer leaves bytes");
        self.held.extend_from_slice(&rest[used..]);
        cx.stats.pauses += u64::from(self.paused);
        self.note_partial(cx.now);
        Ok(())
    }

    /// Tries to go on after the pool had no buffer. True when it got one, though it may wait for
    /// the next one already.
    pub(super) fn resume(
        &mut self,
        cx: &mut Reading<'_>,
        on_frame: &mut OnFrame<'_>,
    ) -> Result<bool, CloseReason> {
        assert!(self.paused);
        self.paused = false;
        let held = std::mem::take(&mut self.held);
        let used = self.assemble(&held, &|bytes| cx.pool.alloc(bytes), cx.stats, on_frame)?;
        self.held.extend_from_slice(&held[used..]);
        self.last_received = cx.now;
        self.note_partial(cx.now);
        let progress = !self.paused || used > 0;
        cx.stats.pauses += u64::from(self.paused && progress);
        Ok(progress)
    }

    /// Puts frames together from `bytes`; how many were used. Pauses when the pool has no buffer.
    fn assemble(
        &mut self,
        mut bytes: &[u8],
        alloc: &dyn Fn(usize) -> Option<BufMut>,
        stats: &mut TcpStats,
        on_frame: &mut OnFrame<'_>,
    ) -> Result<usize, CloseReason> {
        let len = bytes.len();
        loop {
            match self.receive.next(&mut bytes, alloc)? {
                Step::Frame(frame) => self.frame_done(frame, stats, on_frame)?,
                Step::More => break,
                Step::NoBuffer => {
                    self.paused = true;
                    break;
                }
            }
        }
        stats.copied_bytes += self.receive.take_copied();
        Ok(len - bytes.len())
    }

    fn frame_done(
        &mut self,
        frame: Incoming,
        stats: &mut TcpStats,
        on_frame: &mut OnFrame<'_>,
    ) -> Result<(), CloseReason> {
        self.partial_since = None;
        stats.frames_received += 1;
        stats.pings_received += u64::from(frame.kind == KIND_PING);
        on_frame(self, frame)
    }

    /// Time in which we do not read does not count against the peer.
    fn note_partial(&mut self, now: Time) {
        if self.paused || !self.receive.is_partial() {
            self.partial_since = None;
        } else {
            self.partial_since.get_or_insert(now);
        }
    }

    /// Hands the queue to the kernel, many frames in one call, until one of them is at its end.
    /// `scratch` is for frames that are put together.
    pub(super) fn write(
        &mut self,
        scratch: &mut [u8],
        stats: &mut TcpStats,
        now: Time,
    ) -> Result<(), CloseReason> {
        self.blocked = false;
        while !self.queue.is_empty() {
            stats.writes += 1;
            let (result, offered) = self.write_once(scratch, stats);
            match result {
                Ok(n) => {
                    self.last_sent = now;
                    stats.bytes_sent += n as u64;
                    stats.frames_sent += self.queue.advance(n);
                    self.blocked = n < offered;
                }
                Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.broken = true;
                    self.queue.clear();
                }
                Err(error) => return Err(reason_of(error)),
            }
            if self.blocked {
                break;
            }
        }
        Ok(())
    }

    /// One system call, the simplest that does: how many bytes the kernel took, and was offered.
    fn write_once(
        &self,
        scratch: &mut [u8],
        stats: &mut TcpStats,
    ) -> (rustix::io::Result<usize>, usize) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Some(whole) = self.queue.whole() {
            return (rustix::net::send(&self.socket, whole, flags), whole.len());
        }
        if self.queue.bytes() <= JOINED_SEND_BYTES {
            let (bytes, payload) = self.queue.join(scratch);
            stats.copied_bytes += payload as u64;
            return (rustix::net::send(&self.socket, &scratch[..bytes], flags), bytes);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let (count, bytes) = self.queue.gather(&mut slices);
        let ancillary = &mut SendAncillaryBuffer::default();
        (rustix::net::sendmsg(&self.socket, &slices[..count], ancillary, flags), bytes)
    }

    /// What epoll should watch the socket for.
    pub(super) fn wanted(&self) -> Interest {
        match self.state {
            ConnState::Connecting => Interest::WRITE,
            _ => Interest { read: !self.paused, write: self.blocked },
        }
    }
}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> CloseReason {
        match error {
            FrameError::Version { .. } => CloseReason::Refused(error.to_string()),
            _ => CloseReason::Protocol(error.to_string()),
        }
    }
}

/// A reset is what a killed process leaves behind when bytes for it were still under way.
fn reason_of(error: Errno) -> CloseReason {
    match error {
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => CloseReason::Peer,
        error => CloseReason::System(error.to_string()),
    }
}
