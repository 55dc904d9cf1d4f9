//! The gateway's loop: NBD clients on one side, a volume's client core for each export on the
//! other, and a control side that asks the metadata servers.
//!
//! ```text
//!   NBD clients <──> NbdServer ──VolumeOp──> Client ──frames──> NetTransport <──> shards
//!                        ^                     │
//!                        └──────completed──────┤
//!   control (Ask, from the loop) <─────────────┤
//!   control (Tell, to the loop) ───────────────┘
//! ```
#![allow(clippy::disallowed_methods)] // a shell: it knows the date, by which tokens end

use std::os::fd::RawFd;
use std::sync::mpsc;
use std::time::SystemTime;

use ogive_buf::Pool;
use ogive_client::{
    Client, ClientEffect, ClientOptions, LostReason, Topology, VolumeError, VolumeOutput,
    VolumeSpec,
};
use ogive_reactor::{PollMode, ReactorConfig, ReactorHandle, Work, queue};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::token::{Credential, Keyring, UnixSeconds};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::{Accept, TcpConfig};
use ogive_rpc::transport::usage::{PathUse, Usage, add_up};
use ogive_rpc::transport::{CloseReason, Event as NetEvent, PathChoice, Transport};
use ogive_types::{CopysetId, SegmentId, Time, VolumeId};

use crate::limits::{CONTROL_QUEUE, DRAIN_TIMEOUT, VOLUMES_MAX};
use crate::{ConnKey, Export, ExportId, ExportRequest, NbdConfig, NbdListen, NbdServer};

/// A volume to export.
#[derive(Clone, Debug)]
pub struct ServedVolume {
    /// Its name, which is that of the export too.
    pub name: String,
    /// The volume and the attachment under which it is served.
    pub spec: VolumeSpec,
    /// By which the session shows who it is, and checks the shards.
    pub credential: Credential,
    /// True when writes are refused.
    pub read_only: bool,
}

/// How to run a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where to listen.
    pub listen: Vec<NbdListen>,
    /// What to export; the first is also the default export.
    pub volumes: Vec<ServedVolume>,
    /// How patient I/O is.
    pub options: ClientOptions,
    /// Bytes of buffers.
    pub buffer_bytes: usize,
    /// How the loop waits.
    pub poll: PollMode,
    /// Core to pin the loop to; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// Drives the jitter of pauses.
    pub seed: u64,
    /// Which paths connections to shards may take.
    pub transport: PathChoice,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The thread or its queue cannot be made.
    #[error("cannot start the gateway's loop: {0}")]
    System(#[from] std::io::Error),
    /// What it serves, or where it listens, is not possible.
    #[error("cannot start the gateway: {0}")]
    Refused(String),
}

/// What the loop asks of the control side, and tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The copysets of a segment, allocated if need be; answered by [`Tell::Segment`].
    Segment {
        /// The segment.
        segment: SegmentId,
        /// Give it space if it has none.
        allocate: bool,
    },
    /// The topology; answered by [`Tell::Topology`].
    Topology,
    /// A volume's attachment is over; its I/O fails from now on.
    Lost {
        /// The volume.
        volume: VolumeId,
        /// Why.
        reason: LostReason,
    },
    /// What goes over each path for a volume; after [`Tell::Report`].
    Paths {
        /// The volume.
        volume: VolumeId,
        /// The best path first.
        paths: Vec<PathUse>,
    },
}

/// What the control side tells the loop.
#[derive(Clone, Debug)]
pub enum Tell {
    /// Where copysets live now.
    Topology(Topology),
    /// The copysets of a segment; `None` for one without space.
    Segment(SegmentId, Option<Vec<CopysetId>>),
    /// The metadata servers refuse to give space to a segment.
    SegmentRefused(SegmentId, VolumeError),
    /// A volume has another size.
    Resized(VolumeId, u64),
    /// The metadata servers ended a volume's attachment.
    Expired(VolumeId),
    /// A volume's session shows another token from now on.
    Credential(VolumeId, Credential),
    /// Say what goes over each path; answered by an [`Ask::Paths`] for each volume.
    Report,
    /// Take no more requests, finish those in flight, and end.
    Drain,
}

/// A running gateway.
pub struct Gateway {
    tell: queue::Sender<Tell>,
    listening: Vec<NbdListen>,
    reactor: ReactorHandle,
}

