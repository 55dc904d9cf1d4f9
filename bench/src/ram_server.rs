//! A tiny NBD server in RAM for tests, which lies on demand.

// A shell: it owns sockets and threads.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::nbd::NbdUri;
use crate::nbd::wire;

const BLOCK: usize = 4096;

/// How the server lies. Reads and writes are each counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Acknowledges the nth write without keeping it.
    LoseWrite(u64),
    /// Acknowledges every write from the nth on without keeping it.
    LoseFrom(u64),
    /// Keeps only the first 2 KiB of the nth write.
    TearWrite(u64),
    /// Puts the nth write 4 KiB further on.
    MisplaceWrite(u64),
    /// Flips a bit of what the nth write puts.
    FlipBit(u64),
    /// From the nth read on, once: answers what the block held before its last write.
    StaleRead(u64),
    /// Closes the connection at the nth write; it was kept or not, as told.
    Drop { nth: u64, kept: bool },
    /// Answers EIO to the nth write; it was kept or not, as told.
    Refuse { nth: u64, kept: bool },
    /// Answers EIO to all reads from the nth on.
    RefuseReads(u64),
    /// Closes the connection at the nth write and takes no other.
    DropForEver(u64),
    /// Answers the nth write late.
    Delay { nth: u64, by: Duration },
}

#[derive(Debug, Default)]
struct State {
    data: Vec<u8>,
    before: HashMap<u64, Vec<u8>>,
    lie: Option<Lie>,
    reads: u64,
    writes: u64,
    gone: bool,
}

/// A server; its thread ends with the process.
pub(crate) struct RamServer {
    pub(crate) uri: NbdUri,
    state: Arc<Mutex<State>>,
    _dir: tempfile::TempDir,
}

impl RamServer {
    pub(crate) fn start(bytes: usize, lie: Option<Lie>) -> RamServer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let data = vec![0; bytes];
        let state = Arc::new(Mutex::new(State { data, lie, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, &shared));
        let uri = format!("nbd+unix:///ram?socket={}", path.display());
        RamServer { uri: uri.parse().unwrap(), state, _dir: dir }
    }

    /// Requests served so far: reads and writes.
    pub(crate) fn served(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.reads, state.writes)
    }
}

fn accept(listener: &UnixListener, state: &Arc<Mutex<State>>) {
    for stream in listener.incoming().flatten() {
        if state.lock().unwrap().gone {
            continue;
        }
        let state = Arc::clone(state);
        std::thread::spawn(move || {
            // The client going away is the usual end.
            let _ = serve(stream, &state);
        });
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>) -> io::Result<()> {
    greet(&mut stream, state)?;
    loop {
        let mut header = [0; wire::REQUEST_BYTES];
        stream.read_exact(&mut header)?;
        let word = |at: usize| u64::from_be_bytes(*header[at..].first_chunk::<8>().unwrap());
        let (kind, cookie, offset) = (header[7], word(8), word(16) as usize);
        let length = u32::from_be_bytes(*header[24..].first_chunk::<4>().unwrap()) as usize;
        match kind {
            0 => {
                let (error, data) = read(&mut state.lock().unwrap(), offset, length);
                answer(&mut stream, cookie, error, &data)?;
            }
            1 => {
                let mut data = vec![0; length];
                stream.read_exact(&mut data)?;
                let end = write(state.lock().unwrap(), offset, &data)?;
                std::thread::sleep(end.delay);
                answer(&mut stream, cookie, end.error, &[])?;
            }
            _ => return Ok(()),
        }
    }
}

fn greet(stream: &mut UnixStream, state: &Mutex<State>) -> io::Result<()> {
    stream.write_all(&wire::INIT_MAGIC.to_be_bytes())?;
    stream.write_all(&wire::OPTION_MAGIC.to_be_bytes())?;
    stream.write_all(&3u16.to_be_bytes())?;
    let mut hello = [0; 20];
    stream.read_exact(&mut hello)?;
    assert_eq!(hello[..4], 3u32.to_be_bytes());
    assert_eq!(hello[4..12], wire::OPTION_MAGIC.to_be_bytes());
    let length = u32::from_be_bytes(*hello[16..].first_chunk::<4>().unwrap());
    let mut option = vec![0; length as usize];
    stream.read_exact(&mut option)?;
    let name = &option[4..option.len() - 2];
    let mut reply = |kind: u32, data: &[u8]| {
        stream.write_all(&wire::OPTION_REPLY_MAGIC.to_be_bytes())?;
        stream.write_all(&wire::OPT_GO.to_be_bytes())?;
        stream.write_all(&kind.to_be_bytes())?;
        stream.write_all(&(data.len() as u32).to_be_bytes())?;
        stream.write_all(data)
    };
    if name != b"ram" {
        reply(wire::REP_ERROR_BIT | 6, b"only `ram` is here")?;
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut info = wire::INFO_EXPORT.to_be_bytes().to_vec();
    info.extend((state.lock().unwrap().data.len() as u64).to_be_bytes());
    info.extend(1u16.to_be_bytes());
    reply(wire::REP_INFO, &info)?;
    reply(wire::REP_ACK, &[])
}

fn answer(stream: &mut UnixStream, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
    let mut reply = wire::REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(error.to_be_bytes());
    reply.extend(cookie.to_be_bytes());
    reply.extend(data);
    stream.write_all(&reply)
}

fn read(state: &mut State, offset: usize, length: usize) -> (u32, Vec<u8>) {
    state.reads += 1;
    let old = state.before.get(&(offset as u64));
    match state.lie {
        Some(Lie::RefuseReads(nth)) if state.reads >= nth => return (5, vec![]),
        Some(Lie::StaleRead(nth)) if state.reads >= nth && length == BLOCK => {
            if let Some(old) = old {
                state.lie = None;
                return (0, old.clone());
            }
        }
        _ => {}
    }
    (0, state.data[offset..offset + length].to_vec())
}

struct WriteEnd {
    error: u32,
    delay: Duration,
}

fn write(mut state: MutexGuard<'_, State>, offset: usize, data: &[u8]) -> io::Result<WriteEnd> {
    state.writes += 1;
    let n = state.writes;
    let mut data = data.to_vec();
    let mut at = offset;
    let mut end = WriteEnd { error: 0, delay: Duration::ZERO };
    let mut kept = true;
    let mut closed = false;
    match state.lie {
        Some(Lie::LoseWrite(nth)) if n == nth => kept = false,
        Some(Lie::LoseFrom(nth)) if n >= nth => kept = false,
        Some(Lie::TearWrite(nth)) if n == nth => data.truncate(BLOCK / 2),
        Some(Lie::MisplaceWrite(nth)) if n == nth => {
            at = if offset + BLOCK < state.data.len() { offset + BLOCK } else { offset - BLOCK };
        }
        Some(Lie::FlipBit(nth)) if n == nth => data[1000] ^= 4,
        Some(Lie::Drop { nth, kept: k }) if n == nth => (kept, closed) = (k, true),
        Some(Lie::Refuse { nth, kept: k }) if n == nth => (kept, end.error) = (k, 5),
        Some(Lie::DropForEver(nth)) if n >= nth => {
            (closed, kept) = (true, false);
            state.gone = true;
        }
        Some(Lie::Delay { nth, by }) if n == nth => end.delay = by,
        _ => {}
    }
    if kept {
        let old = state.data[offset..offset + BLOCK].to_vec();
        state.before.insert(offset as u64, old);
        state.data[at..at + data.len()].copy_from_slice(&data);
    }
    if closed { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(end) }
}
