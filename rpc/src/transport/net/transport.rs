//! The connections of one owner, over all paths.
//!
//! TCP knows every connection from its beginning to its end and gives it its id. Here is decided
//! which path its frames take ([`super::negotiate`] decides, this file does), and what TCP and the
//! lanes report becomes what the owner sees.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use ogive_types::Time;

use super::assess::{LANE_PATHS, Own};
use super::avoid::Avoided;
use super::config::{NetConfig, NetError};
use super::conn::{Conn, told};
use super::lanes::{Lanes, Missing, lanes};
use super::negotiate::{Effect, Input, Negotiation, Plan, Role};
use super::pace::Pace;
use super::wake::Wake;
use super::{host, stats::NetStats};
use crate::frame::{FrameError, KIND_PATH, KIND_UPPER_MIN};
use crate::hello::Hello;
use crate::limits::{LANE_PARTS_WITHIN, PATH_PATIENCE};
use crate::offer::Offer;
use crate::path_frame::PathFrame;
use crate::requests::ConnHasher;
use crate::transport::lane::{Lane, LaneEvent};
use crate::transport::tcp::{Paths, TcpTransport};
use crate::transport::{
    CloseReason, ConnId, Endpoint, Event, Incoming, Outgoing, Path, PathChoice, Transport,
};

/// Connections over all paths, in both directions, of one thread.
///
/// `Connected` is reported when the path is chosen and proved. As with TCP, an inbound connection
/// that never gets that far is logged and not reported.
pub struct NetTransport {
    tcp: TcpTransport,
    own: Rc<Own>,
    lanes: Lanes,
    conns: HashMap<ConnId, Conn, ConnHasher>,
    /// What the endpoints of connections announce whose HELLOs are not done.
    announced: HashMap<ConnId, [bool; LANE_PATHS.len()], ConnHasher>,
    avoided: Avoided,
    pace: Pace,
    /// `None` without lanes: TCP's own descriptor does.
    wake: Option<Wake>,
    /// Connections that the owner closed, whose lane still has something to deliver, and until
    /// when.
    parting: Vec<(ConnId, Time)>,
    /// No time-out of a negotiation lies before this.
    next_timeout: Time,
    /// Probes or PATH frames wait to be flushed.
    said: bool,
    /// The latest `now` that was given.
    now: Time,
    tcp_events: Vec<Event>,
    lane_events: Vec<LaneEvent>,
    chosen: [u64; Path::ALL.len()],
    /// Connections whose frames go over TCP now.
    over_tcp: usize,
}

impl NetTransport {
    /// Starts all paths that the configuration allows. The errors say what to do.
    pub fn new(config: NetConfig) -> Result<NetTransport, NetError> {
        let lanes = lanes(config.choice, &config.tcp);
        NetTransport::with_lanes(config, lanes, host::name())
    }

    /// Like `new`, with lanes that the caller made, at most one of a path. `host` is equal at two
    /// ends that can share memory; an `Err` says why this one cannot.
    pub fn with_lanes(
        config: NetConfig,
        lanes: Vec<Result<Box<dyn Lane>, Missing>>,
        host: Result<u128, String>,
    ) -> Result<NetTransport, NetError> {
        let NetConfig { tcp, choice } = config;
        let (lanes, own) = Lanes::start(lanes, choice, host)?;
        let own = Rc::new(own);
        let mut tcp = TcpTransport::new(tcp)?;
        let judge = Rc::clone(&own);
        let check = Box::new(move |theirs: &[Offer]| judge.demand(theirs));
        tcp.set_paths(Paths { offers: own.offers.clone(), check });
        let wake = if lanes.is_empty() {
            None
        } else {
            let fds = lanes.wake_fds().chain([tcp.wake_fd()]);
            Some(Wake::new(fds).map_err(NetError::System)?)
        };
        Ok(NetTransport {
            tcp,
            own,
            lanes,
            conns: HashMap::default(),
            announced: HashMap::default(),
            avoided: Avoided::default(),
            pace: Pace::default(),
            wake,
            parting: Vec::new(),
            next_timeout: Time::NEVER,
            said: false,
            now: Time(0),
            tcp_events: Vec::new(),
            lane_events: Vec::new(),
            chosen: [0; Path::ALL.len()],
            over_tcp: 0,
        })
    }

