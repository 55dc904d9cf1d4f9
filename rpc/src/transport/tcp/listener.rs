//! Listening sockets: binding them with errors that help, and accepting in bounded batches.

#![allow(clippy::disallowed_methods)] // the shell that opens sockets

use std::io;
use std::net::SocketAddr;

use ogive_types::Time;
use socket2::{Domain, Protocol, Socket, Type};

use super::config::TcpError;
use super::epoll::{Epoll, Interest};
use crate::limits::ACCEPT_RETRY;
use crate::transport::Endpoint;

/// Bit of an epoll token that tells listeners from connections.
const LISTENER_BIT: u64 = 1 << 63;
/// Connections that the kernel keeps for us; it cuts this to its own limit.
const BACKLOG: i32 = 1024;

pub(super) struct Listeners {
    all: Vec<Listener>,
}

struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    /// Not watched until then: the process was out of descriptors.
    rests_until: Option<Time>,
}

/// What `accept` found.
pub(super) enum Accepted {
    Socket(Socket, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// The process cannot take more; the listener rests.
    Exhausted(io::Error),
}

impl Listeners {
    /// Binds all of `endpoints` and has `epoll` watch them.
    pub(super) fn bind(endpoints: &[Endpoint], epoll: &Epoll) -> Result<Listeners, TcpError> {
        let mut all = Vec::with_capacity(endpoints.len());
        for (index, endpoint) in endpoints.iter().enumerate() {
            let addr = endpoint.tcp_addr()?;
            let socket = bind(addr).map_err(|e| explain(endpoint, e))?;
            let bound = socket.local_addr().map_err(TcpError::System)?;
            let bound = Endpoint::tcp(bound.as_socket().expect("an IP socket has an IP address"));
            epoll.add(&socket, token(index), Interest::READ).map_err(TcpError::System)?;
            all.push(Listener { socket, endpoint: bound, rests_until: None });
        }
        Ok(Listeners { all })
    }

    /// Where they listen, with the ports that the system chose.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.all.iter().map(|listener| listener.endpoint.clone()).collect()
    }

    /// Which listener an epoll token names, if any.
    pub(super) fn index_of(&self, token: u64) -> Option<usize> {
        (token & LISTENER_BIT != 0).then_some((token & !LISTENER_BIT) as usize)
    }

    /// The next connection that waits at a listener, non-blocking.
    pub(super) fn accept(&mut self, index: usize, epoll: &Epoll, now: Time) -> Accepted {
        let listener = &mut self.all[index];
        loop {
            let error = match listener.socket.accept() {
                Ok((socket, addr)) => match (socket.set_nonblocking(true), addr.as_socket()) {
                    (Ok(()), Some(addr)) => return Accepted::Socket(socket, addr),
                    _ => continue,
                },
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => return Accepted::Nobody,
                // The peer gave up, or the call was interrupted.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                _ => {
                    listener.rests_until = Some(now + ACCEPT_RETRY);
                    let _ = epoll.change(&listener.socket, token(index), Interest::NONE);
                    return Accepted::Exhausted(error);
                }
            }
        }
    }

    /// Wakes listeners that have rested; when the next one is to be woken.
    pub(super) fn tick(&mut self, epoll: &Epoll, now: Time) -> Time {
        let mut next = Time::NEVER;
        for (index, listener) in self.all.iter_mut().enumerate() {
            match listener.rests_until {
                Some(until) if until <= now => {
                    listener.rests_until = None;
                    let _ = epoll.change(&listener.socket, token(index), Interest::READ);
                }
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        next
    }
}

fn token(index: usize) -> u64 {
    LISTENER_BIT | index as u64
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted process gets its port although old connections have not timed out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Starts to connect a non-blocking socket.
pub(super) fn connect(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket),
    }
}

fn explain(endpoint: &Endpoint, error: io::Error) -> TcpError {
    let endpoint = endpoint.clone();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => TcpError::PortTaken(endpoint),
        Some(libc::EACCES) => TcpError::PortPrivileged(endpoint),
        Some(libc::EADDRNOTAVAIL) => TcpError::AddressForeign(endpoint),
        Some(libc::EMFILE | libc::ENFILE) => TcpError::TooManyFiles,
        _ => TcpError::Listen { endpoint, source: error },
    }
}
