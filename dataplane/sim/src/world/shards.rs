//! Processes of shards: their disks, their turns, their deaths and returns.

use std::collections::{BTreeMap, BTreeSet};

use ogive_buf::Pool;
use ogive_copyset::Timing;
use ogive_rpc::hello::Identity;
use ogive_rpc::transport::Event as NetEvent;
use ogive_shard::{Admin, Effect, Event, ReplicaSpec, Shard, ShardOptions};
use ogive_store::simdisk::SimDisk;
use ogive_store::{
    DiskDone, DiskOp, FormatOptions, Label, OpId, OpenError, Store, StoreOptions, format,
    write_identity,
};
use ogive_types::{ChunkId, ChunkserverId, CopysetId, Index, ShardAddr};

use super::clock::Clock;
use super::mistakes::LogHarm;
use super::{CLUSTER, What, World, hello, short};
use crate::limits::{LOG_BYTES, POOL_BYTES};
use crate::net::Party;
use crate::options::Mutant;
use crate::rng::Rng;
use crate::shape::Shape;

/// A chunkserver. Each of its shards has a simulated disk for its region, so that operations of
/// two shards cannot have the same name; they lose their power together.
pub(crate) struct Server {
    pub(crate) label: Label,
    pub(crate) slots: BTreeMap<u16, Slot>,
    pub(crate) up: bool,
    pub(crate) disk_factor: u64,
    pub(crate) paused_until: u64,
}

/// The place of a shard: its disk, and its process while it runs.
pub(crate) struct Slot {
    pub(crate) disk: SimDisk,
    pub(crate) process: Option<Process>,
    /// Counts the processes.
    pub(crate) life: u32,
    /// What was applied when the process began.
    pub(crate) sure: BTreeMap<CopysetId, Index>,
    /// Blocks that were damaged since.
    pub(crate) harmed: BTreeSet<(CopysetId, ChunkId, u16)>,
    /// Damage to its log, on the way.
    pub(crate) log_harm: LogHarm,
}

pub(crate) struct Process {
    pub(crate) shard: Shard,
    pub(crate) clock: Clock,
    inbox: Vec<Event>,
    /// Flushes that a lying disk will report.
    lies: Vec<OpId>,
    turn_at: u64,
}

impl Server {
    pub(crate) fn format(id: u32, shape: &Shape, rng: &mut Rng) -> Server {
        let sector = rng.pick(&[512, 4096]);
        let options = FormatOptions {
            shards: shape.shards,
            sector,
            log_bytes: Some(LOG_BYTES),
            uuid: uuid::Uuid::from_u64_pair(rng.next(), u64::from(id)),
            force: false,
            quick: true,
        };
        let make = || {
            let mut disk = SimDisk::new(shape.device_bytes * u64::from(shape.shards), sector);
            format(&mut disk, &options, &mut |_, _| ()).expect("a new disk can be formatted");
            write_identity(&mut disk, CLUSTER, ChunkserverId(id)).expect("and named");
            disk.set_volatile_cache(shape.volatile_cache);
            disk
        };
        let slot = || {
            let (sure, harmed) = Default::default();
            Slot { disk: make(), process: None, life: 0, sure, harmed, log_harm: LogHarm::None }
        };
        let slots: BTreeMap<u16, Slot> = (0..shape.shards).map(|n| (n, slot())).collect();
        let label = ogive_store::read_label(&slots[&0].disk).expect("just written");
        Server { label, slots, up: false, disk_factor: 1, paused_until: 0 }
    }
}

impl World {
    pub(super) fn slot(&mut self, addr: ShardAddr) -> &mut Slot {
        let server = self.servers.get_mut(&addr.server.0).expect("a known server");
        server.slots.get_mut(&addr.shard).expect("a known shard")
    }

    pub(super) fn process(&mut self, addr: ShardAddr) -> Option<&mut Process> {
        self.slot(addr).process.as_mut()
    }

    pub(super) fn shard(&self, addr: ShardAddr) -> Option<&Shard> {
        let slot = self.servers.get(&addr.server.0)?.slots.get(&addr.shard)?;
        slot.process.as_ref().map(|p| &p.shard)
    }

    pub(super) fn addrs_of(&self, server: u32) -> Vec<ShardAddr> {
        let shards = 0..self.shape.shards;
        shards.map(|shard| ShardAddr { server: ChunkserverId(server), shard }).collect()
    }