    /// Where it listens and what it offers there, with the ports that the system chose.
    pub fn local_endpoints(&self) -> Vec<Endpoint> {
        let offered = self.own.offers.iter().filter_map(Offer::path);
        let tcp = self.own.choice.allows(Path::Tcp).then_some(Path::Tcp);
        let paths: Vec<Path> = offered.chain(tcp).collect();
        let addr = |endpoint: Endpoint| endpoint.addr().expect("TCP listens at an address");
        let endpoints = self.tcp.local_endpoints().into_iter();
        endpoints.map(|endpoint| Endpoint::new(&paths, addr(endpoint))).collect()
    }

    /// Replaces what we say of ourselves, for HELLOs sent from now on.
    pub fn set_hello(&mut self, hello: Hello) {
        self.tcp.set_hello(hello);
    }

    /// Counters.
    pub fn stats(&self) -> NetStats {
        NetStats {
            tcp: self.tcp.stats(),
            lanes: self.lanes.stats(),
            chosen: Path::ALL.map(|path| (path, self.chosen[path as usize])),
        }
    }

    /// Connections now, in all states and both directions.
    pub fn connections(&self) -> usize {
        self.tcp.connections()
    }

    /// The address of the other end.
    pub fn peer_addr(&self, conn: ConnId) -> Option<SocketAddr> {
        self.tcp.peer_addr(conn)
    }

    /// The path that the frames of a connection take; `None` before `Connected` was reported, and
    /// once it is closed.
    pub fn path(&self, conn: ConnId) -> Option<Path> {
        self.conns.get(&conn)?.up
    }

    /// The paths that are better than the one of a connection, and why they are not taken.
    pub fn passed_over(&self, conn: ConnId) -> &[(Path, String)] {
        self.conns.get(&conn).map_or(&[], |conn| &conn.passed_over)
    }

    /// Paths that are not offered at all, and why.
    pub fn missing(&self) -> &[Missing] {
        &self.own.missing
    }

    /// Both HELLOs are done.
    fn greeted(&mut self, id: ConnId, peer: Hello, inbound: bool, events: &mut Vec<Event>) {
        if self.tcp.peer_addr(id).is_none() && !self.own.offers.is_empty() {
            // It ended in the same poll, and what it offered is not known any more: there is
            // nothing to agree on, and TCP must not be what a demanded path becomes.
            return;
        }
        let announced = self.announced.remove(&id).unwrap_or([true; LANE_PATHS.len()]);
        let theirs = self.tcp.offers(id).to_vec();
        let addr = self.tcp.peer_addr(id);
        let mut effects = Vec::new();
        let talk = (!self.own.offers.is_empty() && !theirs.is_empty()).then(|| {
            let role = if inbound { Role::Acceptor } else { Role::Connector };
            let plans = LANE_PATHS.map(|path| {
                let announced = inbound || announced[path as usize];
                self.plan(path, &theirs, addr.filter(|_| !inbound), announced)
            });
            Negotiation::new(role, self.own.choice, plans, self.now, &mut effects)
        });
        let stays = talk.is_none();
        let old = self.conns.insert(id, Conn::new(addr, inbound, peer, talk));
        assert!(old.is_none(), "{id:?} greeted twice");
        if stays {
            return self.up(id, Path::Tcp, &theirs, events);
        }
        self.perform(id, effects, events);
        self.note_deadline(id);
    }

    fn plan(
        &self,
        path: Path,
        theirs: &[Offer],
        avoid: Option<SocketAddr>,
        announced: bool,
    ) -> Plan {
        if let Err(why) = self.own.assess(path, theirs) {
            return Plan::Cannot(why);
        }
        if self.own.choice != PathChoice::Auto {
            return Plan::Try;
        }
        if !announced {
            return Plan::Skip("the endpoint does not announce it".into());
        }
        match avoid.map_or(Ok(()), |addr| self.avoided.check(addr, path, self.now)) {
            Ok(()) => Plan::Try,
            Err(why) => Plan::Skip(why),
        }
    }

    /// Reports a connection whose path is chosen.
    fn up(&mut self, id: ConnId, path: Path, theirs: &[Offer], events: &mut Vec<Event>) {
        let conn = self.conns.get_mut(&id).expect("only known connections come up");
        let peer = conn.settle(path, &self.own, theirs);
        conn.log(&peer);
        if path != Path::Tcp {
            // The lane keeps it alive, and TCP need not.
            self.tcp.rest(id);
        }
        self.chosen[path as usize] += 1;
        self.over_tcp += usize::from(path == Path::Tcp);
        events.push(Event::Connected { conn: id, peer, inbound: conn.inbound });
    }

