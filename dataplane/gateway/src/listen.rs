//! Listening sockets.

// A shell: it owns sockets.
#![allow(clippy::disallowed_methods)]

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::limits::BACKLOG;
use crate::socket::Socket;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdListen {
    /// A unix socket at this path. A left-over socket of a dead server is replaced.
    Unix(PathBuf),
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another server has the address.
    #[error("{0} is in use by another server; stop it, or choose another address")]
    InUse(NbdListen),
    /// The path is taken by something that is not a socket.
    #[error("{0:?} exists and is not a socket; remove it, or choose another path")]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {listen}: {error}")]
    System {
        /// The address.
        listen: NbdListen,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for NbdListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NbdListen::Unix(path) => write!(f, "unix:{}", path.display()),
            NbdListen::Tcp(addr) => write!(f, "tcp:{addr}"),
        }
    }
}

/// A non-blocking listening socket.
pub(crate) enum Listener {
    /// With the path and the inode that it made, to be removed at the end.
    Unix(UnixListener, PathBuf, u64),
    Tcp(TcpListener),
}

impl Listener {
    pub(crate) fn open(listen: &NbdListen) -> Result<Listener, ListenError> {
        let system = |error| ListenError::System { listen: listen.clone(), error };
        match listen {
            NbdListen::Unix(path) => {
                clear_path(listen, path)?;
                let socket = UnixListener::bind(path).map_err(system)?;
                let inode = std::fs::symlink_metadata(path).map_err(system)?.ino();
                socket.set_nonblocking(true).map_err(system)?;
                Ok(Listener::Unix(socket, path.clone(), inode))
            }
            NbdListen::Tcp(addr) => {
                open_tcp(*addr).map(Listener::Tcp).map_err(|e| match e.kind() {
                    ErrorKind::AddrInUse => ListenError::InUse(listen.clone()),
                    _ => system(e),
                })
            }
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Unix(l, ..) => l.accept().map(|(s, _)| Socket::Unix(s)),
            Listener::Tcp(l) => l.accept().map(|(s, _)| Socket::Tcp(s)),
        }
    }

    /// Where it listens, with the port that was taken.
    pub(crate) fn local(&self) -> io::Result<NbdListen> {
        match self {
            Listener::Unix(_, path, _) => Ok(NbdListen::Unix(path.clone())),
            Listener::Tcp(l) => l.local_addr().map(NbdListen::Tcp),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path, inode) = self
            && std::fs::symlink_metadata(&*path).is_ok_and(|m| m.ino() == *inode)
        {
            let _ = std::fs::remove_file(path); // left over at worst, and then replaced
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(l, ..) => l.as_fd(),
            Listener::Tcp(l) => l.as_fd(),
        }
    }
}

fn open_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes a socket that nobody listens on.
fn clear_path(listen: &NbdListen, path: &PathBuf) -> Result<(), ListenError> {
    let system = |error| ListenError::System { listen: listen.clone(), error };
    let kind = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(system)?.file_type(),
    };
    if !kind.is_socket() {
        return Err(ListenError::NotASocket(path.clone()));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a dead server");
            std::fs::remove_file(path).map_err(system)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(system(e)),
        Ok(_) => Err(ListenError::InUse(listen.clone())),
    }
}