    pub(super) fn store_options(&self) -> StoreOptions {
        StoreOptions {
            volatile_cache: self.shape.volatile_cache,
            retain_entries: self.shape.retain_entries,
            retain_bytes: self.shape.retain_bytes,
            ..StoreOptions::default()
        }
    }

    pub(super) fn start_server(&mut self, id: u32) {
        if self.servers[&id].up {
            return;
        }
        self.servers.get_mut(&id).expect("a known server").up = true;
        for addr in self.addrs_of(id) {
            if self.servers[&id].up {
                self.start_shard(addr); // unless the one before gave up
            }
        }
    }

    fn start_shard(&mut self, addr: ShardAddr) {
        self.trace(|_| format!("{addr} starts"));
        let pool = Pool::new(POOL_BYTES);
        let options = self.store_options();
        let label = self.servers[&addr.server.0].label.clone();
        let disk = &mut self.slot(addr).disk;
        let store = match Store::open(disk, &label, addr.shard, pool.clone(), options) {
            Ok(store) => store,
            Err(OpenError::Io { .. }) if self.chaos => return self.give_up(addr),
            Err(OpenError::LogRot { .. }) if self.mend_log(addr) => return self.start_shard(addr),
            Err(error) => return self.fail(format!("{addr} does not open: {error}")),
        };
        self.check_restored(addr, &store);
        let sure = store.replicas().map(|id| (id, store.applied(id).index)).collect();
        let clock = self.new_clock();
        let handover_after = self.shape.handover_after;
        let timing = Timing { handover_after, ..Timing::default() };
        let scrub = self.shape.scrub;
        let options = ShardOptions { addr, timing, seed: self.rng.next(), scrub };
        let shard = Shard::new(options, store, clock.local(self.now));
        let (inbox, lies) = (self.wishes(addr), Vec::new());
        let process = Process { shard, clock, inbox, lies, turn_at: u64::MAX };
        let slot = self.slot(addr);
        slot.life += 1;
        (slot.sure, slot.harmed) = (sure, BTreeSet::new());
        slot.process = Some(process);
        let identity = Identity::Shard { server: addr.server, shard: addr.shard };
        self.net.start(Party::Shard(addr), hello(identity), pool, self.now);
        self.wake(addr, self.now + 1);
    }

    /// What the control plane wants of a shard.
    fn wishes(&self, addr: ShardAddr) -> Vec<Event> {
        let here = self.topology.copysets.iter().filter(|(_, members)| members.contains(&addr));
        let spec =
            |(&copyset, members): (_, &Vec<_>)| ReplicaSpec { copyset, members: members.clone() };
        let replicas = Admin::Replicas(here.map(spec).collect());
        let endpoints = Admin::Endpoints(self.topology.endpoints.clone());
        vec![Event::Admin(endpoints), Event::Admin(replicas)]
    }

    pub(super) fn heartbeat(&mut self) {
        let addrs: Vec<ShardAddr> = self.topology.endpoints.keys().copied().collect();
        for addr in addrs {
            let wishes = self.wishes(addr);
            let now = self.now;
            if let Some(process) = self.process(addr) {
                process.inbox.extend(wishes);
                self.wake(addr, now + 1);
            }
        }
    }

    /// The process of a server ends. Its disk finishes what it was given, or loses its power.
    pub(super) fn stop_server(&mut self, id: u32, power: bool) {
        let Some(server) = self.servers.get_mut(&id).filter(|s| s.up) else { return };
        (server.up, server.disk_factor, server.paused_until) = (false, 1, 0);
        for addr in self.addrs_of(id) {
            self.trace(|_| {
                format!("{addr} {}", if power { "loses its power" } else { "is killed" })
            });
            self.net.stop(Party::Shard(addr), power, self.now);
            let mut rng = self.rng.fork();
            let slot = self.slot(addr);
            slot.process = None;
            let mut draw = |n| rng.below(n);
            if power {
                slot.disk.power_cut(&mut draw);
            } else {
                while slot.disk.complete_next(&mut draw).is_some() {}
            }
            slot.disk.clear_faults();
        }
    }

    /// Lets a shard's loop run at `at`, if it would not sooner.
    pub(super) fn wake(&mut self, addr: ShardAddr, at: u64) {
        let paused_until = self.servers[&addr.server.0].paused_until;
        let at = at.max(paused_until);
        let Some(process) = self.process(addr) else { return };
        if at < process.turn_at {
            process.turn_at = at;
            self.agenda.add(at, What::Turn(addr));
        }
    }

