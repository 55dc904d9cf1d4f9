//! One client: asks one thing at a time, and writes down what came of it.
#![allow(clippy::disallowed_methods)] // a shell: a socket and a clock

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::crowd::Shared;
use super::register::{Action, Op};
use crate::limits::{HISTORY_PATIENCE, HISTORY_PAUSE, RECONNECT_PAUSE};
use crate::nbd::wire::Command;
use crate::nbd::{Conn, Expect, open};
use crate::rng::Rng;
use crate::verify::{BLOCK, Content, Seq, classify, fill};

/// One in so many reads is of a settled block.
const SETTLED_SHARE: u64 = 8;

/// What a reply carries, by what was asked.
struct Asked {
    cookie: u64,
    bytes: usize,
}

impl Expect for Asked {
    fn data_bytes(&self, cookie: u64) -> Option<usize> {
        (cookie == self.cookie).then_some(self.bytes)
    }
}

/// How a request ended.
enum End {
    /// With success, and the data of a read.
    Good(Vec<u8>),
    /// With an error of the server.
    Refused,
    /// Without an answer.
    Silence,
}

/// What a client brings home.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) history: Vec<Op>,
    /// Blocks that held what no write of any client makes, in words.
    pub(super) nonsense: Vec<String>,
    pub(super) errors: u64,
    pub(super) unanswered: u64,
}

pub(super) struct Client<'a> {
    shared: &'a Shared,
    rng: Rng,
    gateway: usize,
    conn: Option<(Conn, u64)>,
    cookie: u64,
    notes: Notes,
}

impl<'a> Client<'a> {
    pub(super) fn new(shared: &'a Shared, number: u64) -> Client<'a> {
        let rng = Rng::new(shared.spec.seed ^ (number << 32));
        let gateway = number as usize % shared.spec.gateways.len();
        Client { shared, rng, gateway, conn: None, cookie: number << 40, notes: Notes::default() }
    }

    /// Asks until it is told to stop.
    pub(super) fn run(mut self) -> Notes {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let (hot, settled) = (&self.shared.spec.blocks, &self.shared.spec.settled);
            let writes = self.rng.below(100) < u64::from(self.shared.spec.write_percent);
            let settles = !writes && !settled.is_empty() && self.rng.below(SETTLED_SHARE) == 0;
            let blocks = if settles { settled } else { hot };
            let block = blocks[self.rng.below(blocks.len() as u64) as usize];
            self.request(block, writes);
            std::thread::sleep(HISTORY_PAUSE);
        }
        self.notes
    }

    /// Writes each settled block, again and again until it is acknowledged.
    pub(super) fn settle(mut self, bound: Duration) -> std::io::Result<Notes> {
        let deadline = Instant::now() + bound;
        for &block in &self.shared.spec.settled {
            // One attempt: another would be another value, and where it is must be known.
            while self.conn.is_none() && Instant::now() < deadline {
                self.conn = self.connect();
            }
            if !self.request(block, true) {
                return Err(std::io::Error::other("a settled block could not be written"));
            }
        }
        Ok(self.notes)
    }

    /// Reads each block once, through whichever gateway answers; the blocks that none gave.
    pub(super) fn read_all(mut self, bound: Duration) -> (Notes, Vec<u64>) {
        let (deadline, mut missing) = (Instant::now() + bound, Vec::new());
        let spec = &self.shared.spec;
        for &block in spec.blocks.iter().chain(&spec.settled) {
            while !self.request(block, false) {
                if Instant::now() > deadline {
                    missing.push(block);
                    break;
                }
            }
        }
        (self.notes, missing)
    }

    /// One request, from beginning to end; true when it succeeded.
    fn request(&mut self, block: u64, writes: bool) -> bool {
        let Some((mut conn, attachment)) = self.conn.take().or_else(|| self.connect()) else {
            std::thread::sleep(RECONNECT_PAUSE);
            return false;
        };
        self.cookie += 1;
        let (mut data, mut action) = (Vec::new(), Action::Read(0));
        if writes {
            let value = self.shared.values.fetch_add(1, Ordering::Relaxed);
            action = Action::Write(value);
            fill(self.shared.run, block, Seq(value), &mut data);
        }
        let start = self.shared.now();
        let end = self.exchange(&mut conn, block, &data);
        let now = self.shared.now();
        let op = Op { block, action, start, end: Some(now), attachment };
        match end {
            End::Good(data) => {
                self.conn = Some((conn, attachment));
                self.note_success(op, &data);
                true
            }
            End::Refused => {
                // Another connection: it may lead to a gateway that does better.
                self.notes.errors += 1;
                self.note_unknown(op);
                false
            }
            End::Silence => {
                self.notes.unanswered += 1;
                self.note_unknown(op);
                false
            }
        }
    }

    fn note_unknown(&mut self, op: Op) {
        if matches!(op.action, Action::Write(_)) {
            self.notes.history.push(Op { end: None, ..op });
        }
    }

    fn note_success(&mut self, op: Op, data: &[u8]) {
        if matches!(op.action, Action::Write(_)) {
            return self.notes.history.push(op);
        }
        let content = classify(self.shared.run, op.block, data, &mut Vec::new());
        let value = match content {
            Content::Written(Seq(value)) => value,
            Content::Foreign(_) if data.iter().all(|&byte| byte == 0) => 0,
            other => {
                let at = op.start as f64 / 1e6;
                let what = format!("block {} read at {at:.3} ms holds {other:?}", op.block);
                return self.notes.nonsense.push(what);
            }
        };
        self.notes.history.push(Op { action: Action::Read(value), ..op });
    }

    /// A connection to one of the gateways, and the number of the attachment behind it.
    fn connect(&mut self) -> Option<(Conn, u64)> {
        let gateways = &self.shared.spec.gateways;
        self.gateway = self.rng.below(gateways.len() as u64) as usize;
        let gateway = &gateways[self.gateway];
        let before = gateway.attachment.load(Ordering::SeqCst);
        let (fd, _) = open(&gateway.uri).ok()?;
        // Of which of two processes it is would not be known.
        let same = gateway.attachment.load(Ordering::SeqCst) == before;
        same.then(|| (Conn::new(fd), before))
    }

    /// Sends a write of `data`, or a read when there is none, and waits for the answer.
    fn exchange(&self, conn: &mut Conn, block: u64, data: &[u8]) -> End {
        let read = data.is_empty();
        let command = if read { Command::Read } else { Command::Write };
        conn.queue(command, self.cookie, block * BLOCK as u64, BLOCK as u32, data);
        let mut asked = Asked { cookie: self.cookie, bytes: if read { BLOCK } else { 0 } };
        let deadline = Instant::now() + HISTORY_PATIENCE;
        let mut answer = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || conn.flush().is_err() {
                return End::Silence;
            }
            let writes = if conn.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
            let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000.min(left.as_nanos() as i64) };
            let mut fds = [PollFd::from_borrowed_fd(conn.as_fd(), PollFlags::IN | writes)];
            // A signal is a turn without an answer.
            let _ = poll(&mut fds, Some(&timeout));
            let took = conn.receive(&mut asked, |_, reply| {
                answer = Some((reply.error, reply.data.to_vec()));
            });
            match (answer.take(), took) {
                (Some((0, data)), _) => return End::Good(data),
                (Some(_), _) => return End::Refused,
                (None, Err(_)) => return End::Silence,
                (None, Ok(_)) => {}
            }
        }
    }
}
