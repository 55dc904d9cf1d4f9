//! Transmission: requests in any number at once, answered in any order.
//!
//! A write that is completed is on stable storage of a majority, so `FLUSH` is answered at once and
//! `FUA` asks for nothing more: both only concern writes whose replies the client has seen or waits
//! for with the same reply.
//!
//! | request | refused with |
//! |---|---|
//! | unknown command or flag; block status without its context | `EINVAL` |
//! | changes a read-only export | `EPERM` |
//! | past the end | `EINVAL`; writes and zeroes `ENOSPC` |
//! | read or write longer than 32 MiB | `EINVAL` |
//! | zeroes, fast and without a hole | `ENOTSUP` |
//!
//! The payload of a refused write is read and thrown away.

use std::collections::BTreeMap;

use ogive_buf::{Buf, BufMut, Pool};
use ogive_client::{VolumeError, VolumeOp, VolumeOutput};
use ogive_types::MAX_IO_BYTES;

use super::export::{Export, ExportRequest, Exports};
use super::handshake::Chosen;
use super::out::OutQueue;
use super::protocol::{self as p, Errno, RequestHeader};
use super::request::{Kind, Request};
use crate::limits::{
    IN_FLIGHT_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX, STATUS_BYTES_MAX, ZERO_PIECES_MAX,
};

/// Bits of a token below the request's number: pieces of the longest request.
const PIECE_BITS: u32 = 13;
/// Bytes of the buffer that `NO_HOLE` zeroes are written from.
const ZERO_PIECE_BYTES: u64 = MAX_IO_BYTES as u64;
const _: () = assert!((u32::MAX as u64).div_ceil(ZERO_PIECE_BYTES) + 1 < 1 << PIECE_BITS);

/// A write whose payload is arriving.
struct Receiving {
    request: u64,
    /// Offset in the export of the next byte.
    at: u64,
    left: u64,
    /// The piece being filled, and how far.
    piece: Option<(BufMut, usize)>,
    /// True when the payload is only thrown away.
    refused: bool,
}

/// The state of a session in transmission.
pub(crate) struct Transmission {
    chosen: Chosen,
    next_request: u64,
    requests: BTreeMap<u64, (Request, u64)>,
    pieces: BTreeMap<u64, u64>,
    receiving: Option<Receiving>,
    in_flight_bytes: usize,
    zero: Option<Buf>,
    disconnected: bool,
}

/// What a session can do with the next bytes of transmission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Take a request's header.
    Header,
    /// Take payload.
    Payload,
    /// Nothing until something in flight is done.
    Full,
    /// Nothing until the pool has memory again.
    Starved,
    /// Nothing any more: the client said good-bye.
    Disconnected,
}

impl Transmission {
    pub(crate) fn new(chosen: Chosen) -> Transmission {
        Transmission {
            chosen,
            next_request: 0,
            requests: BTreeMap::new(),
            pieces: BTreeMap::new(),
            receiving: None,
            in_flight_bytes: 0,
            zero: None,
            disconnected: false,
        }
    }

    /// True when the client is gone and everything it asked for is answered.
    pub(crate) fn is_over(&self) -> bool {
        self.disconnected && self.requests.is_empty()
    }

    /// What comes next. Gets a buffer for payload when one is needed.
    pub(crate) fn room(&mut self, pool: &Pool, out: &OutQueue) -> Room {
        if let Some(receiving) = &mut self.receiving {
            if !receiving.refused && receiving.piece.is_none() {
                let io = MAX_IO_BYTES as u64;
                let len = receiving.left.min(io - receiving.at % io);
                let Some(buf) = pool.alloc(len as usize) else { return Room::Starved };
                receiving.piece = Some((buf, 0));
            }
            return Room::Payload;
        }
        if self.disconnected {
            return Room::Disconnected;
        }
        let full = self.requests.len() >= REQUESTS_MAX
            || self.in_flight_bytes + out.bytes() >= IN_FLIGHT_BYTES_MAX;
        if full { Room::Full } else { Room::Header }
    }

    /// Where the next payload bytes belong, when they are kept.
    pub(crate) fn payload(&mut self) -> Option<&mut [u8]> {
        let (buf, filled) = self.receiving.as_mut()?.piece.as_mut()?;
        Some(&mut buf[*filled..])
    }

    /// Takes payload from the front of `bytes`; returns how much.
    pub(crate) fn take_payload(
        &mut self,
        bytes: &[u8],
        out: &mut OutQueue,
        wanted: &mut Vec<ExportRequest>,
    ) -> usize {
        if let Some(place) = self.payload() {
            let n = place.len().min(bytes.len());
            place[..n].copy_from_slice(&bytes[..n]);
            self.payload_filled(n, out, wanted);
            return n;
        }
        let Some(receiving) = &mut self.receiving else { return 0 };
        let n = receiving.left.min(bytes.len() as u64);
        receiving.left -= n;
        self.end_receiving(out);
        n as usize
    }

