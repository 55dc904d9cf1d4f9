//! Damage to what is stored: bits flip, sectors become unreadable, writes landed elsewhere.
//!
//! A block is harmed on one replica only while another one has a good copy of the same version on
//! stable storage; so nothing may ever be lost, and reads never fail for it. Harmed are blocks that
//! the shard knew as applied when it was started last: what is newer may lie in the part of the log
//! behind the persisted mark, where no store can tell rot from a torn write (the assumptions in
//! `dataplane/store/design/0001-one-log.md`).

use ogive_copyset::Role;
use ogive_rpc::transport::{Event as NetEvent, Incoming};
use ogive_shard::Shard;
use ogive_store::RegionIo;
use ogive_types::message::{BlockVersion, Kind, ReplicaReply, decode};
use ogive_types::{BLOCK_BYTES, CopysetId, Index, ShardAddr, block_sum};

use super::World;
use super::verdict::picture;
use crate::fault::Fault;

/// Blocks drawn before a fault is given up: most may be too new.
const DRAWS: usize = 8;

impl World {
    /// Harms some blocks of one shard; false when none may be.
    pub(super) fn harm(&mut self, fault: Fault) -> bool {
        let addrs: Vec<ShardAddr> = self.topology.endpoints.keys().copied().collect();
        let leads = |w: &World, addr, id| {
            w.shard(addr).and_then(|s| s.core(id)).is_some_and(|c| c.role() == Role::Leader)
        };
        let copysets = self.copysets();
        let id = self.rng.pick(&copysets);
        let here: Vec<ShardAddr> = addrs.into_iter().filter(|&a| self.copies(a, id) > 0).collect();
        if here.is_empty() {
            return false;
        }
        // Leaders more often: clients read from them.
        let leader = here.iter().copied().find(|&addr| leads(self, addr, id));
        let leader = leader.filter(|_| self.rng.chance(50));
        let addr = leader.unwrap_or_else(|| self.rng.pick(&here));
        let mut any = false;
        for _ in 0..self.rng.between(1, 5) {
            let Some(at) = self.victim(addr, id) else { break };
            any |= self.harm_one(addr, id, at, fault);
        }
        any
    }

    /// Blocks that a running shard has of a copyset.
    fn copies(&self, addr: ShardAddr, id: CopysetId) -> usize {
        self.shard(addr).map_or(0, |shard| picture(shard.store(), id).len())
    }

    fn harm_one(&mut self, addr: ShardAddr, id: CopysetId, at: u64, fault: Fault) -> bool {
        let (byte, bit) = (self.rng.below(BLOCK_BYTES as u64), self.rng.below(8) as u8);
        match fault {
            Fault::Rot => self.slot(addr).disk.flip_bit(at + byte, bit),
            Fault::BadSector => self.slot(addr).disk.fail_reads(at..at + 512),
            _ => {
                // One write went to the place of another block, and its own kept what was there.
                let Some(other) = self.victim(addr, id) else { return false };
                let disk = &mut self.slot(addr).disk;
                let (mut one, mut two) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
                if disk.read_at(at, &mut one).is_err() || disk.read_at(other, &mut two).is_err() {
                    return false;
                }
                // A failed write may have been done all the same: it is harm in any case.
                let _ = disk.write_at(other, &one);
                let _ = disk.write_at(at, &two);
            }
        }
        true
    }

    /// Where a copy on `addr` lies that may be harmed. It counts as harmed from now on.
    fn victim(&mut self, addr: ShardAddr, id: CopysetId) -> Option<u64> {
        let shard = self.shard(addr)?;
        let all: Vec<BlockVersion> = picture(shard.store(), id)
            .into_iter()
            .map(|((chunk, number), (index, sum))| BlockVersion { chunk, number, index, sum })
            .collect();
        for _ in 0..DRAWS {
            let &version = all.get(self.rng.below(all.len().max(1) as u64) as usize)?;
            let members = self.topology.copysets[&id].clone();
            let elsewhere = |&other: &ShardAddr| other != addr && self.is_good(other, id, version);
            let key = (id, version.chunk, version.number);
            let allowed = self.is_good(addr, id, version) && members.iter().any(elsewhere);
            if allowed && self.slot(addr).harmed.insert(key) {
                let at = self.shard(addr)?.store().address(id, &version)?;
                self.trace(|_| format!("{addr} {id}: harms {version:?} at {at}"));
                return Some(at);
            }
        }
        None
    }

    /// Whether a running shard has a good copy on stable storage, below the mark.
    fn is_good(&self, addr: ShardAddr, id: CopysetId, version: BlockVersion) -> bool {
        let Some(slot) = self.servers[&addr.server.0].slots.get(&addr.shard) else { return false };
        let Some(process) = slot.process.as_ref() else { return false };
        let sure = slot.sure.get(&id).copied().unwrap_or(Index(0));
        let Some(at) = process.shard.store().address(id, &version) else { return false };
        let mut bytes = vec![0; BLOCK_BYTES];
        let read = slot.disk.read_at(at, &mut bytes).is_ok();
        let fresh = !slot.harmed.contains(&(id, version.chunk, version.number));
        version.index <= sure && fresh && read && block_sum(&bytes) == version.sum
    }

    /// A peer's copies may arrive spoilt, by its memory or its network card.
    pub(super) fn spoil(&mut self, event: NetEvent) -> NetEvent {
        let NetEvent::Received { conn, mut frame } = event else { return event };
        if self.chaos && frame.response && frame.kind == Kind::Replica as u8 {
            self.spoil_copies(&mut frame);
        }
        NetEvent::Received { conn, frame }
    }

    fn spoil_copies(&mut self, frame: &mut Incoming) {
        let Some(payload) = &frame.payload else { return };
        let Ok(ReplicaReply::Fetched(..)) = decode(&frame.body) else { return };
        let percent = self.shape.spoilt_percent;
        if !self.rng.chance(percent) {
            return;
        }
        let Some(mut copy) = self.pool.alloc(payload.len()) else { return };
        copy.copy_from_slice(payload);
        let at = self.rng.below(copy.len() as u64) as usize;
        copy[at] ^= 1 << self.rng.below(8);
        frame.payload = Some(copy.freeze());
        self.report.spoilt += 1;
    }

    /// Why damage may be left somewhere.
    pub(super) fn damage_left(&self) -> Option<String> {
        let left = |shard: &Shard| {
            let laps = self.laps_at_heal.get(&shard.addr()).copied().unwrap_or_default();
            let health = shard.health();
            // The lap that was under way then may have passed it by.
            (shard.repairs_open() > 0 || health.scrub.laps < laps + 2).then_some(health)
        };
        let mut shards = self.topology.endpoints.keys().filter_map(|&a| self.shard(a));
        shards.find_map(|s| left(s).map(|health| format!("{}: {health:?}", s.addr())))
    }
}