    /// Gives what happened to the state machine of a connection, and does what it says.
    fn feed(&mut self, id: ConnId, input: Input, events: &mut Vec<Event>) {
        let talk = self.conns.get_mut(&id).and_then(|conn| conn.talk.as_mut());
        let Some(talk) = talk else { return };
        let mut effects = Vec::new();
        talk.on(input, self.now, &mut effects);
        self.perform(id, effects, events);
        self.note_deadline(id);
    }

    fn perform(&mut self, id: ConnId, mut effects: Vec<Effect>, events: &mut Vec<Event>) {
        while !effects.is_empty() {
            // Attaching gives new effects, which come behind those that are left.
            for effect in std::mem::take(&mut effects) {
                if let Some(input) = self.carry_out(id, effect, events) {
                    let talk = self.conns.get_mut(&id).and_then(|conn| conn.talk.as_mut());
                    let talk = talk.expect("it gave this effect");
                    talk.on(input, self.now, &mut effects);
                }
            }
        }
    }

    /// Does one thing; what came of it, if that is not certain.
    fn carry_out(&mut self, id: ConnId, effect: Effect, events: &mut Vec<Event>) -> Option<Input> {
        match effect {
            Effect::Propose(path) => {
                let (address, key) = self.open_lane(id, path);
                self.say(id, &PathFrame::Propose { path, address, key });
            }
            Effect::Attach { path, address, key } => {
                return Some(self.attach(id, path, &address, key));
            }
            Effect::Accept(path) => {
                let (address, key) = self.open_lane(id, path);
                self.say(id, &PathFrame::Accept { path, address, key });
            }
            Effect::Probe(path) => {
                self.lanes.get(path).probe(id, self.now);
                self.said = true;
            }
            Effect::Decline { path, why } => self.say(id, &PathFrame::decline(path, &why)),
            Effect::Use(path) => self.say(id, &PathFrame::Use { path }),
            Effect::Drop(_) => self.drop_lane(id),
            Effect::Failed { path, why } => {
                if let Some(addr) = self.conns.get(&id).and_then(|conn| conn.addr) {
                    tracing::warn!(peer = %addr, %path, why, "path failed");
                    self.avoided.failed(addr, path, &why, self.now);
                }
            }
            Effect::Connected(path) => {
                let theirs = self.tcp.offers(id).to_vec();
                self.up(id, path, &theirs, events);
            }
            Effect::Close(reason) => self.end(id, reason),
        }
        None
    }

    /// How the peer reaches our lane for a connection, which is opened there unless it is already.
    fn open_lane(&mut self, id: ConnId, path: Path) -> (Vec<u8>, u64) {
        let conn = self.conns.get_mut(&id).expect("only known connections have lanes");
        let (open, key) = *conn.lane.get_or_insert_with(|| (path, self.lanes.open(path, id)));
        assert_eq!(open, path, "one lane at a time");
        (self.lanes.get(path).address().to_vec(), key)
    }

    fn attach(&mut self, id: ConnId, path: Path, address: &[u8], key: u64) -> Input {
        self.open_lane(id, path);
        match self.lanes.get(path).attach(id, address, key, self.now) {
            Ok(()) => Input::Attached,
            Err(why) => Input::Failed { path, reason: CloseReason::System(why) },
        }
    }

    fn drop_lane(&mut self, id: ConnId) {
        let lane = self.conns.get_mut(&id).and_then(|conn| conn.lane.take());
        if let Some((path, _)) = lane {
            self.lanes.close(path, id);
        }
    }

    fn say(&mut self, id: ConnId, frame: &PathFrame) {
        self.pace.expect();
        self.tcp.send_path(id, frame.encode());
        self.said = true;
    }

    /// From now on no path is used for the frames of a connection.
    fn down(&mut self, id: ConnId) {
        let up = self.conns.get_mut(&id).and_then(|conn| conn.up.take());
        self.over_tcp -= usize::from(up == Some(Path::Tcp));
    }

    /// Ends a connection from this side; TCP reports it.
    fn end(&mut self, id: ConnId, reason: CloseReason) {
        self.drop_lane(id);
        self.down(id);
        if let Some(conn) = self.conns.get_mut(&id) {
            (conn.talk, conn.ended) = (None, Some(reason.clone()));
        }
        self.tcp.close_telling(id, told(&reason), reason);
    }

    /// Ends the connections that the owner closed, once what it had sent has arrived.
    fn part(&mut self) {
        let mut parting = std::mem::take(&mut self.parting);
        parting.retain(|&(id, until)| {
            let Some(conn) = self.conns.get(&id) else { return false };
            let drained = conn.lane.is_none_or(|(path, _)| self.lanes.get(path).is_drained(id));
            if drained || until <= self.now {
                self.drop_lane(id);
                self.tcp.close(id, CloseReason::Local);
            }
            !drained && until > self.now
        });
        self.parting = parting;
    }

