//! A connected socket of either kind.

// A shell: it owns sockets.
#![allow(clippy::disallowed_methods)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A non-blocking stream.
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Makes it non-blocking; over TCP, sends small replies at once and finds dead clients.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        match self {
            Socket::Unix(s) => s.set_nonblocking(true),
            Socket::Tcp(s) => {
                s.set_nonblocking(true)?;
                s.set_nodelay(true)?;
                socket2::SockRef::from(s).set_keepalive(true)
            }
        }
    }

    pub(crate) fn read(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Socket::Unix(s) => s.read_vectored(bufs),
            Socket::Tcp(s) => s.read_vectored(bufs),
        }
    }

    pub(crate) fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Unix(s) => s.write_vectored(bufs),
            Socket::Tcp(s) => s.write_vectored(bufs),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(s) => s.as_fd(),
            Socket::Tcp(s) => s.as_fd(),
        }
    }
}
