//! Two lanes in one process, polled in turn.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ogive_buf::{ARENA_BYTES, Pool};
use ogive_rpc::transport::lane::{Lane, LaneConfig, LaneEvent};
use ogive_rpc::transport::tcp::Timing;
use ogive_rpc::transport::{ConnId, Incoming, Outgoing, Path, ucx};
use ogive_types::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long anything may take that has to happen; generous, for slow machines.
const WITHIN: Duration = Duration::from_secs(60);

pub struct End {
    pub lane: Box<dyn Lane>,
    pub pool: Pool,
    pub events: VecDeque<LaneEvent>,
    began: Instant,
}

pub struct Pair {
    pub a: End,
    pub b: End,
}

impl End {
    fn new(pool_bytes: usize, timing: Timing, began: Instant) -> End {
        let pool = Pool::new(pool_bytes);
        let config = LaneConfig { pool: pool.clone(), timing, connections_max: 1000 };
        let path = match std::env::var("OGIVE_TEST_PATH").as_deref() {
            Ok("rdma") => Path::Rdma,
            _ => Path::Shm,
        };
        let lane = ucx::open(path, &config).expect("the lane that is to be tested");
        End { lane, pool, events: VecDeque::new(), began }
    }

    pub fn now(&self) -> Time {
        Time(self.began.elapsed().as_micros() as u64)
    }

    pub fn turn(&mut self) {
        let mut events = Vec::new();
        self.lane.poll(self.now(), &mut events);
        self.events.extend(events);
    }

    pub fn send(&mut self, conn: ConnId, frame: Outgoing) {
        let now = self.now();
        self.lane.send(conn, frame, now);
        self.lane.flush(now);
    }

    /// Polls this end alone until such an event comes; those before it are lost.
    pub fn wait(&mut self, wanted: impl Fn(&LaneEvent) -> bool) -> LaneEvent {
        let until = Instant::now() + WITHIN;
        loop {
            self.turn();
            while let Some(event) = self.events.pop_front() {
                if wanted(&event) {
                    return event;
                }
            }
            assert!(Instant::now() < until, "nothing came");
        }
    }

    /// Polls until the lane may sleep.
    pub fn sleep_ready(&mut self) {
        let until = Instant::now() + WITHIN;
        while !self.lane.prepare_sleep() {
            self.turn();
            assert!(Instant::now() < until, "never ready to sleep");
        }
    }

    /// Whether the descriptor becomes readable.
    pub fn woken(&self, within: Duration) -> bool {
        // SAFETY: the descriptor is the lane's, which outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(self.lane.wake_fd()) };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    }
}

impl Pair {
    pub fn new() -> Pair {
        Pair::with_timing(Timing::default())
    }

    pub fn with_timing(timing: Timing) -> Pair {
        let began = Instant::now();
        let pool = ARENA_BYTES * 16;
        Pair { a: End::new(pool, timing, began), b: End::new(pool, timing, began) }
    }

    pub fn with_pools(a: usize, b: usize) -> Pair {
        let (began, timing) = (Instant::now(), Timing::default());
        Pair { a: End::new(a, timing, began), b: End::new(b, timing, began) }
    }

    pub fn now(&self) -> Time {
        self.a.now()
    }

    pub fn turn(&mut self) {
        self.a.turn();
        self.b.turn();
    }

    /// A connection of that id at both ends, probed both ways.
    pub fn join(&mut self, conn: ConnId) -> ConnId {
        let (at_a, at_b) = (self.a.lane.open(conn), self.b.lane.open(conn));
        let (a, b) = (self.a.lane.address().to_vec(), self.b.lane.address().to_vec());
        let now = self.now();
        self.b.lane.attach(conn, &a, at_a, now).unwrap();
        self.a.lane.attach(conn, &b, at_b, now).unwrap();
        self.a.lane.probe(conn, now);
        self.b.lane.probe(conn, now);
        let until = Instant::now() + WITHIN;
        while self.a.events.is_empty() || self.b.events.is_empty() {
            self.turn();
            assert!(Instant::now() < until, "the probes do not arrive");
        }
        for end in [&mut self.a, &mut self.b] {
            let event = end.events.pop_front();
            assert!(
                matches!(event, Some(LaneEvent::Probed { conn: at }) if at == conn),
                "{event:?}"
            );
        }
        conn
    }

    pub fn receive_at_a(&mut self, frames: usize) -> Vec<Incoming> {
        self.receive(frames, |pair| &mut pair.a)
    }

    pub fn receive_at_b(&mut self, frames: usize) -> Vec<Incoming> {
        self.receive(frames, |pair| &mut pair.b)
    }

    fn receive(&mut self, frames: usize, end: fn(&mut Pair) -> &mut End) -> Vec<Incoming> {
        let until = Instant::now() + WITHIN;
        let mut received = Vec::new();
        while received.len() < frames {
            match end(self).events.pop_front() {
                Some(LaneEvent::Received { frame, .. }) => received.push(frame),
                Some(event) => panic!("{event:?} in place of a frame"),
                None => self.turn(),
            }
            assert!(Instant::now() < until, "{} of {frames} frames came", received.len());
        }
        received
    }
}

/// A frame whose body and payload are known from its id.
pub fn frame(pool: &Pool, id: u64, body: usize, pieces: &[usize]) -> Outgoing {
    let all = pattern(id ^ 1, pieces.iter().sum());
    let mut rest = all.as_slice();
    let payload = pieces.iter().map(|&bytes| {
        let (piece, after) = rest.split_at(bytes);
        rest = after;
        let mut buf = pool.alloc(bytes).expect("room");
        buf.copy_from_slice(piece);
        buf.freeze()
    });
    let payload = payload.collect();
    Outgoing { kind: 20, response: false, id, deadline_ms: 7, body: pattern(id, body), payload }
}

/// Bytes that differ from one place, and one seed, to the next.
pub fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let byte = |i: usize| {
        let mixed = (seed ^ (i as u64 / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (8 * (i % 8))) as u8
    };
    (0..bytes).map(byte).collect()
}