    fn note_deadline(&mut self, id: ConnId) {
        let talk = self.conns.get(&id).and_then(|conn| conn.talk.as_ref());
        let deadline = talk.map_or(Time::NEVER, Negotiation::deadline);
        self.next_timeout = self.next_timeout.min(deadline);
    }

    fn time_out(&mut self, events: &mut Vec<Event>) {
        let deadline = |conn: &Conn| conn.talk.as_ref().map_or(Time::NEVER, |t| t.deadline());
        let due = self.conns.iter().filter(|(_, conn)| deadline(conn) <= self.now);
        let mut due: Vec<ConnId> = due.map(|(&id, _)| id).collect();
        due.sort_unstable();
        for id in due {
            self.feed(id, Input::Timeout, events);
        }
        self.next_timeout = self.conns.values().map(deadline).min().unwrap_or(Time::NEVER);
    }

    /// What TCP reports becomes what the owner sees.
    fn on_tcp(&mut self, event: Event, events: &mut Vec<Event>) {
        match event {
            Event::Connected { conn, peer, inbound } => self.greeted(conn, peer, inbound, events),
            Event::Received { conn, frame } if frame.kind == KIND_PATH => {
                match PathFrame::decode(&frame.body) {
                    Ok(frame) => self.feed(conn, Input::Frame(frame), events),
                    Err(e) => self.end(conn, CloseReason::Protocol(format!("PATH: {e}"))),
                }
            }
            Event::Received { conn, frame } => self.received(conn, Path::Tcp, frame, events),
            Event::Closed { conn, reason } => {
                self.drop_lane(conn);
                self.down(conn);
                let outbound = self.announced.remove(&conn).is_some();
                let old = self.conns.remove(&conn);
                if old.as_ref().map_or(outbound, Conn::is_known_to_owner) {
                    let reason = old.and_then(|old| old.ended).unwrap_or(reason);
                    events.push(Event::Closed { conn, reason });
                }
            }
        }
    }

    fn on_lane(&mut self, path: Path, event: LaneEvent, events: &mut Vec<Event>) {
        match event {
            LaneEvent::Received { conn, frame } => self.received(conn, path, frame, events),
            LaneEvent::Probed { conn } => self.feed(conn, Input::Probed { path }, events),
            LaneEvent::Broken { conn, reason } => {
                self.feed(conn, Input::Failed { path, reason }, events);
            }
        }
    }

    /// A frame that came over `path`: for the owner, if that is the path of its connection.
    fn received(&mut self, id: ConnId, path: Path, frame: Incoming, events: &mut Vec<Event>) {
        if self.path(id) != Some(path) {
            self.feed(id, Input::Traffic { path }, events);
            if self.path(id) != Some(path) {
                return;
            }
        }
        if frame.kind < KIND_UPPER_MIN {
            return self.end(id, FrameError::OutOfTurn(frame.kind).into());
        }
        events.push(Event::Received { conn: id, frame });
    }

    fn poll_lane(&mut self, index: usize, events: &mut Vec<Event>) -> bool {
        let mut found = std::mem::take(&mut self.lane_events);
        let lane = self.lanes.at(index);
        let path = lane.path();
        let progress = lane.poll(self.now, &mut found);
        for event in found.drain(..) {
            self.on_lane(path, event, events);
        }
        self.lane_events = found;
        progress
    }

    fn poll_tcp(&mut self, events: &mut Vec<Event>) -> bool {
        let mut found = std::mem::take(&mut self.tcp_events);
        let progress = self.tcp.poll(self.now, &mut found);
        self.pace.answered(progress);
        for event in &found {
            if let Event::Closed { conn, .. } = event {
                self.drain(*conn, events);
            }
        }
        for event in found.drain(..) {
            self.on_tcp(event, events);
        }
        self.tcp_events = found;
        progress
    }

    /// TCP has ended: what the peer sent before over the lane is still taken.
    fn drain(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let lane = self.conns.get(&id).and_then(|conn| conn.lane);
        let Some(index) = lane.and_then(|(path, _)| self.lanes.index_of(path)) else { return };
        for _ in 0..crate::limits::LANE_DRAIN_POLLS {
            if !self.poll_lane(index, events) {
                break;
            }
        }
    }

