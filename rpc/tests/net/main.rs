//! Paths are chosen, proved, left and avoided: two transports with real sockets, and lanes that are
//! queues in memory. All ends of a test live in its thread and are polled in turn; time is
//! synthetic, so that time-outs come without waiting.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test opens sockets of its own

mod choice;
mod faults;
mod forced;
mod hostile;
mod lane;
mod sleep;
mod usage;

use std::time::{Duration, Instant};

use lane::{Faults, Handle, Hub};
use ogive_buf::Pool;
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::lane::{Lane, LaneVersion};
use ogive_rpc::transport::net::{Missing, NetConfig, NetError, NetTransport};
use ogive_rpc::transport::tcp::TcpConfig;
use ogive_rpc::transport::{
    CloseReason, ConnId, Endpoint, Event, Outgoing, Path, PathChoice, Transport,
};
use ogive_types::{ChunkserverId, ClusterId, SessionId, Time};

const KIND: u8 = 16;
const HERE: u128 = 1;
const ELSEWHERE: u128 = 2;
const UCX: LaneVersion = LaneVersion { major: 1, minor: 13 };
const NEWER: LaneVersion = LaneVersion { major: 1, minor: 16 };

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

/// How an end is to be made.
struct Plan {
    choice: PathChoice,
    paths: Vec<Path>,
    version: LaneVersion,
    host: u128,
    listens: bool,
}

impl Plan {
    fn with(paths: &[Path]) -> Plan {
        let (choice, paths) = (PathChoice::Auto, paths.to_vec());
        Plan { choice, paths, version: UCX, host: HERE, listens: true }
    }

    fn only(path: Path, paths: &[Path]) -> Plan {
        Plan { choice: PathChoice::Only(path), ..Plan::with(paths) }
    }

    fn start(self, hub: &Hub) -> Result<End, NetError> {
        let pool = Pool::new(8 << 20);
        let identity = if self.listens {
            Identity::Shard { server: ChunkserverId(1), shard: 0 }
        } else {
            Identity::Client { session: SessionId(5) }
        };
        let mut tcp = TcpConfig::new(hello(identity), pool.clone());
        if self.listens {
            tcp.listen.push(Endpoint("tcp:127.0.0.1:0".into()));
        }
        let mut handles = Vec::new();
        let mut lane = |path| -> Result<Box<dyn Lane>, Missing> {
            if !self.paths.contains(&path) {
                return Err(Missing { path, why: format!("no {path} here") });
            }
            let (lane, handle) = hub.lane(path, self.version);
            handles.push((path, handle));
            Ok(lane)
        };
        let lanes = vec![lane(Path::Rdma), lane(Path::Shm)];
        let config = NetConfig { tcp, choice: self.choice };
        let net = NetTransport::with_lanes(config, lanes, Ok(self.host))?;
        Ok(End { net, pool, handles, events: Vec::new() })
    }
}

/// One end with everything that it has reported.
struct End {
    net: NetTransport,
    pool: Pool,
    handles: Vec<(Path, Handle)>,
    events: Vec<Event>,
}

impl End {
    fn lane(&self, path: Path) -> &Handle {
        &self.handles.iter().find(|(p, _)| *p == path).unwrap().1
    }

    fn faults(&self, path: Path, faults: Faults) {
        self.lane(path).set(faults);
    }

    /// Connections that are open in lanes.
    fn in_lanes(&self) -> usize {
        self.handles.iter().map(|(_, handle)| handle.open()).sum()
    }

    fn endpoint(&self) -> Endpoint {
        self.net.local_endpoints()[0].clone()
    }

    fn connected(&self) -> Vec<ConnId> {
        let conn = |event: &Event| match event {
            Event::Connected { conn, .. } => Some(*conn),
            _ => None,
        };
        self.events.iter().filter_map(conn).collect()
    }

    fn closed(&self) -> Vec<(ConnId, CloseReason)> {
        let closed = |event: &Event| match event {
            Event::Closed { conn, reason } => Some((*conn, reason.clone())),
            _ => None,
        };
        self.events.iter().filter_map(closed).collect()
    }

    fn received(&self) -> Vec<(ConnId, u64)> {
        let received = |event: &Event| match event {
            Event::Received { conn, frame } => Some((*conn, frame.id)),
            _ => None,
        };
        self.events.iter().filter_map(received).collect()
    }

