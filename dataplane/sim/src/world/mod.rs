//! The world: shards, clients, network, disks and metadata on one agenda.
//!
//! - `shards`: processes of shards, their disks and turns;
//! - `clients`: the load, and what it is told;
//! - `clock`: the clocks of processes;
//! - `faults`: what goes wrong;
//! - `mistakes`: what an operator does wrong, and damage that only he can put right;
//! - `rot`: damage to what is stored;
//! - `lies`: known bugs, put in by an environment that lies;
//! - `invariants`: what must hold after each turn;
//! - `verdict`: what must hold in the end.

mod clients;
mod clock;
mod faults;
mod invariants;
mod lies;
mod mistakes;
mod rot;
mod shards;
mod verdict;

use std::collections::{BTreeMap, VecDeque};

use ogive_buf::Pool;
use ogive_client::Topology;
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::{Endpoint, Event as NetEvent};
use ogive_shard::limits::{CREDIT_BYTES, CREDIT_REQUESTS};
use ogive_types::{ChunkserverId, ClusterId, CopysetId, Epoch, Layout, ShardAddr, VolumeId};

use crate::agenda::Agenda;
use crate::fault::Fault;
use crate::limits::{EVENTS_MAX, HEAL_WITHIN_US, POOL_BYTES, TRACE_LINES};
use crate::model::Model;
use crate::net::{Arrival, Net, Party};
use crate::options::Options;
use crate::report::{Failure, Report};
use crate::rng::Rng;
use crate::shape::Shape;

use self::clients::SimClient;
use self::clock::Clock;
use self::invariants::History;
use self::shards::Server;

const CLUSTER: ClusterId = ClusterId(77);

/// Something on the agenda.
#[derive(Debug)]
pub(crate) enum What {
    Arrival(Arrival),
    /// A shard's loop runs.
    Turn(ShardAddr),
    /// A disk operation of a process (by its life) ends.
    DiskDone(ShardAddr, u32, ogive_store::OpId),
    /// A client's timers.
    ClientTick(u32),
    /// A client submits its next operation.
    ClientWork(u32),
    /// The metadata servers answer a client.
    Metadata(u32, clients::Question),
    /// Keep-alive of the connections.
    Sweep,
    /// The control plane repeats what belongs where.
    Heartbeat,
    Fault(Fault),
    /// A fault is over.
    Repair(faults::Repair),
}

/// A volume as the metadata servers know it.
struct Volume {
    epoch: Epoch,
    allocated: bool,
    model: Model,
    /// When an epoch was first served by a copyset.
    served: BTreeMap<(CopysetId, Epoch), u64>,
}

pub(crate) struct World {
    options: Options,
    shape: Shape,
    rng: Rng,
    now: u64,
    agenda: Agenda<What>,
    net: Net,
    servers: BTreeMap<u32, Server>,
    clients: BTreeMap<u32, SimClient>,
    next_client: u32,
    next_session: u64,
    next_write: u64,
    volumes: BTreeMap<VolumeId, Volume>,
    layout: Layout,
    topology: Topology,
    /// The copysets of each shard.
    here: BTreeMap<ShardAddr, Vec<CopysetId>>,
    /// The kinds of faults that happen, each with a generator of its own for its times, so that
    /// leaving one out does not move the others.
    faults: BTreeMap<Fault, Rng>,
    /// What a read shows is compared with what it may show.
    reads_are_strict: bool,
    /// A write that finds no space is a failure.
    space_must_do: bool,
    metadata_down: bool,
    history: History,
    /// Laps of each scrub when the faults ended.
    laps_at_heal: BTreeMap<ShardAddr, u64>,
    /// For what the network makes of a message.
    pool: Pool,
    /// Load goes on and faults happen.
    chaos: bool,
    report: Report,
    failure: Option<String>,
    lines: VecDeque<String>,
    digest: u64,
}

