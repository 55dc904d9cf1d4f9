//! The connections of one owner over one UCX worker.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;

use ogive_buf::Buf;
use ogive_types::Time;
use ogive_ucx::{Completion, Context, Done, Mode, Progress, UcxError, Worker};

use super::arrivals::{Arrivals, Pull, reason};
use super::conn::{Due, LastFlush, Remote};
use super::inbox::FrameNo;
use super::leaving::Leaving;
use super::offers::Offers;
use super::open;
use super::pull::{MARK_BYTES, Mark, PREFIX_BYTES, Peer, random_mark};
use super::slab::Slab;
use super::wire::{LANE_HEAD_BYTES, LaneHead, Message};
use crate::frame::{HEADER_BYTES, Header};
use crate::limits::{
    AM_HEADER_BYTES_MAX, BUFFER_RETRY, EAGER_BYTES_MAX, LANE_ADDRESS_BYTES_MAX, LANE_NAP,
    LANE_NAP_MAX, LANE_NAP_PART, SEND_QUEUE_BYTES_MAX, SPARE_HEADERS_MAX, TICK,
};
use crate::transport::lane::{Lane, LaneConfig, LaneEvent, LaneVersion};
use crate::transport::tcp::Timing;
use crate::transport::{CloseReason, ConnId, Outgoing, Path, PathStats};

/// All messages are of one kind for UCX.
const AM_ID: u16 = 1;

/// A lane over UCX. Fields are in the order in which they have to be dropped: endpoints, worker,
/// context.
pub(super) struct UcxLane {
    path: Path,
    arrivals: Arrivals,
    /// Rendezvous under way: connection, frame and length by token.
    receives: Slab<(u64, FrameNo, usize)>,
    /// Arenas of the pool that were registered.
    arenas: usize,
    /// What peers read to see whether they can read; at one place as long as the lane lives.
    _mark: Box<[u8; MARK_BYTES]>,
    offers: Offers,
    leaving: Leaving,
    /// Header buffers for reuse.
    spare: Vec<Vec<u8>>,
    worker: ManuallyDrop<Worker>,
    address: Vec<u8>,
    timing: Timing,
    /// Bytes of a body that a message's header has room for.
    body_room: usize,
    /// Operations that UCX has not ended.
    under_way: usize,
    /// When the last of them began, or one ended.
    stirred: Time,
    /// No time-out lies before this.
    next_tick: Time,
}

/// A worker for the path, and its address. The worker keeps the context.
fn start(path: Path, endpoints: usize) -> Result<(Worker, Vec<u8>), UcxError> {
    let context = Context::new(&open::config(path), endpoints)?;
    let worker = Worker::new(&context)?;
    worker.receive_messages(AM_ID)?;
    let address = worker.address()?;
    Ok((worker, address))
}

/// The peer's process, if its memory can be read; otherwise the log says what that costs.
fn readable(mark: &Mark) -> Option<Peer> {
    let tried = mark.try_read();
    if let Err(why) = &tried {
        tracing::warn!(
            why,
            "the memory of the peer cannot be read (ptrace_scope, seccomp): large payloads are \
             copied twice, by UCX"
        );
    }
    tried.ok()
}

impl UcxLane {
    /// Starts UCX for a path; the error says what it lacks.
    pub(super) fn new(path: Path, config: &LaneConfig) -> Result<UcxLane, String> {
        let (worker, ucx) = start(path, config.connections_max)
            .map_err(|error| format!("UCX does not start: {error}"))?;
        let value = Box::new(random_mark());
        let mark = if path == Path::Shm { Mark::here(&value) } else { Mark::none() };
        let mut address = Vec::with_capacity(PREFIX_BYTES + ucx.len());
        mark.encode(&mut address);
        address.extend_from_slice(&ucx);
        if address.len() > LANE_ADDRESS_BYTES_MAX {
            return Err(format!(
                "UCX's address has {} bytes, at most {LANE_ADDRESS_BYTES_MAX} are sent; name one \
                 device in UCX_NET_DEVICES",
                address.len()
            ));
        }
        let header_room = worker.max_am_header().min(AM_HEADER_BYTES_MAX);
        let body_room = header_room.checked_sub(LANE_HEAD_BYTES + HEADER_BYTES);
        let body_room = body_room.filter(|&room| room > 0).ok_or("UCX's headers are too short")?;
        Ok(UcxLane {
            path,
            arrivals: Arrivals::new(config.pool.clone()),
            receives: Slab::default(),
            arenas: 0,
            _mark: value,
            offers: Offers::default(),
            leaving: Leaving::default(),
            spare: Vec::new(),
            worker: ManuallyDrop::new(worker),
            address,
            timing: config.timing,
            body_room,
            under_way: 0,
            stirred: Time(0),
            next_tick: Time::NEVER,
        })
    }

