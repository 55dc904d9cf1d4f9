//! The connections of one owner.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use ogive_types::Time;
use socket2::{Socket, TcpKeepalive};

use super::config::{TcpConfig, TcpError};
use super::conn::{Conn, ConnState, Reading};
use super::epoll::{Epoll, Interest, Ready};
use super::greet::Frames;
use super::hot::Hot;
use super::linger::Lingering;
use super::listener::{self, Accepted, Listeners};
use super::paths::Paths;
use super::report::Report;
use super::stats::TcpStats;
use super::table::Table;
use super::tick::{Due, due};
use crate::frame::{HEADER_BYTES, KIND_HELLO, KIND_PATH, KIND_PING, KIND_UPPER_MIN};
use crate::hello::Hello;
use crate::limits::{
    ACCEPTS_PER_POLL, BUFFER_RETRY, REST_PROBE_AFTER, SCRATCH_BYTES, SEND_EAGER_BYTES,
    SEND_QUEUE_BYTES_MAX, SEND_QUEUE_BYTES_SOFT, TICK,
};
use crate::offer::Offer;
use crate::transport::{CloseReason, ConnId, Endpoint, Event, Outgoing, Transport};

/// TCP connections, in both directions, of one thread.
///
/// Inbound connections are reported from `Connected` on: one that never gets that far is logged and
/// not reported.
pub struct TcpTransport {
    config: TcpConfig,
    paths: Paths,
    epoll: Epoll,
    listeners: Listeners,
    table: Table,
    hot: Hot,
    /// Bytes land here when no payload's buffer is open for them.
    scratch: Box<[u8]>,
    /// Connections with something new to send.
    dirty: Vec<ConnId>,
    /// Connections that wait for a buffer, the longest wait first.
    paused: VecDeque<ConnId>,
    /// Inbound connections that have not said HELLO, oldest first, among others that have.
    greeting: VecDeque<ConnId>,
    ungreeted: usize,
    /// Ends that the next poll reports.
    closed: Vec<(ConnId, CloseReason)>,
    lingering: Lingering,
    /// No time-out lies before this.
    next_tick: Time,
    /// The latest `now` that was given.
    now: Time,
    ids: Vec<ConnId>,
    stats: TcpStats,
    report: Report,
}

impl TcpTransport {
    /// Binds the listeners of `config`. The errors say what to do.
    pub fn new(config: TcpConfig) -> Result<TcpTransport, TcpError> {
        let epoll = Epoll::new().map_err(TcpError::System)?;
        let listeners = Listeners::bind(&config.listen, &epoll)?;
        Ok(TcpTransport {
            config,
            paths: Paths::default(),
            epoll,
            listeners,
            table: Table::default(),
            hot: Hot::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            dirty: Vec::new(),
            paused: VecDeque::new(),
            greeting: VecDeque::new(),
            ungreeted: 0,
            closed: Vec::new(),
            lingering: Lingering::default(),
            next_tick: Time::NEVER,
            now: Time(0),
            ids: Vec::new(),
            stats: TcpStats::default(),
            report: Report::default(),
        })
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose.
    pub fn local_endpoints(&self) -> Vec<Endpoint> {
        self.listeners.endpoints()
    }

    /// Replaces what we say of ourselves, for HELLOs sent from now on.
    pub fn set_hello(&mut self, hello: Hello) {
        self.config.hello = hello;
    }

    /// Counters.
    pub fn stats(&self) -> TcpStats {
        self.stats
    }

    /// Connections now, in all states and both directions.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Bytes queued on a connection that the kernel has not taken; 0 when it is closed.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        self.table.get(conn).map_or(0, |conn| conn.queue.bytes())
    }

    /// The address of the other end.
    pub fn peer_addr(&self, conn: ConnId) -> Option<SocketAddr> {
        self.table.get(conn).map(|conn| conn.peer)
    }

    /// Offers paths beside TCP in HELLOs sent from now on; PATH frames of peers that offer some too
    /// are then reported as `Received`.
    pub(in crate::transport) fn set_paths(&mut self, paths: Paths) {
        self.paths = paths;
    }

    /// What the peer offers beside TCP.
    pub(in crate::transport) fn offers(&self, conn: ConnId) -> &[Offer] {
        self.table.get(conn).map_or(&[], |conn| &conn.offers)
    }

    /// Queues a PATH frame.
    pub(in crate::transport) fn send_path(&mut self, id: ConnId, body: Vec<u8>) {
        if let Some(conn) = self.table.get_mut(id).filter(|conn| !conn.broken) {
            assert_eq!(conn.state, ConnState::Up, "PATH comes after HELLO");
            conn.queue.push_control(KIND_PATH, body);
            self.mark_dirty(id);
        }
    }

