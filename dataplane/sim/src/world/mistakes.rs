//! What an operator does wrong, and damage that only he can put right.

use ogive_store::RegionIo;
use ogive_types::ShardAddr;

use super::faults::Repair;
use super::{What, World};

const SECTOR: usize = 512;

/// Damage to the log of a shard, on the way.
#[derive(Debug)]
pub(crate) enum LogHarm {
    None,
    /// What the ring held when nothing was under way: all of it is on stable storage, and every
    /// batch that is written later says so.
    Seen(Vec<u8>),
    /// A bit was flipped, at this place of the disk.
    Done(u64, u8),
}

impl World {
    /// Restarts two chunkservers with each other's device: each then answers at the address of the
    /// other, until the operator sees it.
    pub(super) fn swap_devices(&mut self, until: u64) -> bool {
        let (a, b) = (self.any_server(), self.any_server());
        if a == b || self.net.is_swapped() {
            return false;
        }
        for server in [a, b] {
            self.stop_server(server, false);
        }
        self.net.swap(Some((a, b)));
        for server in [a, b] {
            self.start_server(server);
        }
        self.agenda.add(until, What::Repair(Repair::SwapBack(a, b)));
        true
    }

    pub(super) fn swap_back(&mut self, a: u32, b: u32) {
        for server in [a, b] {
            self.stop_server(server, false);
        }
        self.net.swap(None);
        for server in [a, b] {
            self.start_server(server);
        }
    }

    /// Kills a chunkserver and flips a bit of its log, where later batches say that all was on
    /// stable storage. Its store must say so, or open with all that it had; then the operator puts
    /// the bit right, since a replica that has lost what it promised must not come back.
    pub(super) fn rot_log(&mut self) -> bool {
        let addrs: Vec<ShardAddr> = self.topology.endpoints.keys().copied().collect();
        let addr = self.rng.pick(&addrs);
        let Some(shard) = self.shard(addr) else { return false };
        let idle = shard.store().idle();
        let Some((start, ring)) = self.log_ring(addr) else { return false };
        if let LogHarm::Seen(before) = &self.slot(addr).log_harm {
            let sectors = (0..ring.len()).step_by(SECTOR);
            let same = |&at: &usize| ring[at..at + SECTOR] == before[at..at + SECTOR];
            let full = |&at: &usize| ring[at..at + SECTOR].iter().any(|&b| b != 0);
            let (kept, newer): (Vec<usize>, Vec<usize>) = sectors.partition(same);
            let kept: Vec<usize> = kept.into_iter().filter(full).collect();
            if !newer.is_empty() && !kept.is_empty() {
                let at = start + (self.rng.pick(&kept) as u64) + self.rng.below(SECTOR as u64);
                return self.flip_in_log(addr, at);
            }
        }
        if idle {
            self.slot(addr).log_harm = LogHarm::Seen(ring);
        }
        false
    }

    fn flip_in_log(&mut self, addr: ShardAddr, at: u64) -> bool {
        // Not a power cut: the batches that vouch for it must be there.
        self.stop_server(addr.server.0, false);
        let bit = self.rng.below(8) as u8;
        self.trace(|_| format!("flips bit {bit} at {at} in the log of {addr}"));
        let slot = self.slot(addr);
        slot.disk.flip_bit(at, bit);
        slot.log_harm = LogHarm::Done(at, bit);
        let again = self.now + self.rng.around(200_000);
        self.agenda.add(again, What::Repair(Repair::Start(addr.server.0)));
        true
    }

    /// Puts the log right again; false when nothing had harmed it.
    pub(super) fn mend_log(&mut self, addr: ShardAddr) -> bool {
        let slot = self.slot(addr);
        let LogHarm::Done(at, bit) = slot.log_harm else { return false };
        slot.log_harm = LogHarm::None;
        slot.disk.flip_bit(at, bit);
        self.report.logs_refused += 1;
        self.trace(|_| format!("{addr} finds its log damaged, and gets it back"));
        true
    }

    /// Where the log of a shard lies, and its bytes as reads see them.
    fn log_ring(&mut self, addr: ShardAddr) -> Option<(u64, Vec<u8>)> {
        let region = self.servers[&addr.server.0].label.regions()[usize::from(addr.shard)];
        let layout = region.layout()?;
        let mut ring = vec![0; layout.log_bytes as usize];
        self.slot(addr).disk.read_at(layout.log_start, &mut ring).ok()?;
        Some((layout.log_start, ring))
    }
}