    /// Registers memory that the pool got since the last time, so that UCX need not do it for each
    /// message. Without it (no memory may be locked) everything works, at a higher cost.
    fn register(&mut self) {
        let arenas = self.arrivals.pool.arena_count();
        if self.arenas == arenas {
            return;
        }
        self.arenas = arenas;
        if let Err(error) = self.worker.register(&self.arrivals.pool) {
            tracing::warn!(path = %self.path, %error, "buffers are not registered in advance");
        }
    }

    /// Sends one message; a failure breaks the connection.
    fn transmit(&mut self, key: u64, message: Message<'_>, data: Option<Buf>) {
        let now = self.arrivals.now;
        let mut header = self.spare.pop().unwrap_or_default();
        let Some(conn) = self.arrivals.conn(key) else { return };
        let Some(remote) = &mut conn.remote else { return };
        LaneHead { key: remote.key, seq: remote.seq, message }.encode(&mut header);
        remote.seq += 1;
        let data_bytes = data.as_ref().map_or(0, |data| data.len());
        let bytes = header.len() + data_bytes;
        let mode = if data_bytes <= EAGER_BYTES_MAX { Mode::Eager } else { Mode::Rendezvous };
        conn.last_sent = now;
        match remote.endpoint.send(AM_ID, header, data, mode, key) {
            Ok(Progress::Now(mut header)) => {
                header.clear();
                if self.spare.len() < SPARE_HEADERS_MAX {
                    self.spare.push(header);
                }
            }
            Ok(Progress::Later) => {
                conn.queued(bytes, now);
                (self.under_way, self.stirred) = (self.under_way + 1, now);
                self.watch_queue(key);
            }
            Err(error) => return self.arrivals.broken(key, reason(&error)),
        }
        self.arrivals.stats.bytes_sent += bytes as u64;
    }

    /// Begins the rendezvous that have a place now, and notes the operations that ended.
    fn attend(&mut self) {
        self.settle_offers();
        while let Some(Pull { key, at, pending, into }) = self.arrivals.pulls.pop() {
            let token = self.receives.insert((key, at, into.len()));
            match self.worker.receive(pending, into, token) {
                Ok(Progress::Now(into)) => {
                    drop(into);
                    self.received(token, Ok(()));
                }
                Ok(Progress::Later) => {
                    (self.under_way, self.stirred) = (self.under_way + 1, self.arrivals.now);
                }
                Err(error) => self.received(token, Err(error)),
            }
        }
        let mut ended = std::mem::take(&mut self.arrivals.ended);
        for done in ended.drain(..) {
            (self.under_way, self.stirred) = (self.under_way - 1, self.arrivals.now);
            let Completion { token, result, what } = done;
            match what {
                Done::Sent { header, payload } => {
                    let bytes = header.len() + payload.map_or(0, |data| data.len());
                    self.sent(token, bytes, result);
                }
                Done::Received { into, .. } => {
                    drop(into);
                    self.received(token, result);
                }
                Done::Flushed => self.flushed(token, result),
                Done::Put { .. } | Done::Got { .. } => {
                    unreachable!("a lane only sends and receives")
                }
            }
        }
        self.arrivals.ended = ended;
    }

