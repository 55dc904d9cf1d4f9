//! A lane between two transports of one thread: queues in memory, with faults to order.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use ogive_rpc::transport::lane::{Lane, LaneEvent, LaneVersion};
use ogive_rpc::transport::{CloseReason, ConnId, Incoming, Outgoing, Path, PathStats};
use ogive_types::Time;
use rustix::event::{EventfdFlags, eventfd};

/// What two lanes are joined by. Clones are the same one.
#[derive(Clone, Default)]
pub struct Hub(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    lanes: Vec<Shared>,
    keys: u64,
}

/// What of a lane others reach: its inbox, and what is to go wrong in it.
struct Shared {
    inbox: VecDeque<(u64, Message)>,
    wake: OwnedFd,
    armed: bool,
    open: usize,
    faults: Faults,
    /// Connections to report as broken.
    broken: Vec<ConnId>,
    /// Keys of the connections.
    keys: BTreeMap<ConnId, u64>,
}

/// What goes wrong in a lane.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// What `attach` fails with.
    pub attach: Option<String>,
    /// Probes to this lane are lost.
    pub lose_probes: bool,
    /// What was sent never arrives for good.
    pub never_drained: bool,
    /// So many polls only learn that something is under way.
    pub lag: usize,
}

enum Message {
    Probe,
    Frame(Incoming),
}

/// A handle on one lane for the test.
#[derive(Clone)]
pub struct Handle {
    hub: Hub,
    index: usize,
}

impl Hub {
    /// A lane of `path`, and the handle on it.
    pub fn lane(&self, path: Path, version: LaneVersion) -> (Box<dyn Lane>, Handle) {
        let mut state = self.0.borrow_mut();
        let index = state.lanes.len();
        state.lanes.push(Shared {
            inbox: VecDeque::new(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap(),
            armed: false,
            open: 0,
            faults: Faults::default(),
            broken: Vec::new(),
            keys: BTreeMap::new(),
        });
        let handle = Handle { hub: self.clone(), index };
        let address = format!("lane {index}").into_bytes();
        let (conns, outbox, stats) = (BTreeMap::new(), Vec::new(), PathStats::default());
        (
            Box::new(QueueLane {
                path,
                version,
                address,
                handle: handle.clone(),
                conns,
                outbox,
                stats,
            }),
            handle,
        )
    }
}

impl Handle {
    fn with<R>(&self, f: impl FnOnce(&mut Shared) -> R) -> R {
        f(&mut self.hub.0.borrow_mut().lanes[self.index])
    }

    /// Orders faults.
    pub fn set(&self, faults: Faults) {
        self.with(|shared| shared.faults = faults);
    }

    /// Has the next poll report a connection as broken.
    pub fn break_now(&self, conn: ConnId) {
        self.with(|shared| {
            shared.broken.push(conn);
            shared.ring();
        });
    }

    /// Has the lane receive a frame that its peer's lane would not send.
    pub fn forge(&self, conn: ConnId, frame: Incoming) {
        self.with(|shared| {
            let key = shared.keys[&conn];
            shared.inbox.push_back((key, Message::Frame(frame)));
            shared.ring();
        });
    }

    /// Connections that are open in the lane.
    pub fn open(&self) -> usize {
        self.with(|shared| shared.open)
    }

    /// A connection that is open in the lane.
    pub fn any(&self) -> ConnId {
        self.with(|shared| *shared.keys.keys().next().unwrap())
    }