    /// Without lanes there is nothing to decide: TCP's events are the owner's.
    fn poll_tcp_alone(&mut self, events: &mut Vec<Event>) -> bool {
        let before = events.len();
        let progress = self.tcp.poll(self.now, events);
        for event in &events[before..] {
            match event {
                Event::Connected { conn: id, peer, inbound } => {
                    let (addr, theirs) = (self.tcp.peer_addr(*id), self.tcp.offers(*id));
                    let mut conn = Conn::new(addr, *inbound, peer.clone(), None);
                    let peer = conn.settle(Path::Tcp, &self.own, theirs);
                    conn.log(&peer);
                    self.chosen[Path::Tcp as usize] += 1;
                    self.over_tcp += 1;
                    self.conns.insert(*id, conn);
                }
                Event::Closed { conn, .. } => {
                    let up = self.conns.remove(conn).and_then(|conn| conn.up);
                    self.over_tcp -= usize::from(up == Some(Path::Tcp));
                }
                Event::Received { .. } => {}
            }
        }
        progress
    }
}

impl Transport for NetTransport {
    fn connect(&mut self, to: &Endpoint, now: Time) -> ConnId {
        self.now = self.now.max(now);
        let id = self.tcp.connect(to, now);
        if !self.lanes.is_empty() {
            self.pace.expect();
            let paths = to.paths().unwrap_or_default();
            self.announced.insert(id, LANE_PATHS.map(|path| paths.contains(&path)));
        }
        id
    }

    fn send(&mut self, conn: ConnId, frame: Outgoing, now: Time) {
        self.now = self.now.max(now);
        match self.path(conn) {
            Some(Path::Tcp) => {
                self.pace.expect();
                self.tcp.send(conn, frame, now);
            }
            Some(path) => {
                assert!(frame.kind >= KIND_UPPER_MIN, "kind {} is the transport's", frame.kind);
                self.lanes.get(path).send(conn, frame, now);
            }
            None => {}
        }
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(known) = self.conns.get_mut(&conn) else {
            return self.tcp.close(conn, reason);
        };
        if let Some((path, since)) = known.talk.as_ref().and_then(Negotiation::trying)
            && let Some(addr) = known.addr
            && self.now.since(since) >= PATH_PATIENCE
        {
            // An owner who waits for less long than the path may take would never come to the
            // next one.
            let ms = self.now.since(since).as_millis();
            let why = format!("not proved in the {ms} ms that its owner waited");
            tracing::warn!(peer = %addr, %path, why, "path failed");
            self.avoided.failed(addr, path, &why, self.now);
        }
        (known.talk, known.ended) = (None, Some(reason.clone()));
        // As over TCP, what was sent before an end without a fault arrives.
        let up = known.up.take();
        self.over_tcp -= usize::from(up == Some(Path::Tcp));
        let in_order = up.is_some() && reason == CloseReason::Local;
        if let Some((path, _)) = known.lane.filter(|_| in_order) {
            let lane = self.lanes.get(path);
            lane.flush(self.now);
            if !lane.is_drained(conn) {
                return self.parting.push((conn, self.now + LANE_PARTS_WITHIN));
            }
        }
        self.drop_lane(conn);
        self.tcp.close(conn, reason);
    }

    fn poll(&mut self, now: Time, events: &mut Vec<Event>) -> bool {
        self.now = self.now.max(now);
        if self.lanes.is_empty() {
            return self.poll_tcp_alone(events);
        }
        let before = events.len();
        let ask =
            self.pace.ask(self.now, self.over_tcp > 0) || self.tcp.next_deadline() <= self.now;
        let mut progress = false;
        for index in 0..self.lanes.len() {
            if ask || self.lanes.is_wanted(index, self.now) {
                progress |= self.poll_lane(index, events);
            }
        }
        if ask {
            progress |= self.poll_tcp(events);
        }
        if !self.parting.is_empty() {
            self.part();
        }
        if self.now >= self.next_timeout {
            self.time_out(events);
        }
        if std::mem::take(&mut self.said) {
            self.flush(self.now);
        }
        progress || events.len() > before
    }

    fn flush(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.lanes.flush(now);
        self.tcp.flush(now);
    }

    fn next_deadline(&self) -> Time {
        let part = self.parting.iter().map(|&(_, until)| until).min().unwrap_or(Time::NEVER);
        self.tcp.next_deadline().min(self.lanes.next_deadline()).min(self.next_timeout).min(part)
    }

    fn prepare_sleep(&mut self) -> bool {
        self.pace.slept();
        self.lanes.prepare_sleep()
    }

    fn wake_fd(&self) -> RawFd {
        self.wake.as_ref().map_or_else(|| self.tcp.wake_fd(), AsRawFd::as_raw_fd)
    }
}