impl Gateway {
    /// Starts the loop. `ask` is called on its thread and must not block.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the system refuses a thread or a ring.
    pub fn start(
        config: GatewayConfig,
        ask: Box<dyn FnMut(Ask) + Send>,
    ) -> Result<Gateway, StartError> {
        let (tell, told) = queue::channel(CONTROL_QUEUE)?;
        let (ready, started) = mpsc::channel();
        let reactor = ReactorConfig { name: "nbd".into(), core: config.core, mode: config.poll };
        let make = move || {
            let service = Service::new(&config, told, ask)?;
            let listening = service.server.listening().map_err(|e| e.to_string())?;
            // The one who waits for it cannot have gone.
            let _ = ready.send(listening);
            Ok::<_, String>(service)
        };
        let reactor = ogive_reactor::spawn(reactor, make)?;
        match started.recv() {
            Ok(listening) => Ok(Gateway { tell, listening, reactor }),
            Err(_) => {
                let why = reactor.join().err().map_or("its loop ended".into(), |e| e.to_string());
                Err(StartError::Refused(why))
            }
        }
    }

    /// Where it listens, with the ports that were taken.
    pub fn listening(&self) -> &[NbdListen] {
        &self.listening
    }

    /// Tells the loop; false when it is too far behind to take it now, so that it must be told
    /// again.
    pub fn tell(&self, tell: Tell) -> bool {
        self.tell.try_send(tell).is_ok()
    }

    /// True while the loop runs.
    pub fn is_alive(&self) -> bool {
        !self.reactor.is_finished()
    }

    /// Waits for the end of the loop, which [`Tell::Drain`] brings about.
    ///
    /// # Errors
    /// Why it ended otherwise.
    pub fn join(self) -> Result<(), ogive_reactor::ReactorError> {
        self.reactor.join()
    }
}

/// One export: the client core of its volume, with a transport that says HELLO for its session.
struct Volume {
    client: Client,
    net: Net,
    pending: Pending,
}

/// The way of a volume's client to the shards, and what it says there.
struct Net {
    transport: NetTransport,
    hello: Hello,
    keyring: Keyring,
    usage: Usage,
}

impl Net {
    fn new(volume: &ServedVolume, choice: PathChoice, pool: &Pool) -> Result<Net, String> {
        let keyring = Keyring::default();
        keyring.set(volume.credential.key);
        let hello = Hello {
            cluster: volume.spec.cluster,
            identity: Identity::Client { session: volume.spec.session },
            features: 0,
            token: volume.credential.token.clone(),
            // Shards ask nothing of clients.
            credit_requests: 0,
            credit_bytes: 0,
        };
        let accept = Accept { shards: false, clients: false, token: keyring.check(today) };
        let tcp = TcpConfig { accept, ..TcpConfig::new(hello.clone(), pool.clone()) };
        let transport = NetTransport::new(NetConfig { tcp, choice }).map_err(|e| e.to_string())?;
        Ok(Net { transport, hello, keyring, usage: Usage::default() })
    }

    fn set_credential(&mut self, credential: Credential) {
        self.keyring.set(credential.key);
        self.hello.token = credential.token;
        self.transport.set_hello(self.hello.clone());
    }

    fn paths(&self) -> Vec<PathUse> {
        self.usage.by_path(&self.transport)
    }
}

/// The date by this machine's clock; the beginning of time when that is unset.
fn today() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since.map_or(0, |d| d.as_secs()))
}

/// Who waits for which operation of the client core. Tokens are places, used again when free.
#[derive(Default)]
struct Pending {
    waiting: Vec<Option<(ConnKey, u64)>>,
    free: Vec<usize>,
}

impl Pending {
    fn add(&mut self, key: ConnKey, token: u64) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        self.waiting[place] = Some((key, token));
        place as u64
    }

    fn take(&mut self, token: u64) -> (ConnKey, u64) {
        let place = usize::try_from(token).expect("a place of this table");
        self.free.push(place);
        self.waiting[place].take().expect("an operation completes once")
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.waiting.len()
    }
}

/// The work of the gateway's reactor.
struct Service {
    server: NbdServer,
    volumes: Vec<Volume>,
    told: queue::Receiver<Tell>,
    ask: Box<dyn FnMut(Ask) + Send>,
    /// Set once no more requests are taken: when to end at the latest.
    drain_until: Option<Time>,
    finished: bool,
    requests: Vec<(ConnKey, ExportRequest)>,
    net: Vec<NetEvent>,
    effects: Vec<ClientEffect>,
}