    /// Another path carries the connection from now on and keeps it alive: no PING is sent here,
    /// and silence means nothing. The kernel sends a probe from time to time, which no peer's
    /// process wakes for: firewalls on the way forget connections on which nothing travels.
    pub(in crate::transport) fn rest(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.resting = true;
        let probes = TcpKeepalive::new().with_time(REST_PROBE_AFTER);
        if let Err(error) = conn.socket.set_tcp_keepalive(&probes) {
            tracing::debug!(%error, "no probes of the kernel's on a connection that rests");
        }
    }

    /// Closes a connection for `reason`, and tells the peer that it was for `told`.
    pub(in crate::transport) fn close_telling(
        &mut self,
        id: ConnId,
        told: CloseReason,
        reason: CloseReason,
    ) {
        self.end(id, &told, reason);
    }

    /// Asks epoll, and serves what is ready.
    fn look(&mut self, events: &mut Vec<Event>) -> bool {
        let mut progress = false;
        for i in 0..self.epoll.look() {
            let ready = self.epoll.ready(i);
            match self.listeners.index_of(ready.token) {
                Some(index) => {
                    self.accept(index);
                    progress = true;
                }
                None => progress |= self.serve(ready, events),
            }
        }
        progress
    }

    /// True when something else than PING happened.
    fn serve(&mut self, ready: Ready, events: &mut Vec<Event>) -> bool {
        let id = ConnId(ready.token);
        let Some(conn) = self.table.get_mut(id) else { return false };
        if conn.state == ConnState::Connecting {
            self.connected(id);
            return true;
        }
        if ready.dead && conn.paused {
            self.finish(id, CloseReason::Peer);
            return true;
        }
        let write = ready.write && conn.blocked;
        if write {
            self.write(id);
        }
        ready.read && self.read(id, events) || write
    }

    /// True when bytes arrived, other than those of PING alone: an owner who learns that a peer
    /// lives need not spin for more.
    fn read(&mut self, id: ConnId, events: &mut Vec<Event>) -> bool {
        let pings = self.stats.pings_received;
        let result = self.with_frames(id, events, |conn, cx, frames| {
            conn.read(cx, &mut |conn, frame| frames.take(conn, frame))
        });
        match result {
            Some(Ok(0)) | None => false,
            Some(Ok(n)) => {
                self.hot.arrived(id);
                self.after_read(id);
                let pings = self.stats.pings_received - pings;
                n as u64 != pings * HEADER_BYTES as u64
            }
            Some(Err(reason)) => {
                self.finish(id, reason);
                true
            }
        }
    }

    /// Connections that waited for a buffer go on, the longest wait first; one that cannot stops
    /// those behind it, so that a large payload is not overtaken for ever by small ones.
    fn resume(&mut self, events: &mut Vec<Event>) -> bool {
        let mut progress = false;
        while let Some(&id) = self.paused.front() {
            let result = self.with_frames(id, events, |conn, cx, frames| {
                conn.resume(cx, &mut |conn, frame| frames.take(conn, frame))
            });
            match result {
                Some(Ok(false)) => break,
                Some(Ok(true)) => self.after_read(id),
                Some(Err(reason)) => self.finish(id, reason),
                None => {}
            }
            self.paused.pop_front();
            progress = true;
        }
        progress
    }

    fn with_frames<R>(
        &mut self,
        id: ConnId,
        events: &mut Vec<Event>,
        body: impl FnOnce(&mut Conn, &mut Reading<'_>, &mut Frames<'_>) -> R,
    ) -> Option<R> {
        let conn = self.table.get_mut(id)?;
        let config = &self.config;
        let (paths, dirty) = (&self.paths, &mut self.dirty);
        let mut frames = Frames { config, paths, events, dirty, established: false };
        let mut cx = Reading {
            scratch: &mut self.scratch,
            pool: &config.pool,
            stats: &mut self.stats,
            others_wait: self.paused.front().is_some_and(|&first| first != id),
            now: self.now,
        };
        let result = body(conn, &mut cx, &mut frames);
        if frames.established {
            self.stats.established += 1;
            self.ungreeted -= usize::from(conn.inbound);
        }
        Some(result)
    }

    /// Notes what reading changed: whether the connection waits for a buffer.
    fn after_read(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        if conn.paused {
            self.paused.push_back(id);
        }
        self.watch(id);
    }

