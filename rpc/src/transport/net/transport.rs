//! The connections of one owner, over all paths.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use ogive_types::Time;

use super::config::{NetConfig, NetError};
use super::lanes::{Missing, lanes};
use crate::hello::Hello;
use crate::transport::lane::Lane;
use crate::transport::tcp::{TcpStats, TcpTransport};
use crate::transport::{
    CloseReason, ConnId, Endpoint, Event, Outgoing, Path, PathChoice, PathStats, Transport,
};

/// Connections over all paths, in both directions, of one thread.
pub struct NetTransport {
    tcp: TcpTransport,
}

/// Counters of all paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// The TCP transport, over which every connection begins.
    pub tcp: TcpStats,
    /// The lanes that were started, best first.
    pub lanes: Vec<(Path, PathStats)>,
}

impl NetTransport {
    /// Starts all paths that the configuration allows. The errors say what to do.
    pub fn new(config: NetConfig) -> Result<NetTransport, NetError> {
        let lanes = lanes(config.choice, &config.tcp);
        NetTransport::with_lanes(config, lanes)
    }

    /// Like `new`, with lanes that the caller made.
    pub fn with_lanes(
        config: NetConfig,
        lanes: Vec<Result<Box<dyn Lane>, Missing>>,
    ) -> Result<NetTransport, NetError> {
        if let PathChoice::Only(path) = config.choice
            && path != Path::Tcp
            && let Some(Err(missing)) = lanes.into_iter().next()
        {
            return Err(NetError::Forced { path, why: missing.why });
        }
        Ok(NetTransport { tcp: TcpTransport::new(config.tcp)? })
    }

    /// Where it listens and what it offers there, with the ports that the system chose.
    pub fn local_endpoints(&self) -> Vec<Endpoint> {
        self.tcp.local_endpoints()
    }

    /// Replaces what we say of ourselves, for HELLOs sent from now on.
    pub fn set_hello(&mut self, hello: Hello) {
        self.tcp.set_hello(hello);
    }

    /// Counters.
    pub fn stats(&self) -> NetStats {
        NetStats { tcp: self.tcp.stats(), lanes: Vec::new() }
    }

    /// Connections now, in all states and both directions.
    pub fn connections(&self) -> usize {
        self.tcp.connections()
    }

    /// The address of the other end.
    pub fn peer_addr(&self, conn: ConnId) -> Option<SocketAddr> {
        self.tcp.peer_addr(conn)
    }

    /// The path that a connection goes; `None` before `Connected` was reported.
    pub fn path(&self, conn: ConnId) -> Option<Path> {
        self.tcp.peer_addr(conn).map(|_| Path::Tcp)
    }
}

impl Transport for NetTransport {
    fn connect(&mut self, to: &Endpoint, now: Time) -> ConnId {
        self.tcp.connect(to, now)
    }

    fn send(&mut self, conn: ConnId, frame: Outgoing, now: Time) {
        self.tcp.send(conn, frame, now);
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.tcp.close(conn, reason);
    }

    fn poll(&mut self, now: Time, events: &mut Vec<Event>) -> bool {
        self.tcp.poll(now, events)
    }

    fn flush(&mut self, now: Time) {
        self.tcp.flush(now);
    }

    fn next_deadline(&self) -> Time {
        self.tcp.next_deadline()
    }

    fn wake_fd(&self) -> RawFd {
        self.tcp.wake_fd()
    }
}