impl Service {
    fn new(
        config: &GatewayConfig,
        told: queue::Receiver<Tell>,
        ask: Box<dyn FnMut(Ask) + Send>,
    ) -> Result<Service, String> {
        if config.volumes.len() > VOLUMES_MAX {
            let count = config.volumes.len();
            return Err(format!(
                "{count} volumes are more than one gateway serves ({VOLUMES_MAX}); start another"
            ));
        }
        let pool = Pool::new(config.buffer_bytes);
        let mut volumes = Vec::new();
        for (number, volume) in (0u64..).zip(&config.volumes) {
            let net = Net::new(volume, config.transport, &pool)?;
            let seed = config.seed.wrapping_add(number);
            let options = config.options.clone();
            let client = Client::new(volume.spec.clone(), pool.clone(), options, seed);
            volumes.push(Volume { client, net, pending: Pending::default() });
        }
        let exports = config.volumes.iter().map(|v| Export {
            name: v.name.clone(),
            description: format!("Ogive volume {}", v.spec.volume),
            size_bytes: v.spec.size_bytes,
            read_only: v.read_only,
        });
        let nbd = NbdConfig { listen: config.listen.clone(), exports: exports.collect() };
        let server = NbdServer::new(nbd, pool).map_err(|e| e.to_string())?;
        Ok(Service {
            server,
            volumes,
            told,
            ask,
            drain_until: None,
            finished: false,
            requests: Vec::new(),
            net: Vec::new(),
            effects: Vec::new(),
        })
    }

    fn listen_to_control(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(tell) = self.told.try_recv() {
            any = true;
            match tell {
                Tell::Topology(topology) => {
                    self.volumes
                        .iter_mut()
                        .for_each(|v| v.client.on_topology(topology.clone(), now));
                }
                Tell::Segment(segment, copysets) => {
                    if let Some(v) = self.volume(segment.volume) {
                        v.client.on_segment(segment, copysets, now);
                    }
                }
                Tell::SegmentRefused(segment, error) => {
                    if let Some(v) = self.volume(segment.volume) {
                        v.client.on_segment_failed(segment, error, now);
                    }
                }
                Tell::Resized(volume, size_bytes) => self.resized(volume, size_bytes),
                Tell::Expired(volume) => {
                    if let Some(v) = self.volume(volume) {
                        v.client.on_session_expired();
                    }
                }
                Tell::Credential(volume, credential) => {
                    if let Some(v) = self.volume(volume) {
                        v.net.set_credential(credential);
                    }
                }
                Tell::Report => self.report(),
                // Told again and again until the loop ends: the first time counts.
                Tell::Drain => {
                    self.drain_until.get_or_insert(now + DRAIN_TIMEOUT);
                }
            }
        }
        any
    }

    fn volume(&mut self, id: VolumeId) -> Option<&mut Volume> {
        find(&mut self.volumes, id).map(|(_, volume)| volume)
    }

    fn resized(&mut self, volume: VolumeId, size_bytes: u64) {
        if let Some((export, v)) = find(&mut self.volumes, volume) {
            v.client.on_resize(size_bytes);
            self.server.resize(export, size_bytes);
        }
    }

    fn report(&mut self) {
        for v in &self.volumes {
            let (volume, paths) = (v.client.spec().volume, v.net.paths());
            (self.ask)(Ask::Paths { volume, paths });
        }
    }

    /// New requests of the NBD clients; none are looked at once the loop drains.
    fn take_requests(&mut self, now: Time) -> bool {
        if self.drain_until.is_some() {
            return false;
        }
        let any = self.server.poll(now, &mut self.requests);
        for (key, ExportRequest { export: ExportId(export), token, op }) in self.requests.drain(..)
        {
            let volume = &mut self.volumes[export];
            let token = volume.pending.add(key, token);
            volume.client.submit(token, op, now);
        }
        any
    }

