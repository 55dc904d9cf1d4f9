//! A connection in the transmission phase: pipelined requests, simple replies, never blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::nbd::wire::{self, Command, REPLY_BYTES, SimpleReply};

/// Bytes read from the socket at once.
const RECEIVE_BYTES: usize = 256 << 10;
/// Sent bytes that may stay at the front of the outgoing buffer before it is compacted.
const COMPACT_BYTES: usize = 1 << 20;

/// A reply with what the connection was told to keep of its data.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    /// As in the request.
    pub(crate) cookie: u64,
    /// NBD's error number, 0 for success.
    pub(crate) error: u32,
    /// Data of a successful read; empty otherwise.
    pub(crate) data: &'a [u8],
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("closed by the server")]
    Closed,
    #[error("failed: {0}")]
    System(io::Error),
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
}

/// Who knows how many bytes of data follow a successful reply.
pub(crate) trait Expect {
    /// Bytes of data that follow the reply to `cookie`; `None` when nothing was asked under it.
    fn data_bytes(&self, cookie: u64) -> Option<usize>;
}

/// One connection.
pub(crate) struct Conn {
    fd: OwnedFd,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// Unread input: `input[begin..end]`.
    begin: usize,
    end: usize,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Conn {
        let input = vec![0; RECEIVE_BYTES];
        Conn { fd, out: Vec::new(), sent: 0, input, begin: 0, end: 0 }
    }

    /// Queues a request; `flush` sends it. `data` is empty but for writes.
    pub(crate) fn queue(
        &mut self,
        command: Command,
        cookie: u64,
        offset: u64,
        length: u32,
        data: &[u8],
    ) {
        assert!(command != Command::Write || data.len() == length as usize);
        self.out.extend_from_slice(&wire::request(command, cookie, offset, length));
        self.out.extend_from_slice(data);
    }

