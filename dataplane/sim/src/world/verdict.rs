//! What must hold in the end: everything healthy, all replicas equal, all data readable.

use std::collections::BTreeMap;

use ogive_buf::Pool;
use ogive_client::VolumeOp;
use ogive_copyset::Role;
use ogive_shard::Shard;
use ogive_store::{DeltaCursor, DiskOp, Store, StoreEvent, audit};
use ogive_types::{
    BLOCK_BYTES, BlockRange, BlockSum, ChunkId, CopysetId, Index, ShardAddr, VolumeId,
};

use super::World;
use crate::limits::{DEVICE_BYTES, POOL_BYTES};
use crate::model::CELL_BYTES;

/// What a replica's map shows: which entry wrote each mapped block, and its checksum.
type Picture = BTreeMap<(ChunkId, u16), (Index, BlockSum)>;

const STEP_US: u64 = 20_000_000;

impl World {
    /// All damage is repaired as well.
    pub(super) fn is_healthy(&self) -> bool {
        self.is_well() && self.damage_left().is_none()
    }

    /// From here on scrubs meet all data: a shard that has just started may show none of it yet.
    pub(super) fn note_laps(&mut self) {
        let laps = |addr| self.shard(addr).map(|s| (addr, s.health().scrub.laps));
        let all = self.topology.endpoints.keys().copied();
        self.laps_at_heal = all.filter_map(laps).collect();
    }

    /// Nothing is in flight, and every copyset has one leader and equal replicas.
    pub(super) fn is_well(&self) -> bool {
        self.report.events.is_multiple_of(128)
            && self.clients_idle()
            && self.topology.copysets.keys().all(|&id| self.illness(id).is_none())
    }

    /// Why a copyset is not healthy.
    fn illness(&self, id: CopysetId) -> Option<String> {
        let members = &self.topology.copysets[&id];
        let shards: Vec<(ShardAddr, &Shard)> =
            members.iter().filter_map(|&a| self.shard(a).map(|s| (a, s))).collect();
        if shards.len() < members.len() {
            return Some("a member is down".into());
        }
        let core = |shard: &Shard| shard.core(id).map(|c| (c.role(), c.term(), c.last()));
        let roles: Vec<_> = shards.iter().filter_map(|(_, s)| core(s)).collect();
        let leaders: Vec<_> = roles.iter().filter(|r| r.0 == Role::Leader).collect();
        let [leader] = leaders[..] else { return Some(format!("not one leader: {roles:?}")) };
        let last = leader.2.index;
        let behind = shards.iter().find(|(_, s)| s.store().applied(id).index != last);
        behind.map(|(addr, shard)| {
            let applied = shard.store().applied(id);
            let status = |s: &Shard| s.core(id).map(|c| c.status(ogive_types::Time(0)));
            let leads = |s: &Shard| s.core(id).is_some_and(|c| c.role() == Role::Leader);
            let leader = shards.iter().find(|(_, s)| leads(s)).and_then(|(_, s)| status(s));
            let behind = status(shard);
            format!("{addr} has applied {applied} of {last}: {behind:?}; its leader: {leader:?}")
        })
    }

    /// Whether a follower has no space for what would free some: then its copyset waits until an
    /// operator makes room. Counted, since it is a limit of the product; nothing may be lost by it.
    pub(super) fn stays_full(&mut self) -> bool {
        let mut shards = self.topology.endpoints.keys().filter_map(|&a| self.shard(a));
        let full = shards.any(|shard| !shard.store().stats().has_room());
        let tight = self.shape.device_bytes != DEVICE_BYTES;
        let ill = self.copysets().into_iter().any(|id| self.illness(id).is_some());
        let stays = tight && full && ill && self.failure.is_none();
        self.report.left_full += u64::from(stays);
        stays
    }

    pub(super) fn must_be_healthy(&mut self) {
        let ill = self.copysets().into_iter();
        let ill: Vec<String> =
            ill.filter_map(|id| self.illness(id).map(|why| format!("{id}: {why}"))).collect();
        let damage = self.damage_left();
        if !ill.is_empty() || !self.clients_idle() || damage.is_some() {
            let flights = self.flights();
            let what = "not healthy in time after the last fault";
            self.fail(format!("{what}: {ill:?} {flights} {damage:?}"));
        }
    }

    /// Reads all that was ever written, through a new attachment of each volume.
    pub(super) fn read_everything(&mut self) {
        let per_block = BLOCK_BYTES as u64 / CELL_BYTES;
        for volume in (1..=self.shape.volumes).map(VolumeId) {
            if self.failure.is_some() {
                return;
            }
            let client = self.attach(volume);
            let mut blocks: Vec<u64> = self.volumes[&volume].model.touched();
            blocks.iter_mut().for_each(|cell| *cell /= per_block);
            blocks.dedup();
            for block in blocks {
                let (offset, len) = (block * BLOCK_BYTES as u64, BLOCK_BYTES as u64);
                self.submit_op(client, VolumeOp::Read { offset, len });
            }
            self.run_until(self.now + STEP_US, World::clients_idle);
        }
        if !self.clients_idle() {
            let flights = self.flights();
            self.fail(format!("the last reads do not end: {flights}"));
        }
    }

