//! The work under test: sleeps on all sources at once, as a shard does, and answers each.

use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ogive_buf::Pool;
use ogive_reactor::queue::Receiver;
use ogive_reactor::{Disk, Work};
use ogive_rpc::transport::net::NetTransport;
use ogive_rpc::transport::{Event, Outgoing, Transport};
use ogive_store::{DiskDone, DiskOp, OpId};
use ogive_types::Time;

use crate::board::{Board, Source, this_thread, voluntary_switches};

/// Bytes of one read.
pub const READ_BYTES: usize = 4096;
/// Bytes of the file that is read.
pub const FILE_BYTES: u64 = 1 << 20;

/// What the driver asks for, through the queue or in a frame.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Answer, no more.
    Answer,
    /// Read a block of the file.
    Read(u64),
    /// Set a timer, so many microseconds ahead.
    Timer(u64),
}

/// Bugs that a reactor or its work could have; the test must find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// `prepare_sleep` does not arm the queue.
    QueueNotArmed,
    /// The transport's descriptor is not waited for.
    NetNotWatched,
    /// The descriptor of the disk on which the loop does not sleep is not waited for.
    DiskNotWatched,
    /// The work forgets its timers when it names its deadline.
    TimerForgotten,
    /// What came between the last turn and the sleep is overlooked: the queue is armed twice, which
    /// drains the first signal.
    QueueOverlooked,
    /// The work always has something due at once, so the loop turns without a sleep.
    AlwaysDue,
    /// The work never lets the loop sleep.
    NeverReady,
}

/// On which ring the loop sleeps; the other disk wakes it through its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bed {
    File,
    Pipe,
}

pub struct Sleeper {
    pub inbox: Receiver<Order>,
    /// Wakes the reactor whatever else is broken.
    pub rescue: Receiver<()>,
    pub net: NetTransport,
    pub file: Disk,
    pub pipe: Disk,
    pub pool: Pool,
    pub bed: Bed,
    pub mutant: Option<Mutant>,
    pub board: Arc<Board>,
    timers: Vec<Time>,
    events: Vec<Event>,
    done: Vec<DiskDone>,
    switches_before: u64,
}

/// What a sleeper is made of, on any thread.
pub struct Parts {
    pub inbox: Receiver<Order>,
    pub rescue: Receiver<()>,
    pub file: std::fs::File,
    pub pipe: std::io::PipeReader,
    pub bed: Bed,
    pub mutant: Option<Mutant>,
    pub board: Arc<Board>,
}

impl Sleeper {
    /// Call on the reactor's thread.
    pub fn new(parts: Parts, net: NetTransport, pool: Pool) -> Sleeper {
        let mut file = Disk::new(parts.file.as_fd(), pool.clone(), 8).unwrap();
        let mut pipe = Disk::new(parts.pipe.as_fd(), pool.clone(), 8).unwrap();
        match parts.bed {
            Bed::File => pipe.wake_fd().unwrap(),
            Bed::Pipe => file.wake_fd().unwrap(),
        };
        pipe.submit(read(&pool, 0));
        let Parts { inbox, rescue, bed, mutant, board, .. } = parts;
        let (timers, events, done) = Default::default();
        let switches_before = voluntary_switches();
        board.thread.store(this_thread(), Ordering::Relaxed);
        Sleeper {
            inbox,
            rescue,
            net,
            file,
            pipe,
            pool,
            bed,
            mutant,
            board,
            timers,
            events,
            done,
            switches_before,
        }
    }

    fn obey(&mut self, order: Order, now: Time) {
        match order {
            Order::Answer => {}
            Order::Read(block) => {
                let addr = block * READ_BYTES as u64 % FILE_BYTES;
                self.file.submit(read(&self.pool, addr));
            }
            Order::Timer(us) => self.timers.push(now + Duration::from_micros(us)),
        }
    }

    fn hear(&mut self, now: Time) -> bool {
        let mut any = self.net.poll(now, &mut self.events);
        for event in std::mem::take(&mut self.events) {
            let Event::Received { conn, frame } = event else { continue };
            self.obey(decode(&frame.body), now);
            let (kind, id, body) = (frame.kind, frame.id, frame.body);
            let payload = frame.payload.into_iter().collect();
            let answer = Outgoing { kind, response: true, id, deadline_ms: 0, body, payload };
            self.net.send(conn, answer, now);
            self.board.answers.add(Source::Net);
            any = true;
        }
        any
    }