    /// The first flush of an endpoint ended: it is connected, or never will be.
    fn flushed(&mut self, key: u64, result: Result<(), UcxError>) {
        self.leaving.flushed(key);
        let Some(conn) = self.arrivals.conn(key) else { return };
        if let Some(remote) = &mut conn.remote {
            remote.settled = true;
        }
        if conn.last_flush == LastFlush::UnderWay {
            conn.last_flush = LastFlush::Done;
        }
        if let Err(error) = result {
            self.arrivals.broken(key, reason(&error));
        }
    }

    fn sent(&mut self, key: u64, bytes: usize, result: Result<(), UcxError>) {
        if let Some(conn) = self.arrivals.conn(key) {
            conn.unqueued(bytes);
        }
        if let Err(error) = result {
            self.arrivals.broken(key, reason(&error));
        }
    }

    fn received(&mut self, token: u64, result: Result<(), UcxError>) {
        let (key, at, len) = self.receives.remove(token);
        match result {
            Ok(()) => {
                if let Some(conn) = self.arrivals.conn(key) {
                    conn.inbox.landed(at, len);
                }
                self.arrivals.deliver(key);
            }
            Err(error) => self.arrivals.broken(key, reason(&error)),
        }
    }
}

impl UcxLane {
    /// Sends a frame: what of its body does not fit, the frame, the further pieces of its payload.
    fn transmit_frame(&mut self, key: u64, frame: &mut Outgoing) {
        let payload_bytes = frame.payload.iter().map(|buf| buf.len()).sum();
        let header = Header {
            response: frame.response,
            id: frame.id,
            deadline_ms: frame.deadline_ms,
            ..Header::new(frame.kind, &frame.body, payload_bytes)
        };
        let mut body = frame.body.as_slice();
        while body.len() > self.body_room {
            let (part, rest) = body.split_at(self.body_room);
            self.transmit(key, Message::Part(part), None);
            body = rest;
        }
        match frame.payload.len() {
            0 => self.transmit(key, Message::Frame(header, body), None),
            1 if payload_bytes <= EAGER_BYTES_MAX => {
                let piece = frame.payload.pop().filter(|buf| !buf.is_empty());
                self.transmit(key, Message::Frame(header, body), piece);
            }
            _ => self.transmit_pieces(key, header, body, std::mem::take(&mut frame.payload)),
        }
        self.arrivals.stats.frames_sent += 1;
    }

    /// Sends a frame whose payload may be offered, or lies in several buffers.
    fn transmit_pieces(&mut self, key: u64, header: Header, body: &[u8], payload: Vec<Buf>) {
        let reads_us = self.arrivals.conn(key).is_some_and(|conn| conn.reads_us);
        let is_offered = |buf: &Buf| reads_us && buf.len() > EAGER_BYTES_MAX;
        let mut pieces = payload.into_iter().filter(|buf| !buf.is_empty()).peekable();
        let first = pieces.next_if(|buf| !is_offered(buf));
        self.transmit(key, Message::Frame(header, body), first);
        for piece in pieces {
            match is_offered(&piece) {
                true => self.offer(key, piece),
                false => self.transmit(key, Message::Piece, Some(piece)),
            }
        }
    }

    /// Has the peer read a piece of a payload where it lies.
    fn offer(&mut self, key: u64, piece: Buf) {
        let (bytes, now) = (piece.len(), self.arrivals.now);
        let Some(conn) = self.arrivals.conn(key) else { return };
        conn.queued(bytes, now);
        let offer = self.offers.make(key, piece);
        self.transmit(key, Message::Offer(offer), None);
        self.watch_queue(key);
    }

    /// A connection has more under way: too much of it ends it, now or in a while.
    fn watch_queue(&mut self, key: u64) {
        let Some(conn) = self.arrivals.conn(key) else { return };
        let (queued, stalled) = (conn.queued_bytes, conn.stalled_since.is_some());
        if queued > SEND_QUEUE_BYTES_MAX {
            self.arrivals.broken(key, CloseReason::Stalled(queued));
        } else if stalled {
            let at = self.arrivals.now + self.timing.stalled_after;
            self.next_tick = self.next_tick.min(at);
        }
    }