    fn to(&self, other: usize, key: u64, message: Message) {
        let lanes = &mut self.hub.0.borrow_mut().lanes;
        let lost = matches!(message, Message::Probe) && lanes[other].faults.lose_probes;
        if !lost {
            lanes[other].inbox.push_back((key, message));
            lanes[other].ring();
        }
    }
}

impl Shared {
    fn ring(&mut self) {
        if std::mem::take(&mut self.armed) {
            rustix::io::write(&self.wake, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

struct QueueLane {
    path: Path,
    version: LaneVersion,
    address: Vec<u8>,
    handle: Handle,
    /// By our key: the connection, and where its peer is.
    conns: BTreeMap<u64, (ConnId, Option<(usize, u64)>)>,
    /// What `flush` sends, and where to.
    outbox: Vec<(usize, u64, Message)>,
    stats: PathStats,
}

impl QueueLane {
    fn peer(&self, conn: ConnId) -> Option<(usize, u64)> {
        self.conns.values().find(|(id, _)| *id == conn)?.1
    }
}

impl Lane for QueueLane {
    fn path(&self) -> Path {
        self.path
    }

    fn version(&self) -> LaneVersion {
        self.version
    }

    fn address(&self) -> &[u8] {
        &self.address
    }

    fn open(&mut self, conn: ConnId) -> u64 {
        assert!(self.conns.values().all(|(id, _)| *id != conn), "{conn:?} opened twice");
        self.handle.with(|shared| shared.open += 1);
        let mut state = self.handle.hub.0.borrow_mut();
        state.keys += 1;
        let key = state.keys;
        self.conns.insert(key, (conn, None));
        state.lanes[self.handle.index].keys.insert(conn, key);
        key
    }

    fn attach(&mut self, conn: ConnId, address: &[u8], key: u64, _: Time) -> Result<(), String> {
        if let Some(why) = self.handle.with(|shared| shared.faults.attach.clone()) {
            return Err(why);
        }
        let text = std::str::from_utf8(address).ok().and_then(|text| text.strip_prefix("lane "));
        let other =
            text.and_then(|number| number.parse().ok()).ok_or("not an address of a lane")?;
        let found = self.conns.values_mut().find(|(id, _)| *id == conn);
        let (_, peer) = found.expect("attach comes after open");
        assert!(peer.replace((other, key)).is_none(), "attached twice");
        Ok(())
    }

    fn probe(&mut self, conn: ConnId, _: Time) {
        let (other, key) = self.peer(conn).expect("probe comes after attach");
        self.outbox.push((other, key, Message::Probe));
    }

    fn send(&mut self, conn: ConnId, frame: Outgoing, _: Time) {
        let Some((other, key)) = self.peer(conn) else { return };
        self.stats.frames_sent += 1;
        let Outgoing { kind, response, id, deadline_ms, body, mut payload } = frame;
        assert!(payload.len() <= 1, "the tests send one piece");
        let payload = payload.pop();
        let frame = Incoming { kind, response, id, deadline_ms, body, payload };
        self.outbox.push((other, key, Message::Frame(frame)));
    }

    fn is_drained(&mut self, _: ConnId) -> bool {
        assert!(self.outbox.is_empty(), "flushed before");
        !self.handle.with(|shared| shared.faults.never_drained)
    }

    fn close(&mut self, conn: ConnId) {
        let before = self.conns.len();
        self.conns.retain(|_, (id, _)| *id != conn);
        let gone = before - self.conns.len();
        self.handle.with(|shared| {
            shared.open -= gone;
            shared.keys.remove(&conn);
        });
    }

    fn poll(&mut self, _: Time, events: &mut Vec<LaneEvent>) -> bool {
        let before = events.len();
        let lags = self.handle.with(|shared| {
            let waits = !shared.inbox.is_empty() && shared.faults.lag > 0;
            shared.faults.lag -= usize::from(waits);
            waits
        });
        if lags {
            return true;
        }
        let (inbox, broken) = self.handle.with(|shared| {
            let _ = rustix::io::read(&shared.wake, &mut [0u8; 8]);
            (std::mem::take(&mut shared.inbox), std::mem::take(&mut shared.broken))
        });
        for (key, message) in inbox {
            let Some(&(conn, _)) = self.conns.get(&key) else { continue };
            match message {
                Message::Probe => events.push(LaneEvent::Probed { conn }),
                Message::Frame(frame) => {
                    self.stats.frames_received += 1;
                    events.push(LaneEvent::Received { conn, frame });
                }
            }
        }
        for conn in broken {
            self.close(conn);
            events.push(LaneEvent::Broken { conn, reason: CloseReason::Silent(4000) });
        }
        events.len() > before
    }

    fn flush(&mut self, _: Time) {
        for (other, key, message) in self.outbox.drain(..) {
            self.handle.to(other, key, message);
        }
    }

    fn next_deadline(&self) -> Time {
        Time::NEVER
    }

    fn prepare_sleep(&mut self) -> bool {
        self.handle.with(|shared| {
            shared.armed = shared.inbox.is_empty() && shared.broken.is_empty();
            shared.armed
        })
    }

    fn wake_fd(&self) -> RawFd {
        self.handle.with(|shared| shared.wake.as_raw_fd())
    }

    fn stats(&self) -> PathStats {
        self.stats
    }
}