impl World {
    pub(crate) fn new(options: Options) -> World {
        let (shape, mut rng) = clock::draw(options);
        let net = Net::new(shape.delays, rng.fork());
        let mut world = World {
            layout: layout(&shape),
            topology: topology(&shape, &mut rng),
            here: BTreeMap::new(),
            faults: BTreeMap::new(),
            reads_are_strict: !shape.clocks.loose,
            space_must_do: false,
            options,
            shape,
            rng,
            now: 1_000_000,
            agenda: Agenda::new(),
            net,
            servers: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            next_session: 1,
            next_write: 1,
            volumes: BTreeMap::new(),
            metadata_down: false,
            history: History::default(),
            laps_at_heal: BTreeMap::new(),
            pool: Pool::new(POOL_BYTES),
            chaos: true,
            report: Report::default(),
            failure: None,
            lines: VecDeque::new(),
            digest: options.seed,
        };
        world.trace(|w| format!("{:?}", w.shape));
        world.build();
        world
    }

    fn build(&mut self) {
        for (&id, members) in &self.topology.copysets {
            members.iter().for_each(|&addr| self.here.entry(addr).or_default().push(id));
        }
        for id in 1..=self.shape.servers {
            let server = Server::format(id, &self.shape, &mut self.rng);
            self.servers.insert(id, server);
            self.start_server(id);
        }
        for volume in (1..=self.shape.volumes).map(VolumeId) {
            let allocated = self.shape.allocated;
            let model = Model::default();
            let served = BTreeMap::new();
            self.volumes.insert(volume, Volume { epoch: Epoch(0), allocated, model, served });
            self.attach(volume);
        }
        self.agenda.add(self.now + 500_000, What::Sweep);
        self.agenda.add(self.now + 700_000, What::Heartbeat);
        if self.options.faults {
            self.plan_faults();
        }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Report, Failure> {
        let begin = self.now;
        let chaos_end = begin + self.options.chaos_us;
        self.run_until(chaos_end, |_| false);
        self.trace(|_| "--- all faults stop".to_owned());
        self.heal();
        let deadline = self.now + HEAL_WITHIN_US;
        self.run_until(deadline, World::is_well);
        self.note_laps();
        self.run_until(deadline, World::is_healthy);
        if self.stays_full() {
            return self.finish(begin);
        }
        self.must_be_healthy();
        self.use_space_again();
        self.reads_are_strict = true;
        // A run that has failed ends before the faults do.
        self.report.heal_us_max = self.now.saturating_sub(chaos_end);
        self.read_everything();
        self.compare_replicas();
        self.check_disks();
        self.finish(begin)
    }

    fn finish(mut self, begin: u64) -> Result<Report, Failure> {
        self.report.seeds = 1;
        self.report.simulated_us = self.now - begin;
        self.report.connections = self.net.counters.links;
        self.report.frames = self.net.counters.frames;
        self.report.late_frames = self.net.counters.late_frames;
        self.report.duplicates = self.net.counters.duplicates;
        self.report.cells_checked = self.volumes.values().map(|v| v.model.checked).sum();
        self.report.digest = self.digest;
        match self.failure.take() {
            None => Ok(self.report),
            Some(what) => Err(Failure {
                seed: self.options.seed,
                at_us: self.now - begin,
                what,
                trace: self.lines.into(),
            }),
        }
    }

    fn run_until(&mut self, deadline: u64, done: impl Fn(&World) -> bool) {
        while self.failure.is_none() && self.now < deadline && !done(self) {
            self.route();
            let Some((at, what)) = self.agenda.next() else { break };
            if at > deadline {
                self.agenda.add(at, what);
                self.now = deadline;
                break;
            }
            assert!(at >= self.now, "time never goes back");
            self.now = at;
            self.report.events += 1;
            if self.report.events > EVENTS_MAX {
                self.fail("the simulation does not end: somebody acts without letting time pass");
            }
            self.happen(what);
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrival(arrival) => self.net.arrive(arrival, self.now),
            What::Turn(addr) => self.turn(addr),
            What::DiskDone(addr, life, id) => self.disk_done(addr, life, id),
            What::ClientTick(id) => self.client_tick(id),
            What::ClientWork(id) => self.client_work(id),
            What::Metadata(id, question) => self.metadata_answer(id, question),
            What::Sweep => {
                self.net.sweep(self.now);
                self.agenda.add(self.now + 500_000, What::Sweep);
            }
            What::Heartbeat => {
                self.heartbeat();
                self.agenda.add(self.now + 1_000_000, What::Heartbeat);
            }
            What::Fault(fault) => self.fault(fault),
            What::Repair(repair) => self.repair(repair),
        }
    }

    /// Hands out what the network brought.
    fn route(&mut self) {
        while !self.net.events.is_empty() {
            for (party, event) in std::mem::take(&mut self.net.events) {
                match party {
                    Party::Shard(addr) => self.shard_hears(addr, event),
                    Party::Client(id) => self.client_hears(id, event),
                }
            }
        }
        for (at, arrival) in std::mem::take(&mut self.net.arrivals) {
            self.agenda.add(at, What::Arrival(arrival));
        }
    }

    fn fail(&mut self, what: impl Into<String>) {
        if self.failure.is_none() {
            let what = what.into();
            self.trace(|_| format!("FAILED: {what}"));
            self.failure = Some(what);
        }
    }

    /// Notes a line for people; made only when somebody may read it.
    fn trace(&mut self, line: impl FnOnce(&World) -> String) {
        if !self.options.trace {
            return;
        }
        let line = format!("{:>11.6} {}", self.now as f64 / 1e6, line(self));
        eprintln!("{line}");
        if self.lines.len() == TRACE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Folds something into the digest, by which two runs are compared.
    fn note(&mut self, what: u64) {
        self.digest = (self.digest ^ what ^ self.now).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }

    /// The copyset that holds a chunk; all copysets share each segment.
    fn copyset_of(&self, chunk: ogive_types::ChunkId) -> CopysetId {
        let slot = ogive_types::layout::copyset_slot(chunk, self.shape.copysets as usize);
        CopysetId(slot as u32 + 1)
    }

    fn copysets(&self) -> Vec<CopysetId> {
        self.topology.copysets.keys().copied().collect()
    }
}

/// Stripes that spread neighbouring blocks over the chunks.
fn layout(shape: &Shape) -> Layout {
    match shape.chunks {
        1 => Layout::default(),
        2..=4 => Layout::new(64 << 10, 4).expect("a valid layout"),
        _ => Layout::new(64 << 10, 32).expect("a valid layout"),
    }
}

fn topology(shape: &Shape, rng: &mut Rng) -> Topology {
    let mut topology = Topology::default();
    for server in (1..=shape.servers).map(ChunkserverId) {
        for shard in 0..shape.shards {
            let text = format!("tcp:10.0.0.{}:{}", server.0, 7000 + shard);
            topology.endpoints.insert(ShardAddr { server, shard }, Endpoint(text));
        }
    }
    for copyset in 1..=shape.copysets {
        let mut servers: Vec<u32> = (1..=shape.servers).collect();
        let member = |_| {
            let server = servers.swap_remove(rng.below(servers.len() as u64) as usize);
            let shard = rng.below(u64::from(shape.shards)) as u16;
            ShardAddr { server: ChunkserverId(server), shard }
        };
        topology.copysets.insert(CopysetId(copyset), (0..shape.replicas).map(member).collect());
    }
    topology
}

fn hello(identity: Identity) -> Hello {
    Hello {
        cluster: CLUSTER,
        identity,
        features: 0,
        token: Vec::new(),
        credit_requests: CREDIT_REQUESTS,
        credit_bytes: CREDIT_BYTES,
    }
}

/// One line about a network event.
fn short(event: &NetEvent) -> String {
    match event {
        NetEvent::Connected { conn, inbound, .. } => format!("up {} inbound {inbound}", conn.0),
        NetEvent::Closed { conn, reason } => format!("closed {} {reason}", conn.0),
        NetEvent::Received { conn, frame } => {
            let way = if frame.response { "response" } else { "request" };
            format!("{way} {} on {}: {}", frame.id, conn.0, lies::describe(frame))
        }
    }
}