    pub(super) fn shard_hears(&mut self, addr: ShardAddr, event: NetEvent) {
        if self.slot(addr).process.is_none() {
            return;
        }
        self.trace(|_| format!("{addr} <- {}", short(&event)));
        let event = self.lie_to(addr, event);
        let event = self.spoil(event);
        let at = self.now + self.rng.between(1, 40);
        let process = self.process(addr).expect("checked above");
        process.inbox.push(Event::Net(event));
        self.wake(addr, at);
    }

    pub(super) fn disk_done(&mut self, addr: ShardAddr, life: u32, id: OpId) {
        let at = self.now + self.rng.between(1, 20);
        let slot = self.slot(addr);
        if slot.life != life || slot.process.is_none() {
            return;
        }
        let process = slot.process.as_mut().expect("checked above");
        let lie = process.lies.iter().position(|&l| l == id);
        let done = match lie {
            Some(lie) => {
                process.lies.swap_remove(lie);
                DiskDone { id, result: Ok(None) }
            }
            None => slot.disk.complete(id).expect("each operation ends once"),
        };
        slot.process.as_mut().expect("checked above").inbox.push(Event::Disk(done));
        self.wake(addr, at);
    }

    /// One turn of a shard's loop.
    pub(super) fn turn(&mut self, addr: ShardAddr) {
        let now = self.now;
        let Some(process) = self.process(addr).filter(|p| p.turn_at == now) else { return };
        process.turn_at = u64::MAX;
        if self.servers[&addr.server.0].paused_until > now {
            return self.wake(addr, now + 1);
        }
        let process = self.process(addr).expect("looked up above");
        let local = process.clock.local(now);
        let mut effects = Vec::new();
        for event in std::mem::take(&mut process.inbox) {
            process.shard.apply(event, local, &mut effects);
        }
        process.shard.settle(local, &mut effects);
        self.report.turns += 1;
        self.check_turn(addr, &effects);
        for effect in effects {
            self.perform(addr, effect);
        }
        if let Some(process) = self.process(addr) {
            let next = process.clock.global(process.shard.next_deadline());
            self.wake(addr, next.max(now + 1));
        }
    }

    fn perform(&mut self, addr: ShardAddr, effect: Effect) {
        let now = self.now;
        let party = Party::Shard(addr);
        match effect {
            Effect::Send { conn, frame } => {
                self.note(frame.id ^ conn.0 << 20);
                self.net.send(party, conn, frame, now);
            }
            Effect::Connect { peer, .. } => {
                let conn = self.net.connect(party, peer, now);
                let Some(process) = self.process(addr) else { return };
                let local = process.clock.local(now);
                process.shard.apply(Event::Connecting { peer, conn }, local, &mut Vec::new());
            }
            Effect::Close { conn, reason } => {
                let broken = matches!(reason, ogive_rpc::transport::CloseReason::Protocol(_));
                // What arrives twice may come to more than the sender had credits for.
                if broken && !self.net.had_duplicates(conn) {
                    self.fail(format!("{addr} found its peer to break the protocol: {reason}"));
                }
                self.net.close(party, conn, reason, now);
            }
            Effect::Disk(op) => self.submit(addr, op),
            Effect::Fatal(why) => {
                self.trace(|_| format!("{addr}: {why}"));
                self.give_up(addr);
            }
        }
    }

    /// The process ends because of its disk, and is started again.
    fn give_up(&mut self, addr: ShardAddr) {
        self.stop_server(addr.server.0, false);
        let pause = self.rng.around(500_000);
        let again = super::faults::Repair::Start(addr.server.0);
        self.agenda.add(self.now + pause, What::Repair(again));
    }

    fn submit(&mut self, addr: ShardAddr, op: DiskOp) {
        if self.slot(addr).process.is_none() {
            return; // gave up earlier in the same turn
        }
        let factor = self.servers[&addr.server.0].disk_factor;
        let delay = (self.shape.disk_us / 2 + self.rng.below(self.shape.disk_us)) * factor;
        let id = op.id();
        let lying = self.options.mutant == Some(Mutant::LyingFlush);
        let slot = self.slot(addr);
        let life = slot.life;
        match op {
            DiskOp::Flush { id } if lying => {
                slot.process.as_mut().expect("checked above").lies.push(id);
            }
            op => slot.disk.submit(op),
        }
        self.agenda.add(self.now + 1 + delay, What::DiskDone(addr, life, id));
    }
}