    /// Lets a volume's client hear what came from the shards and do what it wants to.
    fn turn_volume(&mut self, number: usize, now: Time) -> bool {
        let volume = &mut self.volumes[number];
        let mut any = volume.net.transport.poll(now, &mut self.net);
        for event in self.net.drain(..) {
            volume.net.usage.note(&event);
            volume.client.on_event(event, now);
        }
        if now >= volume.client.next_deadline() {
            volume.client.tick(now);
            any = true;
        }
        volume.client.poll_effects(&mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        any |= !effects.is_empty();
        for effect in effects.drain(..) {
            self.perform(number, effect, now);
        }
        self.effects = effects;
        self.volumes[number].net.transport.flush(now);
        any
    }

    fn perform(&mut self, number: usize, effect: ClientEffect, now: Time) {
        let volume = &mut self.volumes[number];
        match effect {
            ClientEffect::Connect { peer, endpoint } => {
                let conn = volume.net.transport.connect(&endpoint, now);
                volume.client.connected(peer, conn);
            }
            ClientEffect::Send { conn, frame } => volume.net.transport.send(conn, frame, now),
            ClientEffect::Close { conn } => {
                volume.net.transport.close(conn, CloseReason::Local);
            }
            ClientEffect::NeedSegment { segment, allocate } => {
                (self.ask)(Ask::Segment { segment, allocate });
            }
            ClientEffect::NeedTopology => (self.ask)(Ask::Topology),
            ClientEffect::Completed { token, result } => self.complete(number, token, result),
            ClientEffect::SessionLost { reason } => {
                let volume = volume.client.spec().volume;
                (self.ask)(Ask::Lost { volume, reason });
            }
        }
    }

    fn complete(&mut self, number: usize, token: u64, result: Result<VolumeOutput, VolumeError>) {
        let (key, token) = self.volumes[number].pending.take(token);
        self.server.complete(key, token, result);
    }

    fn drain(&mut self, now: Time) {
        let Some(until) = self.drain_until else { return };
        let idle = self.volumes.iter().all(|v| v.pending.is_empty());
        if idle || now >= until {
            self.finished = true;
            self.log_paths();
        }
    }

    /// What went over each path in the life of this gateway, over all of its volumes.
    fn log_paths(&self) {
        let mut total = Vec::new();
        self.volumes.iter().for_each(|v| add_up(&mut total, &v.net.paths()));
        for PathUse { path, stats, .. } in total {
            tracing::info!(
                %path,
                frames_sent = stats.frames_sent,
                frames_received = stats.frames_received,
                bytes_sent = stats.bytes_sent,
                bytes_received = stats.bytes_received,
                copied_bytes = stats.copied_bytes,
                "what went over this path"
            );
        }
    }
}

/// A volume, and the export that it is.
fn find(volumes: &mut [Volume], id: VolumeId) -> Option<(ExportId, &mut Volume)> {
    let found = volumes.iter_mut().enumerate().find(|(_, v)| v.client.spec().volume == id);
    found.map(|(place, volume)| (ExportId(place), volume))
}

impl Work for Service {
    fn turn(&mut self, now: Time) -> bool {
        let mut any = self.listen_to_control(now);
        any |= self.take_requests(now);
        for number in 0..self.volumes.len() {
            any |= self.turn_volume(number, now);
        }
        if any {
            self.server.flush();
        }
        self.drain(now);
        any
    }

    fn next_deadline(&self) -> Time {
        let volumes = self
            .volumes
            .iter()
            .map(|v| v.client.next_deadline().min(v.net.transport.next_deadline()))
            .min();
        let server = match self.drain_until {
            None => self.server.next_deadline(),
            Some(until) => until,
        };
        volumes.unwrap_or(Time::NEVER).min(server)
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        let fixed = [self.server.wake_fd(), self.told.wake_fd()];
        fixed.into_iter().chain(self.volumes.iter().map(|v| v.net.transport.wake_fd())).collect()
    }

    fn prepare_sleep(&mut self) -> bool {
        let volumes = &mut self.volumes;
        volumes.iter_mut().all(|v| v.net.transport.prepare_sleep()) && self.told.prepare_sleep()
    }

    fn finished(&self) -> bool {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_empty_is_noticed() {
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        let key = ConnKey(1);
        let (a, b) = (pending.add(key, 10), pending.add(key, 11));
        assert_ne!(a, b);
        assert_eq!(pending.take(a), (key, 10));
        assert_eq!(pending.add(key, 12), a);
        assert!(!pending.is_empty());
        assert_eq!((pending.take(b), pending.take(a)), ((key, 11), (key, 12)));
        assert!(pending.is_empty());
    }
}
