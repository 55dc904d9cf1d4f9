//! Many clients at once.
#![allow(clippy::disallowed_methods)] // a shell: threads and a clock

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Client, Notes};
use super::register::Op;
use crate::nbd::NbdUri;
use crate::rng::mix;
use crate::verify::{Seq, fill};

/// A place where the volume may be reached.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The export.
    pub uri: NbdUri,
    /// Number of the attachment of the process that listens there. Whoever starts another process
    /// at this place counts it up, over all gateways, after the old one has ended and before the
    /// new one starts; without a new number, what is sent to them counts as one attachment.
    pub attachment: Arc<AtomicU64>,
}

/// What a crowd does.
#[derive(Clone, Debug)]
pub struct CrowdSpec {
    /// Where; each client goes to any that answers.
    pub gateways: Vec<Gateway>,
    /// Clients, each with one request at a time.
    pub clients: u32,
    /// Blocks of 4 KiB that they read and write. Zeroes at the start.
    pub blocks: Vec<u64>,
    /// Blocks that are written once, before all else, and then only read.
    pub settled: Vec<u64>,
    /// Share of writes, 0 to 100; the rest are reads.
    pub write_percent: u8,
    /// Names the sequence of requests.
    pub seed: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spec: CrowdSpec,
    pub(super) run: u64,
    pub(super) stop: AtomicBool,
    /// The next value to write; the settled blocks have the first ones, in their order.
    pub(super) values: AtomicU64,
    start: Instant,
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        // 0 is before all operations.
        1 + self.start.elapsed().as_nanos() as u64
    }
}

/// What all clients together saw.
#[derive(Debug, Default)]
pub struct Told {
    /// All operations that say something.
    pub history: Vec<Op>,
    /// Blocks that held what nobody wrote, in words.
    pub nonsense: Vec<String>,
    /// Requests that the server answered with an error.
    pub errors: u64,
    /// Requests without an answer.
    pub unanswered: u64,
    /// Blocks that could not be read in the end.
    pub unread: Vec<u64>,
}

impl Told {
    fn add(&mut self, notes: Notes) {
        self.history.extend(notes.history);
        self.nonsense.extend(notes.nonsense);
        self.errors += notes.errors;
        self.unanswered += notes.unanswered;
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    settled: Notes,
    threads: Vec<JoinHandle<Notes>>,
}

impl Crowd {
    /// Writes the settled blocks, within `bound`, and starts the clients.
    ///
    /// # Errors
    ///
    /// When a settled block cannot be written in time, or a thread cannot be started.
    pub fn start(spec: CrowdSpec, bound: Duration) -> std::io::Result<Crowd> {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shared = Arc::new(Shared {
            run: mix(epoch.as_nanos() as u64),
            stop: AtomicBool::new(false),
            values: AtomicU64::new(1),
            start: Instant::now(),
            spec,
        });
        let last = u64::from(shared.spec.clients);
        let settled = Client::new(&shared, last + 1).settle(bound)?;
        let mut crowd = Crowd { shared, settled, threads: Vec::new() };
        for number in 0..u64::from(crowd.shared.spec.clients) {
            let shared = Arc::clone(&crowd.shared);
            let run = move || Client::new(&shared, number).run();
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            crowd.threads.push(thread.spawn(run)?);
        }
        Ok(crowd)
    }

    /// Time of the history, in nanoseconds: for notes of what happened meanwhile.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// What the settled block number `at` of the list holds.
    pub fn settled_content(&self, at: usize) -> Vec<u8> {
        let mut content = Vec::new();
        let value = Seq(1 + at as u64);
        fill(self.shared.run, self.shared.spec.settled[at], value, &mut content);
        content
    }

    /// Stops them, and reads every block once more: what is there must fit too.
    pub fn end(mut self, bound: Duration) -> Told {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        told.add(std::mem::take(&mut self.settled));
        for thread in std::mem::take(&mut self.threads) {
            told.add(thread.join().expect("a client does not panic"));
        }
        let last = u64::from(self.shared.spec.clients);
        let (notes, unread) = Client::new(&self.shared, last).read_all(bound);
        told.add(notes);
        told.unread = unread;
        told
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
