//! The TCP transport over real loopback sockets. All ends of a test live in its thread and are
//! polled in turn; time is synthetic, so that time-outs come without waiting.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test opens sockets of its own

mod echo;
mod faults;
mod hostile;
mod start;

use std::time::{Duration, Instant};

use ogive_buf::Pool;
use ogive_rpc::hello::{Greeting, Hello, Identity};
use ogive_rpc::transport::tcp::{TcpConfig, TcpTransport};
use ogive_rpc::transport::{CloseReason, ConnId, Endpoint, Event, Incoming, Outgoing, Transport};
use ogive_types::{ChunkserverId, ClusterId, SessionId, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const KIND: u8 = 16;

fn hello(identity: Identity) -> Hello {
    Hello {
        cluster: ClusterId(77),
        identity,
        features: 0,
        token: Vec::new(),
        credit_requests: 128,
        credit_bytes: 16 << 20,
    }
}

fn server_hello() -> Hello {
    hello(Identity::Shard { server: ChunkserverId(1), shard: 0 })
}

fn client_hello() -> Hello {
    hello(Identity::Client { session: SessionId(5) })
}

/// The body of a HELLO that offers nothing.
fn greeting() -> Vec<u8> {
    Greeting { hello: client_hello(), offers: Vec::new() }.encode()
}

fn loopback() -> Endpoint {
    Endpoint("tcp:127.0.0.1:0".into())
}

/// One end with everything that it has reported and that no test has looked at yet.
struct End {
    tcp: TcpTransport,
    pool: Pool,
    events: Vec<Event>,
}

impl End {
    fn start(config: TcpConfig) -> End {
        let pool = config.pool.clone();
        End { tcp: TcpTransport::new(config).unwrap(), pool, events: Vec::new() }
    }

    fn server() -> End {
        End::start(TcpConfig {
            listen: vec![loopback()],
            ..TcpConfig::new(server_hello(), Pool::new(64 << 20))
        })
    }

    fn client() -> End {
        End::start(TcpConfig::new(client_hello(), Pool::new(64 << 20)))
    }

    fn endpoint(&self) -> Endpoint {
        self.tcp.local_endpoints()[0].clone()
    }

    fn poll(&mut self, now: Time) -> bool {
        self.tcp.poll(now, &mut self.events)
    }

    /// Sends a frame whose bytes follow from `id`.
    fn send(&mut self, conn: ConnId, id: u64, response: bool, payload: usize, now: Time) {
        let payload = if payload == 0 {
            Vec::new()
        } else {
            let mut buf = self.pool.alloc(payload).expect("space");
            buf.copy_from_slice(&pattern(payload, id));
            vec![buf.freeze()]
        };
        let body = pattern(id as usize % 100, !id);
        let deadline_ms = id as u32;
        let kind = KIND;
        let frame = Outgoing { kind, response, id, deadline_ms, body, payload };
        self.tcp.send(conn, frame, now);
    }

    fn received(&mut self) -> Vec<(ConnId, Incoming)> {
        let (received, others) = std::mem::take(&mut self.events)
            .into_iter()
            .partition(|event| matches!(event, Event::Received { .. }));
        self.events = others;
        let frame = |event| match event {
            Event::Received { conn, frame } => (conn, frame),
            other => panic!("{other:?}"),
        };
        Vec::into_iter(received).map(frame).collect()
    }

    fn closed(&self) -> Option<(ConnId, CloseReason)> {
        self.events.iter().find_map(|event| match event {
            Event::Closed { conn, reason } => Some((*conn, reason.clone())),
            _ => None,
        })
    }

    fn connected(&self) -> Vec<ConnId> {
        let conn = |event: &Event| match event {
            Event::Connected { conn, .. } => Some(*conn),
            _ => None,
        };
        self.events.iter().filter_map(conn).collect()
    }
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Asserts that a frame is the one that `End::send` makes of its id.
fn check(frame: &Incoming, payload: usize) {
    assert_eq!(frame.kind, KIND);
    assert_eq!(frame.deadline_ms, frame.id as u32);
    assert_eq!(frame.body, pattern(frame.id as usize % 100, !frame.id));
    let got = frame.payload.as_ref().map_or(&[][..], |buf| &buf[..]);
    assert!(got == pattern(payload, frame.id), "payload of {payload} bytes of {}", frame.id);
}

/// Longer than anything takes, however busy the machine is.
const GIVE_UP_AFTER: Duration = Duration::from_secs(100);

/// Polls all ends until `done`, with their clock nearly still. Loopback is quick but not
/// instantaneous: on a busy machine a packet may wait for the kernel.
fn settle(ends: &mut [&mut End], now: Time, mut done: impl FnMut(&mut [&mut End]) -> bool) {
    let begin = Instant::now();
    for round in 0u64.. {
        if done(ends) {
            return;
        }
        let mut progress = false;
        for end in ends.iter_mut() {
            progress |= end.poll(now);
            end.tcp.flush(now);
        }
        if !progress && round % 64 == 63 {
            std::thread::sleep(Duration::from_micros(200));
            if begin.elapsed() > GIVE_UP_AFTER {
                break;
            }
        }
    }
    let reported: Vec<_> = ends.iter().map(|end| &end.events).collect();
    panic!("does not settle; reported: {reported:?}");
}

/// Whether an end's descriptor tells that something is there.
fn readable(end: &End) -> bool {
    // SAFETY: the transport that owns the descriptor outlives this call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(end.tcp.wake_fd()) };
    let wait = Timespec { tv_sec: GIVE_UP_AFTER.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&wait)).unwrap() == 1
}

/// A client's connection to a server, as both see it.
fn pair(client: &mut End, server: &mut End, now: Time) -> (ConnId, ConnId) {
    let out = client.tcp.connect(&server.endpoint(), now);
    let before = server.connected().len();
    settle(&mut [client, server], now, |ends| {
        ends[0].connected().contains(&out) && ends[1].connected().len() > before
    });
    (out, *server.connected().last().unwrap())
}

fn seconds(n: u64) -> Time {
    Time(n * 1_000_000)
}