    /// Waits until nothing moves, then compares the replicas of each copyset.
    pub(super) fn compare_replicas(&mut self) {
        let quiet = |w: &World| {
            let addrs = w.topology.endpoints.keys();
            let mut shards = addrs.filter_map(|&a| w.shard(a));
            w.is_healthy() && shards.all(|s| s.store().idle() && s.calls_open() == 0)
        };
        self.run_until(self.now + STEP_US, quiet);
        if self.failure.is_some() {
            return;
        }
        for addr in self.topology.endpoints.keys().copied().collect::<Vec<_>>() {
            self.add_up(addr);
            let shard = self.shard(addr).expect("all are up");
            let (idle, calls) = (shard.store().idle(), shard.calls_open());
            if !idle || calls > 0 {
                self.fail(format!("{addr} does not come to rest: idle {idle}, {calls} calls open"));
            } else if let Err(why) = audit(self.shard(addr).expect("all are up").store()) {
                self.fail(format!("audit of {addr}: {why}"));
            }
        }
        for id in self.copysets() {
            let members = self.topology.copysets[&id].clone();
            let of = |addr: &ShardAddr| {
                let store = self.shard(*addr).expect("all are up").store();
                (*addr, picture(store, id), store.fences(id))
            };
            let all: Vec<_> = members.iter().map(of).collect();
            for (addr, map, fences) in &all[1..] {
                let (first, expected, expected_fences) = &all[0];
                if fences != expected_fences {
                    return self.fail(format!("{id}: fences differ on {first} and {addr}"));
                }
                if let Some(difference) = difference(expected, map) {
                    return self.fail(format!("{id}: {first} and {addr} differ: {difference}"));
                }
            }
        }
    }

    /// Adds what a shard counted to the report.
    fn add_up(&mut self, addr: ShardAddr) {
        let shard = self.shard(addr).expect("all are up");
        let (delta_bytes, store) = (shard.stats().delta_bytes, shard.store().stats());
        let repaired = shard.health().repair.repaired;
        self.report.delta_bytes += delta_bytes;
        self.report.checkpoints += store.checkpoints;
        self.report.repaired += repaired;
    }

    /// Cuts the power of all, opens what is left, and reads every block of every replica.
    pub(super) fn check_disks(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let addrs: Vec<ShardAddr> = self.topology.endpoints.keys().copied().collect();
        let mut pictures = BTreeMap::new();
        for &addr in &addrs {
            let store = self.shard(addr).expect("all are up").store();
            let here: Vec<CopysetId> = store.replicas().collect();
            let of = |id| (id, picture(store, id));
            pictures.insert(addr, here.into_iter().map(of).collect::<BTreeMap<_, _>>());
        }
        (1..=self.shape.servers).for_each(|server| self.stop_server(server, true));
        for addr in addrs {
            if let Err(why) = self.check_disk(addr, &pictures[&addr]) {
                self.fail(format!("{addr} after the last power cut: {why}"));
            }
        }
    }

    fn check_disk(
        &mut self,
        addr: ShardAddr,
        expected: &BTreeMap<CopysetId, Picture>,
    ) -> Result<(), String> {
        let options = self.store_options();
        let label = self.servers[&addr.server.0].label.clone();
        let disk = &mut self.slot(addr).disk;
        let pool = Pool::new(POOL_BYTES);
        let store = Store::open(disk, &label, addr.shard, pool, options);
        let mut store = store.map_err(|e| e.to_string())?;
        for (&id, expected) in expected {
            let last = store.replica(id).ok_or("a replica is gone")?.last.index;
            store.apply(id, last);
            if let Some(difference) = difference(expected, &picture(&store, id)) {
                return Err(format!("{id}: {difference}"));
            }
            for (token, &(chunk, block)) in (1..).zip(expected.keys()) {
                let range = BlockRange::new(block, 1).ok_or("a block outside of its chunk")?;
                store.read(token, id, chunk, range);
            }
        }
        loop {
            let mut ops: Vec<DiskOp> = Vec::new();
            store.poll_ops(&mut ops);
            let mut events = Vec::new();
            store.poll_events(&mut events);
            for event in &events {
                match event {
                    StoreEvent::ReadDone { result: Err(error), .. } => {
                        return Err(error.to_string());
                    }
                    StoreEvent::Damaged(damage) => return Err(format!("{damage:?}")),
                    _ => {}
                }
            }
            if ops.is_empty() && events.is_empty() {
                break;
            }
            for op in ops {
                let id = op.id();
                disk.submit(op);
                store.complete(disk.complete(id).ok_or("a lost operation")?);
            }
        }
        audit(&store)
    }
}

pub(super) fn picture(store: &Store, id: CopysetId) -> Picture {
    let mut all = Picture::new();
    let mut cursor = Some(DeltaCursor::start());
    while let Some(at) = cursor {
        let scan = store.delta_scan(id, Index(0), at, 256);
        for (chunk, extent) in
            scan.chunks.iter().flat_map(|c| c.extents.iter().map(move |e| (c.chunk, e)))
        {
            for (block, &sum) in extent.range.iter().zip(&extent.sums) {
                all.insert((chunk, block), (extent.index, sum));
            }
        }
        cursor = scan.next;
    }
    all
}

fn difference(a: &Picture, b: &Picture) -> Option<String> {
    let mut keys = a.keys().chain(b.keys());
    let key = keys.find(|key| a.get(key) != b.get(key))?;
    let side = |p: &Picture| p.get(key).map(|(i, s)| format!("{i} {:08x}", s.0));
    Some(format!("{} block {}: {:?} and {:?}", key.0, key.1, side(a), side(b)))
}
