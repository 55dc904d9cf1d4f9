//! Peers that misbehave, die, fall silent, stop reading or come in crowds: real sockets, and real
//! processes where it matters. Tests count frames, turns, bytes and descriptors, never time; a wait
//! gives up only after far longer than anything takes.
//!
//! `OGIVE_TEST_PATH` chooses the path of the frames: tcp (default), or shm and rdma in a build with
//! `--features ucx`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test owns its sockets and clock

mod credits;
mod crowd;
mod cycles;
mod ending;
mod fairness;
mod flood;
mod process;
mod silence;
mod stalled;
mod unreadable;

use std::time::Duration;

use ogive_buf::{Buf, Pool};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::TcpConfig;
use ogive_rpc::transport::{
    CloseReason, ConnId, Endpoint, Event, Incoming, Outgoing, Path, PathChoice, Transport,
};
use ogive_types::{ChunkserverId, ClusterId, SessionId, Time};

const KIND: u8 = 16;

/// The path that the tests run over.
fn path() -> Path {
    std::env::var("OGIVE_TEST_PATH").map_or(Path::Tcp, |name| name.parse().unwrap())
}

fn now() -> Time {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Time(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000)
}

fn hello(identity: Identity) -> Hello {
    let (features, token) = (0, Vec::new());
    let (credit_requests, credit_bytes) = (8, 64 << 10);
    Hello { cluster: ClusterId(77), identity, features, token, credit_requests, credit_bytes }
}

fn server_config() -> TcpConfig {
    let hello = hello(Identity::Shard { server: ChunkserverId(1), shard: 0 });
    let listen = vec![Endpoint("tcp:127.0.0.1:0".into())];
    TcpConfig { listen, ..TcpConfig::new(hello, Pool::new(64 << 20)) }
}

fn client_config() -> TcpConfig {
    let hello = hello(Identity::Client { session: SessionId(5) });
    TcpConfig::new(hello, Pool::new(16 << 20))
}

/// One end, with what it has reported and no test has looked at.
struct End {
    net: NetTransport,
    pool: Pool,
    events: Vec<Event>,
}

impl End {
    fn start(tcp: TcpConfig) -> End {
        let (pool, choice) = (tcp.pool.clone(), PathChoice::Only(path()));
        let net = NetTransport::new(NetConfig { tcp, choice }).unwrap();
        End { net, pool, events: Vec::new() }
    }

    fn endpoint(&self) -> Endpoint {
        self.net.local_endpoints()[0].clone()
    }

    /// One turn of its loop: true when anything happened.
    fn turn(&mut self) -> bool {
        let any = self.net.poll(now(), &mut self.events);
        self.net.flush(now());
        any
    }

    fn send(&mut self, conn: ConnId, id: u64, response: bool, payload: Option<Buf>) {
        let (kind, body, payload) = (KIND, Vec::new(), payload.into_iter().collect());
        let frame = Outgoing { kind, response, id, deadline_ms: 0, body, payload };
        self.net.send(conn, frame, now());
    }

    /// A zeroed buffer, as a payload.
    fn payload(&self, bytes: usize) -> Buf {
        self.pool.alloc_zeroed(bytes).expect("room in the pool").freeze()
    }

    /// Takes the frames that arrived out of the events.
    fn received(&mut self) -> Vec<(ConnId, Incoming)> {
        let is_frame = |event: &mut Event| matches!(event, Event::Received { .. });
        let frame = |event| match event {
            Event::Received { conn, frame } => (conn, frame),
            other => unreachable!("{other:?} is no frame"),
        };
        self.events.extract_if(.., is_frame).map(frame).collect()
    }

    /// Connections that came up, oldest first.
    fn connected(&self) -> Vec<ConnId> {
        let conn = |event: &Event| match event {
            Event::Connected { conn, .. } => Some(*conn),
            _ => None,
        };
        self.events.iter().filter_map(conn).collect()
    }

    /// Why a connection ended, if it has.
    fn end_of(&self, id: ConnId) -> Option<&CloseReason> {
        self.events.iter().find_map(|event| match event {
            Event::Closed { conn, reason } if *conn == id => Some(reason),
            _ => None,
        })
    }

    /// Connections that ended.
    fn ends(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Closed { .. })).count()
    }
}

/// Turns all ends until `done`; gives up after a minute or two.
fn settle(what: &str, ends: &mut [&mut End], mut done: impl FnMut(&mut [&mut End]) -> bool) {
    let start = now();
    while !done(ends) {
        let mut progress = false;
        for end in ends.iter_mut() {
            progress |= end.turn();
        }
        if !progress {
            std::thread::sleep(Duration::from_micros(100));
        }
        if now().since(start) > Duration::from_secs(100) {
            let reported: Vec<_> = ends.iter().map(|end| &end.events).collect();
            panic!("never: {what}; reported: {reported:?}");
        }
    }
}

/// A client's connection to a server, as both see it.
fn pair(client: &mut End, server: &mut End) -> (ConnId, ConnId) {
    let before = server.connected().len();
    let out = client.net.connect(&server.endpoint(), now());
    settle("connected", &mut [client, server], |ends| {
        assert_eq!(ends[0].end_of(out), None);
        ends[0].connected().contains(&out) && ends[1].connected().len() > before
    });
    assert_eq!(client.net.path(out), Some(path()));
    (out, *server.connected().last().unwrap())
}

/// What a test runs in a process of its own; in a normal run of the tests nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(process::ROLE) else { return };
    match role.as_str() {
        "idle" => silence::idle(),
        "flooder" => fairness::flooder(),
        "hoarder" => flood::hoarder(),
        "crowd" => crowd::crowd(),
        "cycles" => cycles::cycles(),
        "sender" => stalled::sender(),
        "mirror" => unreadable::mirror(),
        other => panic!("no role {other}"),
    }
}
