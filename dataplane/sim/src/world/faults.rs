//! What goes wrong, and how it is put right again.

use ogive_copyset::{ProgressState, Role};
use ogive_types::VolumeId;

use super::{What, World};
use crate::fault::Fault;
use crate::net::Host;
use crate::rng::Rng;

/// The end of a fault.
#[derive(Clone, Debug)]
pub(crate) enum Repair {
    Start(u32),
    Unblock(Vec<(Host, Host)>),
    NormalNetwork(Host, Host),
    NormalDisk(u32),
    MetadataUp,
    NoDuplicates,
    SwapBack(u32, u32),
}

/// Part of the seed of the generators for the times of faults.
const FAULT_TIMES: u64 = 0x6661_756c_7473;

impl World {
    /// Draws which faults this run has, and when the first of each comes.
    pub(super) fn plan_faults(&mut self) {
        let mut kinds = Rng::new(self.options.seed ^ FAULT_TIMES);
        let mut times = Rng::new(kinds.next() ^ self.options.salt);
        for fault in Fault::all() {
            let (happens, times) = (kinds.chance(40), times.fork());
            let left_out = self.options.without.contains(fault) || fault == Fault::DiskFull;
            if happens && !left_out {
                self.faults.insert(fault, times);
                self.plan(fault);
            }
        }
    }

    fn plan(&mut self, fault: Fault) {
        let Some(times) = self.faults.get_mut(&fault) else { return };
        let at = self.now + times.around(fault.mean_us());
        self.agenda.add(at, What::Fault(fault));
    }

    pub(super) fn any_server(&mut self) -> u32 {
        self.rng.between(1, u64::from(self.shape.servers)) as u32
    }

    fn any_host(&mut self) -> Host {
        let clients: Vec<u32> = self.clients.keys().map(|id| 1000 + id).collect();
        let servers = 1..=self.shape.servers;
        let all: Vec<u32> = servers.clone().chain(servers).chain(clients).collect();
        Host(self.rng.pick(&all))
    }

    fn others(&self, host: Host) -> Vec<Host> {
        let clients = self.clients.keys().map(|id| Host(1000 + id));
        let all = (1..=self.shape.servers).map(Host).chain(clients);
        all.filter(|&h| h != host).collect()
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if !self.chaos {
            return;
        }
        self.plan(fault);
        if self.do_fault(fault) {
            self.count_fault(fault);
        }
    }

    pub(super) fn count_fault(&mut self, fault: Fault) {
        self.trace(|_| format!("fault: {}", fault.name()));
        *self.report.faults.entry(fault).or_default() += 1;
    }

    /// Brings a fault about; false when there is nothing that it could befall.
    fn do_fault(&mut self, fault: Fault) -> bool {
        let until = self.now + self.rng.around(800_000);
        match fault {
            Fault::Kill
            | Fault::PowerCut
            | Fault::LeaderCrash
            | Fault::DeltaBroken
            | Fault::Blackout => self.crash_fault(fault, until),
            Fault::Isolate
            | Fault::OneWay
            | Fault::Reset
            | Fault::Stall
            | Fault::LateRequests
            | Fault::LateConnection
            | Fault::Duplicate
            | Fault::SlowNetwork => self.net_fault(fault, until),
            Fault::Rot | Fault::BadSector | Fault::Misdirected => self.harm(fault),
            Fault::LogRot => self.rot_log(),
            Fault::WrongDevice => self.swap_devices(until),
            Fault::ClockStep => self.step_clock(),
            _ => self.host_fault(fault, until),
        }
    }

    /// Servers that end.
    fn crash_fault(&mut self, fault: Fault, until: u64) -> bool {
        match fault {
            Fault::LeaderCrash => {
                let power = self.rng.chance(50);
                let Some(server) = self.some_leader() else { return false };
                self.crash(server, power)
            }
            Fault::DeltaBroken => {
                let Some((leader, follower)) = self.some_delta() else { return false };
                match self.rng.below(8) {
                    0 => self.crash(leader, true),
                    1 => self.crash(leader, false),
                    2 | 3 => self.crash(follower, true),
                    4 => self.crash(follower, false),
                    5 => {
                        let (a, b) = (Host(leader), Host(follower));
                        self.cut(vec![(a, b), (b, a)], until);
                        true
                    }
                    _ => false, // let it go on
                }
            }
            Fault::Blackout => {
                (1..=self.shape.servers).for_each(|server| {
                    self.crash(server, true);
                });
                true
            }
            _ => {
                let server = self.any_server();
                self.crash(server, fault == Fault::PowerCut)
            }
        }
    }

    /// Links that are cut, slow or reset.
    fn net_fault(&mut self, fault: Fault, until: u64) -> bool {
        match fault {
            Fault::Isolate => {
                let leader = self.some_leader().map(Host).filter(|_| self.rng.chance(50));
                let host = leader.unwrap_or_else(|| self.any_host());
                let both = |other| [(host, other), (other, host)];
                let ways: Vec<_> = self.others(host).into_iter().flat_map(both).collect();
                self.cut(ways, until);
            }
            Fault::OneWay => {
                let (from, to) = (self.any_host(), self.any_host());
                if from == to {
                    return false;
                }
                self.cut(vec![(from, to)], until);
            }
            Fault::Reset => return self.net.reset_some(self.now),
            Fault::Stall => return self.net.stall_some(until),
            Fault::LateRequests | Fault::LateConnection => return self.late_requests(fault),
            Fault::Duplicate => {
                self.net.duplicate(true);
                self.agenda.add(until, What::Repair(Repair::NoDuplicates));
            }
            _ => {
                let (from, to) = (self.any_host(), self.any_host());
                let factor = self.rng.between(2, 60);
                self.net.slow(from, to, factor);
                self.agenda.add(until, What::Repair(Repair::NormalNetwork(from, to)));
            }
        }
        true
    }

