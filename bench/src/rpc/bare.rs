//! The program that one writes at first: a socket without delay, non-blocking reads and writes in a
//! loop that never waits. It moves the same number of bytes as our frames have.
#![allow(clippy::disallowed_methods)] // opens sockets

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::drive::End;
use super::spec::Case;
use crate::limits::MAX_RPC_BYTES;

/// Least size of the buffer that is read into: several small messages at once.
const READ_BYTES: usize = 64 << 10;

/// Told when a connection is made: bytes of a request and of an answer.
type Sizes = [u8; 16];

/// The asking end: writes each message by itself, and reads answers as they come.
pub(super) struct Bare {
    socket: TcpStream,
    request: Vec<u8>,
    answer_bytes: usize,
    /// Bytes of started requests that the kernel has not taken.
    unsent: usize,
    input: Vec<u8>,
    have: usize,
    flight: VecDeque<u32>,
}

impl Bare {
    pub(super) fn connect(to: &str, case: Case) -> Result<Bare, String> {
        let (request_bytes, answer_bytes) = (case.request_bytes(), case.answer_bytes());
        let socket = (|| {
            let mut socket = TcpStream::connect(to)?;
            socket.set_nodelay(true)?;
            let sizes = [(request_bytes as u64).to_le_bytes(), (answer_bytes as u64).to_le_bytes()];
            socket.write_all(&sizes.concat())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })();
        Ok(Bare {
            socket: socket.map_err(|e: std::io::Error| format!("{to}: {e}"))?,
            request: vec![7; request_bytes],
            answer_bytes,
            unsent: 0,
            input: vec![0; READ_BYTES.max(answer_bytes)],
            have: 0,
            flight: VecDeque::new(),
        })
    }

    fn write(&mut self) -> Result<(), String> {
        while self.unsent > 0 {
            let left = (self.unsent - 1) % self.request.len() + 1;
            let from = self.request.len() - left;
            match self.socket.write(&self.request[from..]) {
                Ok(n) => self.unsent -= n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(())
    }
}

impl End for Bare {
    fn start(&mut self, slot: u32) -> Result<(), String> {
        self.flight.push_back(slot);
        self.unsent += self.request.len();
        self.write()
    }

    fn turn(&mut self, done: &mut Vec<u32>) -> Result<(), String> {
        self.write()?;
        match self.socket.read(&mut self.input[self.have..]) {
            Ok(0) => return Err("closed by the other end".into()),
            Ok(n) => self.have += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e.to_string()),
        }
        let whole = self.have / self.answer_bytes;
        done.extend(self.flight.drain(..whole));
        self.input.copy_within(whole * self.answer_bytes..self.have, 0);
        self.have -= whole * self.answer_bytes;
        Ok(())
    }
}

/// The answering process: one connection after the other, until each is closed.
pub(super) fn serve(ready: impl Fn(String) -> Result<(), String>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    ready(listener.local_addr().map_err(|e| e.to_string())?.to_string())?;
    loop {
        let (socket, _) = listener.accept().map_err(|e| e.to_string())?;
        // It ends when the other end goes away, which is how each measurement ends.
        let _ = answer(socket);
    }
}

fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    let mut sizes: Sizes = [0; 16];
    socket.read_exact(&mut sizes)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let (request, answer) = sizes.split_at(8);
    let bytes = |part: &[u8]| u64::from_le_bytes(part.try_into().expect("eight bytes")) as usize;
    let (request, answer) = (bytes(request), bytes(answer));
    if request == 0 || answer > request || request > 2 * MAX_RPC_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let (mut input, mut have) = (vec![0; READ_BYTES.max(request)], 0);
    loop {
        match socket.read(&mut input[have..]) {
            Ok(0) => return Ok(()),
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        let mut done = 0;
        while have - done >= request {
            write_spinning(&mut socket, &input[done..done + answer])?;
            done += request;
        }
        input.copy_within(done..have, 0);
        have -= done;
    }
}

fn write_spinning(socket: &mut TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::drive::{Plan, drive};
    use super::super::spec::Pattern;
    use super::*;

    #[test]
    fn messages_larger_than_the_socket_takes_go_both_ways() {
        let (sender, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || serve(|at| sender.send(at).map_err(|e| e.to_string())));
        let address = address.recv().unwrap();
        for (pattern, bytes, depth) in
            [(Pattern::Echo, 64, 1), (Pattern::Echo, 1 << 20, 8), (Pattern::Write, 4096, 32)]
        {
            let mut end = Bare::connect(&address, Case { pattern, bytes, depth }).unwrap();
            let plan = Plan::new(depth, bytes, Duration::from_millis(20));
            let sample = drive(&mut end, &plan, std::process::id()).expect("a sample");
            assert!(sample.messages > 0 && sample.copied_bytes.is_none());
            assert!(end.flight.is_empty() && end.have == 0);
        }
    }
}