    /// `n` bytes were put where [`Transmission::payload`] said.
    pub(crate) fn payload_filled(
        &mut self,
        n: usize,
        out: &mut OutQueue,
        wanted: &mut Vec<ExportRequest>,
    ) {
        let receiving = self.receiving.as_mut().expect("payload is expected");
        let (buf, filled) = receiving.piece.as_mut().expect("a place was given");
        *filled += n;
        assert!(*filled <= buf.len());
        if *filled < buf.len() {
            return;
        }
        let (buf, len) = receiving.piece.take().expect("matched above");
        let (request, offset) = (receiving.request, receiving.at);
        receiving.at += len as u64;
        receiving.left -= len as u64;
        let op = VolumeOp::Write { offset, data: buf.freeze() };
        self.start_piece(request, op, wanted);
        self.end_receiving(out);
    }

    fn end_receiving(&mut self, out: &mut OutQueue) {
        if let Some(request) = self.receiving.as_ref().filter(|r| r.left == 0).map(|r| r.request) {
            self.receiving = None;
            self.requests.get_mut(&request).expect("received for it").0.whole = true;
            self.finish_if_done(request, out);
        }
    }

    /// A piece that was asked for is done. Results of unknown tokens are ignored.
    pub(crate) fn completed(
        &mut self,
        token: u64,
        result: Result<VolumeOutput, VolumeError>,
        out: &mut OutQueue,
        wanted: &mut Vec<ExportRequest>,
    ) {
        let Some(at) = self.pieces.remove(&token) else { return };
        let serial = token >> PIECE_BITS;
        let structured = self.chosen.structured;
        let (request, _) = self.requests.get_mut(&serial).expect("pieces belong to requests");
        request.piece_done(at, result, structured, out);
        self.go_on_zeroing(serial, wanted);
        self.finish_if_done(serial, out);
    }

    fn finish_if_done(&mut self, serial: u64, out: &mut OutQueue) {
        let done = self.requests.get(&serial).is_some_and(|(r, _)| r.is_done());
        if done && let Some((request, _)) = self.requests.remove(&serial) {
            self.in_flight_bytes -= request.bytes;
            request.reply(self.chosen.structured, out);
        }
    }

    /// Takes a request's header.
    pub(crate) fn begin(
        &mut self,
        header: RequestHeader,
        exports: &Exports,
        pool: &Pool,
        out: &mut OutQueue,
        wanted: &mut Vec<ExportRequest>,
    ) {
        if header.command == p::CMD_DISC {
            self.disconnected = true;
            return;
        }
        let verdict = self.check(&header, exports.get(self.chosen.export));
        let bytes = match header.command {
            p::CMD_READ | p::CMD_WRITE if verdict.is_ok() => header.len as usize,
            _ => 0,
        };
        let serial = self.next_request;
        self.next_request += 1;
        self.in_flight_bytes += bytes;
        let mut request = Request::new(header.cookie, kind_of(&header), bytes);
        request.whole = header.command != p::CMD_WRITE || header.len == 0;
        let refused = verdict.is_err();
        if let Err((error, text)) = verdict {
            request.fail(error, text);
        }
        self.requests.insert(serial, (request, 0));
        if header.command == p::CMD_WRITE && header.len > 0 {
            let (at, left) = (header.offset, header.len as u64);
            self.receiving = Some(Receiving { request: serial, at, left, piece: None, refused });
        } else if !refused {
            self.start(serial, &header, pool, wanted);
        }
        self.finish_if_done(serial, out);
    }