    fn send(&mut self, conn: ConnId, id: u64, payload: usize, now: Time) {
        let payload = (payload > 0).then(|| {
            let mut buf = self.pool.alloc(payload).expect("space");
            buf.fill(id as u8);
            buf.freeze()
        });
        let payload = payload.into_iter().collect();
        let (response, deadline_ms, body) = (false, 0, id.to_le_bytes().to_vec());
        self.net.send(conn, Outgoing { kind: KIND, response, id, deadline_ms, body, payload }, now);
    }

    fn why_not(&self, conn: ConnId, path: Path) -> &str {
        let found = self.net.passed_over(conn).iter().find(|(p, _)| *p == path);
        found.map_or("", |(_, why)| why)
    }
}

/// Longer than anything takes, however busy the machine is.
const GIVE_UP_AFTER: Duration = Duration::from_secs(100);

/// A client and a server, joined by a hub.
struct Stage {
    client: End,
    server: End,
    now: Time,
}

impl Stage {
    fn new(client: Plan, server: Plan) -> Stage {
        let hub = Hub::default();
        let client = Plan { listens: false, ..client }.start(&hub).unwrap();
        Stage { client, server: server.start(&hub).unwrap(), now: seconds(1) }
    }

    /// Both ends have both lanes.
    fn full() -> Stage {
        Stage::new(Plan::with(&[Path::Rdma, Path::Shm]), Plan::with(&[Path::Rdma, Path::Shm]))
    }

    /// Polls both ends until `done`. Loopback is quick but not instantaneous: on a busy machine a
    /// packet may wait for the kernel.
    fn settle(&mut self, what: &str, mut done: impl FnMut(&mut End, &mut End) -> bool) {
        let begin = Instant::now();
        for round in 0u64.. {
            if done(&mut self.client, &mut self.server) {
                return;
            }
            let mut progress = false;
            for end in [&mut self.client, &mut self.server] {
                progress |= end.net.poll(self.now, &mut end.events);
                end.net.flush(self.now);
            }
            if !progress && round % 64 == 63 {
                std::thread::sleep(Duration::from_micros(200));
                if begin.elapsed() > GIVE_UP_AFTER {
                    break;
                }
            }
        }
        panic!("{what}: client {:?}, server {:?}", self.client.events, self.server.events);
    }

    fn connect(&mut self) -> ConnId {
        let to = self.server.endpoint();
        self.client.net.connect(&to, self.now)
    }

    /// A new connection, as both ends know it, when both have reported it.
    fn pair(&mut self) -> (ConnId, ConnId) {
        let (ours, before) = (self.connect(), self.server.connected().len());
        self.settle("connected", |client, server| {
            client.connected().contains(&ours) && server.connected().len() > before
        });
        (ours, *self.server.connected().last().unwrap())
    }

    /// A new connection that takes `path` at both ends, and carries frames both ways.
    fn works_over(&mut self, path: Path) -> (ConnId, ConnId) {
        let (ours, theirs) = self.pair();
        assert_eq!(
            self.client.net.path(ours),
            Some(path),
            "{:?}",
            self.client.net.passed_over(ours)
        );
        assert_eq!(self.server.net.path(theirs), Some(path));
        self.exchange(ours, theirs);
        (ours, theirs)
    }

    fn exchange(&mut self, ours: ConnId, theirs: ConnId) {
        self.client.events.clear();
        self.server.events.clear();
        for id in 1..=20 {
            self.client.send(ours, id, 4096 * (id as usize % 3), self.now);
            self.server.send(theirs, 100 + id, 0, self.now);
        }
        self.settle("exchanged", |client, server| {
            client.received().len() == 20 && server.received().len() == 20
        });
        let ids = |base: u64, conn| (1..=20).map(|id| (conn, base + id)).collect::<Vec<_>>();
        assert_eq!(self.server.received(), ids(0, theirs), "in order");
        assert_eq!(self.client.received(), ids(100, ours));
    }

    /// Both ends have let go of everything that belongs to connections.
    fn is_empty_after_all(&mut self) {
        self.settle("empty", |client, server| {
            client.net.connections() + server.net.connections() == 0
        });
        assert_eq!(self.client.in_lanes() + self.server.in_lanes(), 0);
    }
}

fn seconds(n: u64) -> Time {
    Time(n * 1_000_000)
}
