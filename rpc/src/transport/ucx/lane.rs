//! The connections of one owner over one UCX worker.

use std::os::fd::RawFd;

use ogive_buf::Buf;
use ogive_types::Time;
use ogive_ucx::{Completion, Context, Done, Mode, Progress, UcxError, Worker};

use super::arrivals::{Arrivals, Pull, reason};
use super::conn::{Due, Remote};
use super::inbox::FrameNo;
use super::open;
use super::slab::Slab;
use super::wire::{LANE_HEAD_BYTES, LaneHead, Message};
use crate::frame::{HEADER_BYTES, Header};
use crate::limits::{
    AM_HEADER_BYTES_MAX, BUFFER_RETRY, EAGER_BYTES_MAX, LANE_ADDRESS_BYTES_MAX, LANE_NAP,
    PROGRESS_PER_POLL, SEND_QUEUE_BYTES_MAX, SPARE_HEADERS_MAX, TICK,
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
    /// Header buffers for reuse.
    spare: Vec<Vec<u8>>,
    worker: Worker,
    address: Vec<u8>,
    timing: Timing,
    /// Bytes of a body that a message's header has room for.
    body_room: usize,
    /// Operations that UCX has not ended.
    under_way: usize,
    /// No time-out lies before this.
    next_tick: Time,
}

impl UcxLane {
    /// Starts UCX for a path; the error says what it lacks.
    pub(super) fn new(path: Path, config: &LaneConfig) -> Result<UcxLane, String> {
        let endpoints = config.connections_max;
        let start = || -> Result<(Context, Worker, Vec<u8>), UcxError> {
            let context = Context::new(&open::config(path), endpoints)?;
            let worker = Worker::new(&context)?;
            worker.receive_messages(AM_ID)?;
            let address = worker.address()?;
            Ok((context, worker, address))
        };
        let (_, worker, address) =
            start().map_err(|error| format!("UCX does not start: {error}"))?;
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
        let arrivals = Arrivals::new(config.pool.clone());
        let timing = config.timing;
        let next_tick = Time::NEVER;
        let receives = Slab::default();
        let spare = Vec::new();
        Ok(UcxLane {
            path,
            arrivals,
            receives,
            arenas: 0,
            spare,
            worker,
            address,
            timing,
            body_room,
            under_way: 0,
            next_tick,
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
                self.under_way += 1;
                let (queued, stalled) = (conn.queued_bytes, conn.stalled_since.is_some());
                if queued > SEND_QUEUE_BYTES_MAX {
                    self.arrivals.broken(key, CloseReason::Stalled(queued));
                } else if stalled {
                    self.next_tick = self.next_tick.min(now + self.timing.stalled_after);
                }
            }
            Err(error) => return self.arrivals.broken(key, reason(&error)),
        }
        self.arrivals.stats.bytes_sent += bytes as u64;
    }

    /// Begins the rendezvous that have a place now, and notes the operations that ended.
    fn attend(&mut self) {
        while let Some(Pull { key, at, pending, into }) = self.arrivals.pulls.pop() {
            let token = self.receives.insert((key, at, into.len()));
            match self.worker.receive(pending, into, token) {
                Ok(Progress::Now(into)) => {
                    drop(into);
                    self.received(token, Ok(()));
                }
                Ok(Progress::Later) => self.under_way += 1,
                Err(error) => self.received(token, Err(error)),
            }
        }
        let mut ended = std::mem::take(&mut self.arrivals.ended);
        for done in ended.drain(..) {
            self.under_way -= 1;
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
                Done::Put { .. } | Done::Got { .. } | Done::Flushed => {
                    unreachable!("a lane only sends and receives")
                }
            }
        }
        self.arrivals.ended = ended;
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
    fn transmit_frame(&mut self, key: u64, frame: Outgoing) {
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
        let mut pieces = frame.payload.into_iter().filter(|buf| !buf.is_empty());
        self.transmit(key, Message::Frame(header, body), pieces.next());
        for piece in pieces {
            self.transmit(key, Message::Piece, Some(piece));
        }
        self.arrivals.stats.frames_sent += 1;
    }

    fn tick(&mut self) {
        let now = self.arrivals.now;
        let mut next = Time::NEVER;
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
        let endpoint = self.worker.connect(address).map_err(|error| error.to_string())?;
        let Some(&ours) = self.arrivals.by_conn.get(&conn) else {
            return Err("the connection is not open".into());
        };
        self.arrivals.by_endpoint.insert(endpoint.id(), ours);
        let now = self.arrivals.now;
        let end = self.arrivals.conn(ours).ok_or("the connection is broken")?;
        assert!(end.remote.is_none(), "{conn:?} attached twice");
        end.remote = Some(Remote { endpoint, key, seq: 0 });
        (end.last_received, end.last_sent) = (now, now);
        self.next_tick = self.next_tick.min(now + TICK);
        Ok(())
    }

    fn probe(&mut self, conn: ConnId, now: Time) {
        self.arrivals.now = self.arrivals.now.max(now);
        if let Some(&key) = self.arrivals.by_conn.get(&conn) {
            self.transmit(key, Message::Probe, None);
        }
    }

    fn send(&mut self, conn: ConnId, frame: Outgoing, now: Time) {
        self.arrivals.now = self.arrivals.now.max(now);
        if let Some(&key) = self.arrivals.by_conn.get(&conn) {
            self.transmit_frame(key, frame);
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.arrivals.close(conn);
    }

    fn poll(&mut self, now: Time, events: &mut Vec<LaneEvent>) -> bool {
        self.arrivals.now = self.arrivals.now.max(now);
        self.register();
        let mut progress = false;
        for _ in 0..PROGRESS_PER_POLL {
            if !self.worker.progress(&mut self.arrivals) {
                break;
            }
            progress = true;
            self.attend();
        }
        if self.arrivals.waiting > 0 {
            self.arrivals.resume();
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
        events.append(&mut self.arrivals.events);
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
        let nap = if self.under_way > 0 { now + LANE_NAP } else { Time::NEVER };
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
