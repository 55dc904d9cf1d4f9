//! The NBD server: listeners and connections under one epoll descriptor, polled by their owner's
//! loop.

// A shell: it owns sockets.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use ogive_buf::Pool;
use ogive_client::{VolumeError, VolumeOutput};
use ogive_types::Time;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;

use crate::conn::{Conn, End};
use crate::limits::{CONNECTIONS_MAX, STARVED_RETRY};
use crate::listen::{ListenError, Listener, NbdListen};
use crate::nbd::{Export, ExportId, ExportRequest, Exports};

/// Events of one system call.
const EVENTS_MAX: usize = 64;
/// Event data at and above this are listeners.
const LISTENER_BASE: u64 = 1 << 63;

/// A connection of one server; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey(pub(crate) u64);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct NbdConfig {
    /// Where to listen.
    pub listen: Vec<NbdListen>,
    /// What to serve; [`ExportId`]s are places in this list.
    pub exports: Vec<Export>,
}

/// The server. Each turn of the loop: `poll`, carry out the requests, `complete` those that are
/// done, `flush`.
pub struct NbdServer {
    epoll: OwnedFd,
    listeners: Vec<Listener>,
    exports: Exports,
    pool: Pool,
    /// In the order of their keys.
    conns: Vec<(ConnKey, Conn)>,
    next_key: u64,
    /// What completions asked for, until the next poll.
    wanted: Vec<(ConnKey, ExportRequest)>,
    scratch: Vec<ExportRequest>,
    /// A poll is due whatever the descriptor says.
    again: bool,
    now: Time,
}