    fn reap(&mut self) -> bool {
        let mut any = self.file.poll(&mut self.done);
        for done in self.done.drain(..) {
            done.result.unwrap();
            self.board.answers.add(Source::File);
        }
        any |= self.pipe.poll(&mut self.done);
        for done in self.done.drain(..) {
            // At the end the driver closes the pipe.
            if done.result.is_ok() {
                self.board.answers.add(Source::Pipe);
                self.pipe.submit(read(&self.pool, 0));
            }
        }
        any
    }

    fn ring_bells(&mut self, now: Time) -> bool {
        let before = self.timers.len();
        self.timers.retain(|&at| at > now);
        let fired = before - self.timers.len();
        (0..fired).for_each(|_| self.board.answers.add(Source::Timer));
        fired > 0
    }

    fn is(&self, mutant: Mutant) -> bool {
        // To connect takes a transport that is watched; the others misbehave from the start.
        let begun = mutant != Mutant::NetNotWatched || self.board.begun.load(Ordering::Relaxed);
        self.mutant == Some(mutant) && begun
    }
}

fn read(pool: &Pool, addr: u64) -> DiskOp {
    DiskOp::Read { id: OpId(addr), addr, buf: pool.alloc(READ_BYTES).expect("few at once") }
}

pub fn encode(order: Order) -> Vec<u8> {
    let (what, n) = match order {
        Order::Answer => (0, 0),
        Order::Read(block) => (1, block),
        Order::Timer(us) => (2, us),
    };
    std::iter::once(what).chain(n.to_le_bytes()).collect()
}

fn decode(body: &[u8]) -> Order {
    let n = u64::from_le_bytes(body[1..9].try_into().unwrap());
    [Order::Answer, Order::Read(n), Order::Timer(n)][usize::from(body[0])]
}

impl Work for Sleeper {
    fn turn(&mut self, now: Time) -> bool {
        let slept = voluntary_switches() - self.switches_before;
        self.board.sleeps.store(slept, Ordering::Relaxed);
        self.board.turns.fetch_add(1, Ordering::Relaxed);
        let mut any = self.rescue.try_recv().is_some();
        while let Some(order) = self.inbox.try_recv() {
            self.obey(order, now);
            self.board.answers.add(Source::Queue);
            any = true;
        }
        any |= self.hear(now);
        any |= self.reap();
        any |= self.ring_bells(now);
        if any {
            self.net.flush(now);
        }
        self.file.flush_sq();
        self.pipe.flush_sq();
        any
    }

    fn next_deadline(&self) -> Time {
        if self.is(Mutant::AlwaysDue) {
            return Time(0);
        }
        let timers = self.timers.iter().copied().filter(|_| !self.is(Mutant::TimerForgotten));
        timers.min().unwrap_or(Time::NEVER).min(self.net.next_deadline())
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        let mut fds = vec![self.inbox.wake_fd(), self.rescue.wake_fd()];
        fds.extend((!self.is(Mutant::NetNotWatched)).then(|| self.net.wake_fd()));
        let other = match self.bed {
            Bed::File => &self.pipe,
            Bed::Pipe => &self.file,
        };
        fds.extend(other.event_fd().filter(|_| !self.is(Mutant::DiskNotWatched)));
        fds
    }

    fn prepare_sleep(&mut self) -> bool {
        let mut may = self.rescue.prepare_sleep() && self.net.prepare_sleep();
        if !self.is(Mutant::QueueNotArmed) {
            let empty = self.inbox.prepare_sleep();
            may &= empty || self.is(Mutant::QueueOverlooked);
        }
        may && !self.is(Mutant::NeverReady)
    }

    fn finished(&self) -> bool {
        self.inbox.is_finished()
    }

    fn disk(&mut self) -> Option<&mut Disk> {
        Some(match self.bed {
            Bed::File => &mut self.file,
            Bed::Pipe => &mut self.pipe,
        })
    }
}