    /// Holds up what clients have sent to a leader, which may lose its leadership meanwhile.
    fn late_requests(&mut self, fault: Fault) -> bool {
        let Some(leader) = self.some_leader() else { return false };
        let late = self.now + self.rng.between(300_000, 4_000_000);
        self.net.stall_clients(Host(leader), late);
        if fault == Fault::LateRequests {
            let peers = (1..=self.shape.servers).filter(|&s| s != leader).map(Host);
            let both = |peer| [(Host(leader), peer), (peer, Host(leader))];
            let ways = peers.flat_map(both).collect();
            let until = self.now + self.rng.between(400_000, 1_200_000);
            self.cut(ways, until);
        }
        true
    }

    /// Disks, clocks, clients and the metadata servers.
    fn host_fault(&mut self, fault: Fault, until: u64) -> bool {
        match fault {
            Fault::SlowDisk => {
                let id = self.any_server();
                let factor = self.rng.between(2, 80);
                self.servers.get_mut(&id).expect("a known server").disk_factor = factor;
                self.agenda.add(until, What::Repair(Repair::NormalDisk(id)));
            }
            Fault::Pause => {
                let id = self.any_server();
                self.servers.get_mut(&id).expect("a known server").paused_until = until;
            }
            Fault::DiskError => {
                let id = self.any_server();
                let addr = self.addrs_of(id)[0];
                let flush = self.rng.chance(30);
                let disk = &mut self.slot(addr).disk;
                if flush { disk.fail_flushes(1) } else { disk.fail_writes(1) }
            }
            Fault::TakeOver | Fault::ClientCrash => {
                let volume = VolumeId(self.rng.between(1, self.shape.volumes));
                if let (Some(owner), Fault::ClientCrash) = (self.owner(volume), fault) {
                    self.kill_client(owner);
                }
                self.attach(volume);
            }
            _ => {
                self.metadata_down = true;
                self.agenda.add(until, What::Repair(Repair::MetadataUp));
            }
        }
        true
    }

    fn some_leader(&mut self) -> Option<u32> {
        let copysets = self.copysets();
        let id = self.rng.pick(&copysets);
        let members = self.topology.copysets[&id].clone();
        let leads = |addr| self.shard(addr)?.core(id).map(|c| c.role() == Role::Leader);
        members.into_iter().find(|&addr| leads(addr) == Some(true)).map(|addr| addr.server.0)
    }

    /// A leader and a follower between which a delta is under way.
    fn some_delta(&self) -> Option<(u32, u32)> {
        for (id, members) in &self.topology.copysets {
            for &addr in members {
                let Some(core) = self.shard(addr).and_then(|s| s.core(*id)) else { continue };
                let status = core.status(ogive_types::Time(0));
                let mut followers = status.followers.iter();
                if let Some(f) = followers.find(|f| f.state == ProgressState::Delta) {
                    return Some((addr.server.0, f.addr.server.0));
                }
            }
        }
        None
    }

    fn crash(&mut self, server: u32, power: bool) -> bool {
        let was_up = self.servers[&server].up;
        if was_up {
            self.stop_server(server, power);
            let again = self.now + self.rng.pick(&[1, 30_000, 400_000, 3_000_000]);
            self.agenda.add(again, What::Repair(Repair::Start(server)));
        }
        was_up
    }

    fn cut(&mut self, ways: Vec<(Host, Host)>, until: u64) {
        ways.iter().for_each(|&(from, to)| self.net.block(from, to));
        self.agenda.add(until, What::Repair(Repair::Unblock(ways)));
    }

    pub(super) fn repair(&mut self, repair: Repair) {
        self.trace(|_| format!("repair: {repair:?}"));
        match repair {
            Repair::Start(server) => self.start_server(server),
            Repair::Unblock(ways) => {
                ways.into_iter().for_each(|(from, to)| self.net.unblock(from, to, self.now));
            }
            Repair::NormalNetwork(from, to) => self.net.slow(from, to, 1),
            Repair::NormalDisk(id) => {
                self.servers.get_mut(&id).expect("a known server").disk_factor = 1;
            }
            Repair::MetadataUp => self.metadata_down = false,
            Repair::NoDuplicates => self.net.duplicate(false),
            Repair::SwapBack(a, b) if self.net.is_swapped() => self.swap_back(a, b),
            Repair::SwapBack(..) => {}
        }
    }

    /// Stops the load and puts everything right at once.
    pub(super) fn heal(&mut self) {
        self.chaos = false;
        self.metadata_down = false;
        for (from, to) in self.net.blocked() {
            self.net.unblock(from, to, self.now);
        }
        self.net.clear_slow();
        self.net.duplicate(false);
        if self.net.is_swapped() {
            self.net.swap(None);
        }
        self.heal_clocks();
        for id in 1..=self.shape.servers {
            let server = self.servers.get_mut(&id).expect("a known server");
            (server.disk_factor, server.paused_until) = (1, 0);
            for addr in self.addrs_of(id) {
                self.slot(addr).disk.clear_faults();
            }
            self.start_server(id);
        }
        self.make_space();
    }
}