impl NbdServer {
    /// Starts listening.
    pub fn new(config: NbdConfig, pool: Pool) -> Result<NbdServer, ListenError> {
        let first = config.listen.first().cloned();
        let system = |error: rustix::io::Errno| ListenError::System {
            listen: first.clone().unwrap_or(NbdListen::Unix("".into())),
            error: error.into(),
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(system)?;
        let mut listeners = Vec::new();
        for listen in &config.listen {
            let listener = Listener::open(listen)?;
            let data = EventData::new_u64(LISTENER_BASE + listeners.len() as u64);
            epoll::add(&epoll, listener.as_fd(), data, EventFlags::IN).map_err(system)?;
            listeners.push(listener);
        }
        Ok(NbdServer {
            epoll,
            listeners,
            exports: Exports::new(config.exports),
            pool,
            conns: Vec::new(),
            next_key: 0,
            wanted: Vec::new(),
            scratch: Vec::new(),
            again: false,
            now: Time(0),
        })
    }

    /// Where it listens, with the ports that were taken.
    pub fn listening(&self) -> io::Result<Vec<NbdListen>> {
        self.listeners.iter().map(Listener::local).collect()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// The export's size changed.
    pub fn resize(&mut self, export: ExportId, size_bytes: u64) {
        self.exports.resize(export, size_bytes);
    }

    /// Accepts and receives without blocking, and appends what clients ask for. True when anything
    /// came.
    pub fn poll(&mut self, now: Time, requests: &mut Vec<(ConnKey, ExportRequest)>) -> bool {
        self.now = now;
        let mut any = self.take_events(now) | !self.wanted.is_empty();
        requests.append(&mut self.wanted);
        self.again = false;
        let mut ended = Vec::new();
        for (key, conn) in &mut self.conns {
            match conn.receive(&self.exports, &mut self.scratch) {
                Ok(received) => {
                    any |= received;
                    self.again |= conn.has_more();
                }
                Err(end) => ended.push((*key, Some(end))),
            }
            requests.extend(self.scratch.drain(..).map(|request| (*key, request)));
            if now >= conn.handshake_until && !conn.session.is_established() {
                ended.push((*key, None));
            }
        }
        any |= !ended.is_empty();
        for (key, end) in ended {
            self.close(key, end);
        }
        any
    }

    /// Gives the result of a request. Those of connections that are gone are ignored.
    pub fn complete(
        &mut self,
        key: ConnKey,
        token: u64,
        result: Result<VolumeOutput, VolumeError>,
    ) {
        let Ok(at) = self.conns.binary_search_by_key(&key, |(key, _)| *key) else { return };
        self.conns[at].1.session.completed(token, result, &mut self.scratch);
        self.wanted.extend(self.scratch.drain(..).map(|request| (key, request)));
        // What was held back for this one to complete may go on.
        self.again = true;
    }

    /// Sends what there is to send, as far as the sockets take it.
    pub fn flush(&mut self) {
        let mut ended = Vec::new();
        for (key, conn) in &mut self.conns {
            if let Err(end) = conn.send() {
                ended.push((*key, Some(end)));
            }
        }
        for (key, end) in ended {
            self.close(key, end);
        }
    }

    /// A descriptor that is readable when something came.
    pub fn wake_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// When `poll` must be called even if the descriptor is quiet.
    pub fn next_deadline(&self) -> Time {
        if self.again || !self.wanted.is_empty() {
            return self.now;
        }
        let deadline = |(_, conn): &(ConnKey, Conn)| {
            let handshake = match conn.session.is_established() {
                true => Time::NEVER,
                false => conn.handshake_until,
            };
            let memory = if conn.starved { self.now + STARVED_RETRY } else { Time::NEVER };
            handshake.min(memory)
        };
        self.conns.iter().map(deadline).min().unwrap_or(Time::NEVER)
    }

    fn take_events(&mut self, now: Time) -> bool {
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        let ready: Vec<(u64, EventFlags)> = match epoll::wait(
            &self.epoll,
            &mut events,
            Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
        ) {
            Ok((ready, _)) => ready.iter().map(|e| (e.data.u64(), e.flags)).collect(),
            Err(rustix::io::Errno::INTR) => Vec::new(),
            Err(error) => panic!("epoll_wait on a valid descriptor: {error}"),
        };
        for &(data, flags) in &ready {
            if data >= LISTENER_BASE {
                self.accept((data - LISTENER_BASE) as usize, now);
            } else if let Ok(at) = self.conns.binary_search_by_key(&data, |(key, _)| key.0) {
                let hung_up =
                    flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                let (readable, writable) =
                    (flags.contains(EventFlags::IN), flags.contains(EventFlags::OUT));
                self.conns[at].1.on_ready(readable, writable, hung_up);
            }
        }
        !ready.is_empty()
    }

    fn accept(&mut self, listener: usize, now: Time) {
        loop {
            let socket = match self.listeners[listener].accept() {
                Ok(socket) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    return;
                }
            };
            if self.conns.len() >= CONNECTIONS_MAX {
                tracing::warn!(CONNECTIONS_MAX, "too many connections, one more is refused");
                continue;
            }
            let key = ConnKey(self.next_key);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let registered = socket.prepare().and_then(|()| {
                let data = EventData::new_u64(key.0);
                Ok(epoll::add(&self.epoll, socket.as_fd(), data, flags)?)
            });
            match registered {
                Err(error) => tracing::warn!(%error, "a connection could not be set up"),
                Ok(()) => {
                    self.next_key += 1;
                    self.conns.push((key, Conn::new(socket, self.pool.clone(), now)));
                }
            }
        }
    }

    fn close(&mut self, key: ConnKey, end: Option<End>) {
        let Ok(at) = self.conns.binary_search_by_key(&key, |(key, _)| *key) else { return };
        match end {
            Some(End::Session(reason)) => tracing::debug!(?key, %reason, "closed"),
            Some(End::HungUp) => tracing::debug!(?key, "the client closed its end"),
            Some(End::Failed(error)) => tracing::info!(?key, %error, "connection failed"),
            None => tracing::info!(?key, "closed: no export chosen in time"),
        }
        // Closing the descriptor takes it out of the epoll set.
        self.conns.remove(at);
    }
}