    /// Has epoll watch what the connection now waits for.
    fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        let wanted = conn.wanted();
        if wanted == conn.interest {
            return;
        }
        conn.interest = wanted;
        if let Err(error) = self.epoll.change(&conn.socket, id.0, wanted) {
            self.finish(id, CloseReason::System(error.to_string()));
        }
    }

    fn write(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        match conn.write(&mut self.scratch, &mut self.stats, self.now) {
            Ok(()) => {
                if conn.queue.bytes() <= SEND_QUEUE_BYTES_SOFT {
                    conn.stalled_since = None;
                }
                self.watch(id);
            }
            Err(reason) => self.finish(id, reason),
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS_PER_POLL {
            match self.listeners.accept(index, &self.epoll, self.now) {
                Accepted::Socket(socket, peer) => self.admit(socket, peer),
                Accepted::Nobody => return,
                Accepted::Exhausted(error) => {
                    self.report.exhausted(&error, self.now);
                    self.next_tick = self.next_tick.min(self.now + TICK);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: Socket, peer: SocketAddr) {
        self.stats.accepted += 1;
        if self.table.len() + self.lingering.len() >= self.config.connections_max {
            let max = self.config.connections_max;
            let reason = CloseReason::Refused(format!("{max} connections, no more are allowed"));
            let conn = Conn::new(ConnId(0), socket, peer, true, self.now);
            return self.part(Box::new(conn), &reason, &reason);
        }
        while self.ungreeted >= self.config.ungreeted_max.max(1) {
            let oldest = self.greeting.pop_front().expect("all that are ungreeted are listed");
            if self.table.get(oldest).is_some_and(|conn| conn.state == ConnState::Greeting) {
                let text = "too many connections without HELLO, this was the oldest";
                self.finish(oldest, CloseReason::Refused(text.into()));
            }
        }
        let id = self.table.reserve();
        if socket.set_tcp_nodelay(true).is_err()
            || self.epoll.add(&socket, id.0, Interest::READ).is_err()
        {
            return self.table.abandon(id);
        }
        self.table.insert(id, Box::new(Conn::new(id, socket, peer, true, self.now)));
        self.ungreeted += 1;
        self.greeting.push_back(id);
        self.schedule(self.now + self.config.timing.hello_within);
    }

    /// Starts a connection, or says why not.
    fn start(&mut self, id: ConnId, to: &Endpoint) -> Result<(), String> {
        let addr = to.tcp_addr().map_err(|e| e.to_string())?;
        if self.table.len() >= self.config.connections_max {
            return Err(format!("{} connections, no more are allowed", self.table.len()));
        }
        let socket = listener::connect(addr).map_err(|e| format!("{to}: {e}"))?;
        self.epoll.add(&socket, id.0, Interest::WRITE).map_err(|e| e.to_string())?;
        self.table.insert(id, Box::new(Conn::new(id, socket, addr, false, self.now)));
        self.schedule(self.now + self.config.timing.connect_within);
        Ok(())
    }

    /// The system has finished connecting, well or badly.
    fn connected(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        let error = match conn.socket.take_error() {
            Ok(None) => None,
            Ok(Some(error)) | Err(error) => Some(format!("{}: {error}", conn.peer)),
        };
        // A connect to a free port of this machine can meet itself (simultaneous open).
        let local = conn.socket.local_addr().ok().and_then(|addr| addr.as_socket());
        let error = error.or_else(|| {
            (local == Some(conn.peer)).then(|| format!("{}: nobody listens there", conn.peer))
        });
        if let Some(error) = error {
            return self.finish(id, CloseReason::Connect(error));
        }
        conn.state = ConnState::Greeting;
        conn.queue.push_control(KIND_HELLO, self.paths.greet(&self.config.hello));
        self.write(id);
    }

    /// Takes a connection out: tells the peer, the log, and (from the next poll) the owner.
    fn finish(&mut self, id: ConnId, reason: CloseReason) {
        self.end(id, &reason.clone(), reason);
    }

    fn end(&mut self, id: ConnId, told: &CloseReason, reason: CloseReason) {
        let Some(conn) = self.table.remove(id) else { return };
        let ungreeted = conn.inbound && conn.state == ConnState::Greeting;
        self.ungreeted -= usize::from(ungreeted);
        self.hot.closed(id);
        let _ = self.epoll.remove(&conn.socket);
        self.part(conn, told, &reason);
        if !ungreeted {
            self.closed.push((id, reason));
        }
    }

    fn part(&mut self, conn: Box<Conn>, told: &CloseReason, reason: &CloseReason) {
        self.report.closed(conn.peer, conn.inbound, reason, self.now);
        if matches!(reason, CloseReason::Protocol(_) | CloseReason::Refused(_)) {
            self.stats.refused += 1;
        }
        self.lingering.part(conn, told, &mut self.scratch, &mut self.stats, self.now);
        self.schedule(self.now + TICK);
    }

    fn schedule(&mut self, at: Time) {
        self.next_tick = self.next_tick.min(at);
    }

    /// Looks for time-outs on all connections.
    fn tick(&mut self, events: &mut Vec<Event>) {
        let now = self.now;
        let mut next = self.listeners.tick(&self.epoll, now);
        let mut ids = std::mem::take(&mut self.ids);
        self.table.ids(&mut ids);
        for id in ids.drain(..) {
            next = next.min(self.tick_conn(id, events));
        }
        self.ids = ids;
        self.lingering.tick(&mut self.scratch, &mut self.stats, now);
        if self.lingering.len() > 0 {
            next = now;
        }
        while self.greeting.front().is_some_and(|&id| !self.is_greeting(id)) {
            self.greeting.pop_front();
        }
        self.next_tick = if next == Time::NEVER { next } else { next.max(now + TICK) };
    }

    fn is_greeting(&self, id: ConnId) -> bool {
        self.table.get(id).is_some_and(|conn| conn.state == ConnState::Greeting)
    }

    /// Does what is due on a connection; when something is next.
    fn tick_conn(&mut self, id: ConnId, events: &mut Vec<Event>) -> Time {
        let Some(conn) = self.table.get_mut(id) else { return Time::NEVER };
        let mut what = due(&conn.clocks(), &self.config.timing, self.now);
        if matches!(what, Due::Close(_)) && conn.state != ConnState::Connecting && !conn.paused {
            // Perhaps it is we who slept, and its bytes are here: look before judging.
            self.read(id, events);
            let Some(conn) = self.table.get(id) else { return Time::NEVER };
            what = due(&conn.clocks(), &self.config.timing, self.now);
        }
        match what {
            Due::At(next) => return next,
            Due::Close(reason) => self.finish(id, reason),
            Due::Ping => self.ping(id),
        }
        self.now + TICK
    }

    fn ping(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.queue.push_control(KIND_PING, Vec::new());
        conn.last_sent = self.now;
        self.write(id);
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id).filter(|conn| !conn.dirty) {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(conn) = self.table.get_mut(id) else { continue };
            conn.dirty = false;
            if !conn.blocked {
                self.write(id);
            }
        }
        self.dirty = dirty;
    }
}

impl Transport for TcpTransport {
    fn connect(&mut self, to: &Endpoint, now: Time) -> ConnId {
        self.now = self.now.max(now);
        let id = self.table.reserve();
        if let Err(why) = self.start(id, to) {
            self.table.abandon(id);
            self.closed.push((id, CloseReason::Connect(why)));
        }
        id
    }

    fn send(&mut self, conn: ConnId, frame: Outgoing, now: Time) {
        assert!(frame.kind >= KIND_UPPER_MIN, "kind {} is the transport's", frame.kind);
        self.now = self.now.max(now);
        let id = conn;
        let Some(conn) = self.table.get_mut(id) else { return };
        if conn.state != ConnState::Up || conn.broken {
            return;
        }
        conn.queue.push(frame);
        let (bytes, blocked) = (conn.queue.bytes(), conn.blocked);
        if bytes > SEND_QUEUE_BYTES_MAX {
            return self.finish(id, CloseReason::Stalled(bytes));
        }
        if bytes > SEND_QUEUE_BYTES_SOFT && conn.stalled_since.is_none() {
            conn.stalled_since = Some(self.now);
            self.schedule(self.now + self.config.timing.stalled_after);
        }
        if bytes > SEND_EAGER_BYTES && !blocked {
            self.write(id);
        } else {
            self.mark_dirty(id);
        }
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.finish(conn, reason);
    }

    fn poll(&mut self, now: Time, events: &mut Vec<Event>) -> bool {
        self.now = self.now.max(now);
        let before = events.len();
        let mut progress = !self.paused.is_empty() && self.resume(events);
        progress |= match self.hot.guess() {
            Some(conn) => self.read(conn, events),
            None => self.look(events),
        };
        if self.now >= self.next_tick {
            self.tick(events);
        }
        // HELLOs, and whatever else waits.
        self.flush_dirty();
        events.extend(self.closed.drain(..).map(|(conn, reason)| Event::Closed { conn, reason }));
        progress || events.len() > before
    }

    fn flush(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.flush_dirty();
    }

    fn next_deadline(&self) -> Time {
        if !self.closed.is_empty() {
            return Time(0);
        }
        let retry = if self.paused.is_empty() { Time::NEVER } else { self.now + BUFFER_RETRY };
        self.next_tick.min(retry)
    }

    fn wake_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