    /// True while queued bytes wait for room in the socket.
    pub(crate) fn wants_write(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Sends as much as the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), Lost> {
        while self.wants_write() {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            match rustix::net::send(&self.fd, &self.out[self.sent..], flags) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(lost(error)),
            }
        }
        if !self.wants_write() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > COMPACT_BYTES {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads what the socket has, at most one buffer, and hands each whole reply to `take`.
    /// True when anything was read.
    pub(crate) fn receive<E: Expect>(
        &mut self,
        state: &mut E,
        mut take: impl FnMut(&mut E, Reply<'_>),
    ) -> Result<bool, Lost> {
        let n = match rustix::net::recv(
            &self.fd,
            &mut self.input[self.end..],
            rustix::net::RecvFlags::empty(),
        ) {
            Ok((_, 0)) => return Err(Lost::Closed),
            Ok((_, n)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(lost(error)),
        };
        self.end += n;
        while let Some((reply, data_bytes)) = self.next_reply(state)? {
            let data_at = self.begin + REPLY_BYTES;
            let data = &self.input[data_at..data_at + data_bytes];
            take(state, Reply { cookie: reply.cookie, error: reply.error, data });
            self.begin = data_at + data_bytes;
        }
        self.make_room(state)?;
        Ok(true)
    }

    /// The header of the reply at `begin` and the length of its data, once all of it is here.
    fn next_reply<E: Expect>(&self, state: &E) -> Result<Option<(SimpleReply, usize)>, Lost> {
        let unread = &self.input[self.begin..self.end];
        let Some(header) = unread.first_chunk::<REPLY_BYTES>() else {
            return Ok(None);
        };
        let reply = wire::simple_reply(header).ok_or(Lost::Protocol("no simple reply"))?;
        let asked = state.data_bytes(reply.cookie);
        let asked = asked.ok_or(Lost::Protocol("a reply to no request"))?;
        let data_bytes = if reply.error == 0 { asked } else { 0 };
        Ok((unread.len() >= REPLY_BYTES + data_bytes).then_some((reply, data_bytes)))
    }

    /// Moves the unread part to the front, and grows the buffer for a reply larger than it.
    fn make_room<E: Expect>(&mut self, state: &E) -> Result<(), Lost> {
        self.input.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        if let Some(header) = self.input[..self.end].first_chunk::<REPLY_BYTES>() {
            let reply = wire::simple_reply(header).ok_or(Lost::Protocol("no simple reply"))?;
            let whole = REPLY_BYTES + state.data_bytes(reply.cookie).unwrap_or(0);
            if whole > self.input.len() {
                self.input.resize(whole, 0);
            }
        }
        assert!(self.end < self.input.len(), "room for the next read");
        Ok(())
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn lost(error: Errno) -> Lost {
    match error {
        Errno::CONNRESET | Errno::PIPE => Lost::Closed,
        other => Lost::System(other.into()),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The other end is a thread.
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    struct Reads(usize);
    impl Expect for Reads {
        fn data_bytes(&self, cookie: u64) -> Option<usize> {
            (cookie < 100).then_some(self.0)
        }
    }

    fn pair() -> (UnixStream, Conn) {
        let (server, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        (server, Conn::new(client.into()))
    }

    fn reply(cookie: u64, error: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = wire::REPLY_MAGIC.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn replies_in_any_pieces() {
        let (mut server, mut conn) = pair();
        let mut stream = reply(1, 0, &[7; 600]);
        stream.extend(reply(2, 5, &[]));
        stream.extend(reply(3, 0, &[9; 600]));
        let mut seen = Vec::new();
        for piece in stream.chunks(251) {
            server.write_all(piece).unwrap();
            let took = conn.receive(&mut Reads(600), |_, r| {
                seen.push((r.cookie, r.error, r.data.to_vec()));
            });
            assert!(took.unwrap());
        }
        let golden = [(1, 0, vec![7; 600]), (2, 5, vec![]), (3, 0, vec![9; 600])];
        assert_eq!(seen, golden);
        assert!(!conn.receive(&mut Reads(600), |_, _| ()).unwrap());
    }

    #[test]
    fn a_reply_larger_than_the_buffer() {
        let (mut server, mut conn) = pair();
        let big = RECEIVE_BYTES * 3;
        let bytes = reply(4, 0, &vec![3; big]);
        let writer = std::thread::spawn(move || server.write_all(&bytes).map(|()| server));
        let mut got = 0;
        while got == 0 {
            let _ = conn.receive(&mut Reads(big), |_, r| got = r.data.len());
        }
        assert_eq!(got, big);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn nonsense_ends_the_connection() {
        let (mut server, mut conn) = pair();
        server.write_all(&[0; 32]).unwrap();
        let result = conn.receive(&mut Reads(0), |_, _| ());
        assert!(matches!(result, Err(Lost::Protocol(_))));
        let (mut server, mut conn) = pair();
        server.write_all(&reply(100, 0, &[])).unwrap();
        let result = conn.receive(&mut Reads(0), |_, _| ());
        assert!(matches!(result, Err(Lost::Protocol(_))));
        drop(server);
        let (server, mut conn) = pair();
        drop(server);
        assert!(matches!(conn.receive(&mut Reads(0), |_, _| ()), Err(Lost::Closed)));
    }

    #[test]
    fn requests_wait_for_room_in_the_socket() {
        let (mut server, mut conn) = pair();
        let data = vec![5; 4 << 20];
        conn.queue(Command::Write, 1, 0, data.len() as u32, &data);
        conn.flush().unwrap();
        assert!(conn.wants_write());
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; wire::REQUEST_BYTES + (4 << 20)];
            server.read_exact(&mut all).map(|()| all)
        });
        while conn.wants_write() {
            conn.flush().unwrap();
        }
        assert_eq!(&reader.join().unwrap().unwrap()[wire::REQUEST_BYTES..], &data[..]);
    }
}