    /// Answers the offers that were read, and lets go of those of ours that were.
    fn settle_offers(&mut self) {
        while let Some((key, token)) = self.arrivals.taken.pop() {
            self.transmit(key, Message::Taken(token), None);
        }
        while let Some((key, token)) = self.arrivals.returned.pop() {
            match (self.offers.taken(key, token), self.arrivals.conn(key)) {
                (Some(bytes), Some(conn)) => conn.unqueued(bytes),
                (Some(_), None) => {}
                (None, _) => {
                    let text = format!("token {token} was never offered");
                    self.arrivals.broken(key, CloseReason::Protocol(text));
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = self.arrivals.now;
        self.leaving.tick();
        let mut next = self.offers.tick(now);
        for place in 0..self.arrivals.places.len() {
            let Some(conn) = self.arrivals.places[place].as_deref() else { continue };
            let key = conn.key;
            match conn.due(&self.timing, now) {
                Due::At(at) => next = next.min(at),
                Due::Broken(reason) => self.arrivals.broken(key, reason),
                Due::Ping => {
                    self.transmit(key, Message::Ping, None);
                    next = next.min(now + TICK);
                }
            }
        }
        self.next_tick = if next == Time::NEVER { next } else { next.max(now + TICK) };
    }
}

impl Drop for UcxLane {
    fn drop(&mut self) {
        let open: Vec<ConnId> = self.arrivals.by_conn.keys().copied().collect();
        open.into_iter().for_each(|conn| self.close(conn));
        if self.leaving.is_empty() {
            // SAFETY: dropped here, once, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.worker) };
        } else {
            // UCX cannot be ended before its endpoints. The process is about to end, which does it.
            std::mem::take(&mut self.leaving).forget();
        }
    }
}

impl Lane for UcxLane {
    fn path(&self) -> Path {
        self.path
    }

    fn version(&self) -> LaneVersion {
        let (major, minor, _) = ogive_ucx::version();
        LaneVersion { major: major as u16, minor: minor as u16 }
    }

    fn address(&self) -> &[u8] {
        &self.address
    }

    fn open(&mut self, conn: ConnId) -> u64 {
        self.arrivals.open(conn)
    }

    fn attach(&mut self, conn: ConnId, address: &[u8], key: u64, now: Time) -> Result<(), String> {
        self.arrivals.now = self.arrivals.now.max(now);
        let (mark, ucx) = Mark::decode(address).ok_or("the address of the lane is too short")?;
        let &ours = self.arrivals.by_conn.get(&conn).ok_or("the connection is not open")?;
        let now = self.arrivals.now;
        let end = self.arrivals.conn(ours).ok_or("the connection is broken")?;
        assert!(end.remote.is_none(), "{conn:?} attached twice");
        self.leaving.check()?;
        let endpoint = self.worker.connect(ucx).map_err(|error| error.to_string())?;
        let id = endpoint.id();
        let memory = if self.path == Path::Shm { readable(&mark) } else { None };
        // Over RDMA UCX needs messages of its own to connect, and must not be disturbed meanwhile.
        let flush = match self.path {
            Path::Rdma => endpoint.flush(ours),
            _ => Ok(Progress::Now(())),
        };
        let settled = flush == Ok(Progress::Now(()));
        // From here on closing the connection takes care of the endpoint.
        end.remote = Some(Remote { endpoint, key, seq: 0, settled, memory });
        self.arrivals.by_endpoint.insert(id, ours);
        let begun = flush.map_err(|error| error.to_string())?;
        self.under_way += usize::from(begun == Progress::Later);
        self.stirred = now;
        let end = self.arrivals.conn(ours).ok_or("the connection is broken")?;
        (end.last_received, end.last_sent) = (now, now);
        self.next_tick = self.next_tick.min(now + TICK);
        if memory.is_some() {
            self.transmit(ours, Message::Open, None);
        }
        Ok(())
    }

    fn probe(&mut self, conn: ConnId, now: Time) {
        self.arrivals.now = self.arrivals.now.max(now);
        if let Some(&key) = self.arrivals.by_conn.get(&conn) {
            self.transmit(key, Message::Probe, None);
        }
    }

    fn send(&mut self, conn: ConnId, mut frame: Outgoing, now: Time) {
        self.arrivals.now = self.arrivals.now.max(now);
        if let Some(&key) = self.arrivals.by_conn.get(&conn) {
            self.transmit_frame(key, &mut frame);
        }
    }

    fn is_drained(&mut self, conn: ConnId) -> bool {
        let Some(&key) = self.arrivals.by_conn.get(&conn) else { return true };
        let Some(conn) = self.arrivals.conn(key) else { return true };
        let Some(remote) = &conn.remote else { return true };
        if conn.queued_bytes > 0 || !remote.settled {
            return false;
        }
        if conn.last_flush == LastFlush::NotBegun {
            // An endpoint that failed has nothing more to wait for.
            let later = remote.endpoint.flush(key) == Ok(Progress::Later);
            conn.last_flush = if later { LastFlush::UnderWay } else { LastFlush::Done };
            (self.under_way, self.stirred) =
                (self.under_way + usize::from(later), self.arrivals.now);
        }
        self.arrivals.conn(key).is_none_or(|conn| conn.last_flush == LastFlush::Done)
    }

    fn close(&mut self, conn: ConnId) {
        let Some((key, remote)) = self.arrivals.close(conn) else { return };
        if let Some(remote) = remote {
            self.leaving.leave(key, remote);
        }
        let until = self.arrivals.now + 2 * self.timing.silent_after;
        self.offers.closed(key, until);
        self.next_tick = self.next_tick.min(until);
    }

    fn poll(&mut self, now: Time, events: &mut Vec<LaneEvent>) -> bool {
        self.arrivals.now = self.arrivals.now.max(now);
        self.register();
        // One call takes a burst; another one would only delay what it brought.
        let mut progress = self.worker.progress(&mut self.arrivals);
        let waiting = self.arrivals.waiting;
        if waiting > 0 {
            self.arrivals.resume();
            // Data that still wait are no work: the owner may sleep until they are tried again.
            progress |= self.arrivals.waiting < waiting;
        }
        if progress {
            self.attend();
        }
        if self.arrivals.now >= self.next_tick {
            self.tick();
        }
        // An owner who learns that a peer lives need not spin for more. What came without our
        // hearing of it (UCX talking to itself) may lead to more.
        let pings = std::mem::take(&mut self.arrivals.pings);
        let worked = std::mem::take(&mut self.arrivals.worked);
        progress &= worked || pings == 0;
        progress |= !self.arrivals.events.is_empty();
        if events.is_empty() {
            std::mem::swap(events, &mut self.arrivals.events);
        } else {
            events.append(&mut self.arrivals.events);
        }
        progress
    }

    fn flush(&mut self, _now: Time) {
        // Nothing is held back: UCX has each message as soon as it is sent.
    }

    fn next_deadline(&self) -> Time {
        if !self.arrivals.events.is_empty() {
            return Time(0);
        }
        let now = self.arrivals.now;
        let retry = if self.arrivals.waiting > 0 { now + BUFFER_RETRY } else { Time::NEVER };
        // What has not ended for long is looked at less and less often: a peer may never answer.
        let nap = (now.since(self.stirred) / LANE_NAP_PART).clamp(LANE_NAP, LANE_NAP_MAX);
        let nap = if self.under_way > 0 { now + nap } else { Time::NEVER };
        self.next_tick.min(retry).min(nap)
    }

    fn prepare_sleep(&mut self) -> bool {
        match self.worker.arm() {
            Ok(armed) => armed,
            Err(error) => {
                tracing::warn!(path = %self.path, %error, "a lane cannot sleep, and is polled");
                false
            }
        }
    }

    fn wake_fd(&self) -> RawFd {
        self.worker.event_fd()
    }

    fn stats(&self) -> PathStats {
        self.arrivals.stats
    }
}