    fn check(&self, header: &RequestHeader, export: &Export) -> Result<(), (Errno, &'static str)> {
        use p::{
            CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_REQ_ONE,
        };
        let (flags, changes) = match header.command {
            p::CMD_READ if self.chosen.structured => (CMD_FLAG_DF, false),
            p::CMD_READ | p::CMD_FLUSH | p::CMD_CACHE => (0, false),
            p::CMD_WRITE | p::CMD_TRIM => (0, true),
            p::CMD_WRITE_ZEROES => (CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO, true),
            p::CMD_BLOCK_STATUS if self.chosen.allocation => (CMD_FLAG_REQ_ONE, false),
            p::CMD_BLOCK_STATUS => return Err((Errno::Inval, "no metadata context is selected")),
            _ => return Err((Errno::Inval, "unknown command")),
        };
        if header.flags & !(flags | CMD_FLAG_FUA) != 0 {
            return Err((Errno::Inval, "a flag that this command does not have"));
        }
        if changes && export.read_only {
            return Err((Errno::Perm, "the export is read-only"));
        }
        let end = header.offset.checked_add(header.len as u64);
        if header.command != p::CMD_FLUSH && end.is_none_or(|end| end > export.size_bytes) {
            let grows = matches!(header.command, p::CMD_WRITE | p::CMD_WRITE_ZEROES);
            let error = if grows { Errno::NoSpc } else { Errno::Inval };
            return Err((error, "past the end of the export"));
        }
        let carries_data = matches!(header.command, p::CMD_READ | p::CMD_WRITE);
        if carries_data && header.len > REQUEST_BYTES_MAX {
            return Err((Errno::Inval, "longer than the largest request"));
        }
        if header.command == p::CMD_BLOCK_STATUS && header.len == 0 {
            return Err((Errno::Inval, "block status of nothing"));
        }
        let slow_zero = CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO;
        if header.flags & slow_zero == slow_zero {
            return Err((Errno::NotSup, "zeroes without a hole are written, which is not fast"));
        }
        Ok(())
    }

    /// Starts the volume operations of a request that was not refused.
    fn start(
        &mut self,
        serial: u64,
        header: &RequestHeader,
        pool: &Pool,
        wanted: &mut Vec<ExportRequest>,
    ) {
        let (offset, len) = (header.offset, header.len as u64);
        match header.command {
            p::CMD_READ => {
                let (io, mut at) = (MAX_IO_BYTES as u64, offset);
                while at < offset + len {
                    let piece = (offset + len - at).min(io - at % io);
                    self.start_piece(serial, VolumeOp::Read { offset: at, len: piece }, wanted);
                    at += piece;
                }
            }
            p::CMD_TRIM => self.start_piece(serial, VolumeOp::Trim { offset, len }, wanted),
            p::CMD_WRITE_ZEROES if header.flags & p::CMD_FLAG_NO_HOLE != 0 && len > 0 => {
                if self.zero.is_none() {
                    self.zero = pool.alloc_zeroed(MAX_IO_BYTES).map(BufMut::freeze);
                }
                let (request, _) = self.requests.get_mut(&serial).expect("begun just now");
                match self.zero {
                    Some(_) => request.zeroes = Some((offset, offset + len)),
                    None => request.fail(Errno::NoMem, "no memory for zeroes now; try again"),
                }
                self.go_on_zeroing(serial, wanted);
            }
            p::CMD_WRITE_ZEROES => {
                self.start_piece(serial, VolumeOp::WriteZeroes { offset, len }, wanted);
            }
            p::CMD_BLOCK_STATUS => {
                let len = len.min(STATUS_BYTES_MAX);
                self.start_piece(serial, VolumeOp::Map { offset, len }, wanted);
            }
            // Completed writes are durable, and there is no cache to fill.
            _ => {}
        }
    }

    fn go_on_zeroing(&mut self, serial: u64, wanted: &mut Vec<ExportRequest>) {
        loop {
            let Some((request, _)) = self.requests.get_mut(&serial) else { return };
            let (Some((at, end)), Some(zero)) = (request.zeroes, &self.zero) else { return };
            if request.left >= ZERO_PIECES_MAX {
                return;
            }
            let len = (end - at).min(ZERO_PIECE_BYTES - at % ZERO_PIECE_BYTES);
            request.zeroes = (at + len < end).then_some((at + len, end));
            let data = zero.slice(0..len as usize);
            self.start_piece(serial, VolumeOp::Write { offset: at, data }, wanted);
        }
    }

    fn start_piece(&mut self, serial: u64, op: VolumeOp, wanted: &mut Vec<ExportRequest>) {
        let (request, pieces) = self.requests.get_mut(&serial).expect("begun before its pieces");
        let token = serial << PIECE_BITS | *pieces;
        *pieces += 1;
        assert!(*pieces <= 1 << PIECE_BITS);
        request.left += 1;
        self.pieces.insert(token, op.span().0);
        wanted.push(ExportRequest { export: self.chosen.export, token, op });
    }
}

fn kind_of(header: &RequestHeader) -> Kind {
    match header.command {
        // A chunk of data may not be empty.
        p::CMD_READ if header.len == 0 => Kind::Empty,
        p::CMD_READ => {
            Kind::Read { offset: header.offset, whole: header.flags & p::CMD_FLAG_DF != 0 }
        }
        p::CMD_BLOCK_STATUS => Kind::Status { one: header.flags & p::CMD_FLAG_REQ_ONE != 0 },
        _ => Kind::Plain,
    }
}
