//! A whole small device as the former version of the region's structures left it: it opens, holds
//! what was written, and is of the present version after the next checkpoint.

use std::collections::BTreeMap;

use ogive_buf::Pool;
use ogive_store::simdisk::SimDisk;
use ogive_store::{
    DiskOp, FormatOptions, HardState, RegionIo, Store, StoreEvent, StoreOptions, audit, format,
    read_label,
};
use ogive_types::message::Op;
use ogive_types::{
    BLOCK_BYTES, BlockRange, ChunkId, ChunkserverId, CopysetId, Epoch, Index, ShardAddr, Term,
    VolumeId, block_sums,
};

/// The device after [`Device::life`], with [`unpack`] to be made whole. Written by version 1.
const V1: &[u8] = include_bytes!("golden/device_v1.bin");
const V2: &[u8] = include_bytes!("golden/device_v2.bin");
const DEVICE_BYTES: u64 = 12 << 20;
const COPYSETS: [CopysetId; 2] = [CopysetId(1), CopysetId(2)];

/// What a block holds that was written with this tag.
fn block(tag: u64) -> Vec<u8> {
    let mut bytes = vec![tag as u8; BLOCK_BYTES];
    bytes[..8].copy_from_slice(&tag.to_le_bytes());
    bytes
}

fn chunk(volume: u64, number: u32) -> ChunkId {
    ChunkId { volume: VolumeId(volume), number }
}

fn range(start: u16, blocks: u16) -> BlockRange {
    BlockRange::new(start, blocks).expect("as written here")
}

/// Tags of the blocks that hold data.
type Content = BTreeMap<(CopysetId, ChunkId, u16), u64>;

struct Device {
    disk: SimDisk,
    pool: Pool,
    store: Store,
    next: BTreeMap<CopysetId, u64>,
    content: Content,
    read: Vec<u8>,
}

impl Device {
    fn open(disk: SimDisk) -> Device {
        Device::open_with(disk, 1 << 30)
    }

    fn open_with(mut disk: SimDisk, map_bytes_max: usize) -> Device {
        let label = read_label(&disk).expect("as written here");
        let pool = Pool::new(32 << 20);
        let options = StoreOptions { map_bytes_max, ..StoreOptions::default() };
        let store =
            Store::open(&mut disk, &label, 0, pool.clone(), options).expect("as written here");
        let last = |id| store.replica(id).map_or(0, |state| state.last.index.0);
        let next = COPYSETS.iter().map(|&id| (id, last(id) + 1)).collect();
        Device { disk, pool, store, next, content: Content::new(), read: Vec::new() }
    }

    fn settle(&mut self) {
        loop {
            let mut ops: Vec<DiskOp> = Vec::new();
            self.store.poll_ops(&mut ops);
            ops.into_iter().for_each(|op| self.disk.submit(op));
            let Some(done) = self.disk.complete_next(&mut |_| 0) else { break };
            self.store.complete(done);
        }
        assert!(self.store.idle());
        let mut events = Vec::new();
        self.store.poll_events(&mut events);
        for event in events {
            if let StoreEvent::ReadDone { result, .. } = event {
                self.read = result.expect("as written here").to_vec();
            }
        }
    }

    fn entry(&mut self, id: CopysetId, op: Op, tag: u64) {
        let index = self.next[&id];
        self.next.insert(id, index + 1);
        let payload = match &op {
            Op::Write { range, .. } => {
                let mut buf = self.pool.alloc(range.bytes()).expect("as written here");
                let blocks: Vec<u8> = (tag..).take(range.iter().count()).flat_map(block).collect();
                buf.copy_from_slice(&blocks);
                Some(buf.freeze())
            }
            _ => None,
        };
        self.store.append(id, Index(index), Term(3), op, payload).expect("as written here");
        self.settle();
    }

    fn write(&mut self, id: CopysetId, chunk: ChunkId, start: u16, blocks: u16, tag: u64) {
        let bytes: Vec<u8> = (tag..).take(usize::from(blocks)).flat_map(block).collect();
        let op = Op::Write { chunk, range: range(start, blocks), sums: block_sums(&bytes) };
        self.entry(id, op, tag);
        let tags = range(start, blocks).iter().zip(tag..);
        self.content.extend(tags.map(|(block, tag)| ((id, chunk, block), tag)));
    }

    fn trim(&mut self, id: CopysetId, chunk: ChunkId, range: BlockRange) {
        self.entry(id, Op::Trim { chunk, range }, 0);
        self.content
            .retain(|&(i, c, block), _| (i, c) != (id, chunk) || !range.iter().any(|b| b == block));
    }

    fn apply(&mut self, id: CopysetId) {
        self.store.apply(id, Index(self.next[&id] - 1));
    }

    /// Everything that leaves a trace in the structures of a region. What is not applied is not
    /// part of `content`.
    fn life(&mut self) {
        let member = |n| ShardAddr { server: ChunkserverId(n), shard: 1 };
        for id in COPYSETS {
            self.store.create_replica(id, &[member(1), member(2), member(3)]);
            let hard = HardState { term: Term(3), voted_for: Some(member(2)) };
            self.store.save_hard_state(id, hard);
        }
        let [one, two] = COPYSETS;
        self.write(one, chunk(1, 0), 0, 300, 1000);
        self.apply(one);
        for n in 0..60 {
            self.write(one, chunk(1, 0), n * 67 % 256, 1, 2000 + u64::from(n));
        }
        self.trim(one, chunk(1, 0), range(250, 12));
        for n in 0..90 {
            self.write(two, chunk(2, 7), n * 45 % 1024, 1, 3000 + u64::from(n));
            self.apply(two);
        }
        self.write(two, chunk(3, 1), 10, 20, 4000);
        self.entry(two, Op::Fence { volume: VolumeId(2), epoch: Epoch(17) }, 0);
        COPYSETS.iter().for_each(|&id| self.apply(id));
        self.store.start_checkpoint();
        self.settle();
        // What follows is in the log alone.
        self.write(one, chunk(1, 0), 260, 30, 5000);
        self.trim(two, chunk(2, 7), range(0, 300));
        self.entry(two, Op::DropVolume { volume: VolumeId(3) }, 0);
        self.content.retain(|(_, chunk, _), _| chunk.volume != VolumeId(3));
        COPYSETS.iter().for_each(|&id| self.apply(id));
        self.write(one, chunk(1, 5), 0, 4, 6000);
        self.apply(one);
        let applied = self.content.clone();
        self.write(two, chunk(2, 8), 0, 4, 7000);
        self.content = applied;
    }

    /// Compares what is there with what was written.
    fn compare(&mut self) {
        audit(&self.store).expect("as written here");
        let chunks = [(1, 1, 0), (1, 1, 5), (2, 2, 7), (2, 2, 8), (2, 3, 1)];
        for (id, volume, number) in chunks {
            let (id, chunk) = (CopysetId(id), chunk(volume, number));
            for start in (0..4096).step_by(256) {
                self.store.read(1, id, chunk, range(start, 256));
                self.settle();
                for (at, found) in (start..).zip(self.read.chunks_exact(BLOCK_BYTES)) {
                    let tag = self.content.get(&(id, chunk, at));
                    let expected = tag.map_or(vec![0; BLOCK_BYTES], |&tag| block(tag));
                    assert!(found == expected, "{id} {chunk} block {at}");
                }
            }
        }
        let [one, two] = COPYSETS.map(|id| self.store.replica(id).expect("as written here"));
        assert_eq!((one.last.index.0, two.last.index.0), (64, 95));
        assert_eq!((one.hard, one.members.len()), (two.hard, 3));
        assert_eq!(one.hard.voted_for.map(|shard| shard.server), Some(ChunkserverId(2)));
        assert_eq!(self.store.fence_of(COPYSETS[1], VolumeId(2)), Some(Epoch(17)));
        assert_eq!(self.store.fence_of(COPYSETS[1], VolumeId(3)), Some(Epoch(u64::MAX)));
    }

    fn image(&self) -> Vec<u8> {
        let mut bytes = vec![0; DEVICE_BYTES as usize];
        self.disk.read_at(0, &mut bytes).expect("as written here");
        bytes
    }
}

fn born() -> Device {
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    let options = FormatOptions {
        shards: 1,
        sector: 512,
        log_bytes: Some(1 << 20),
        uuid: uuid::Uuid::from_u128(0x1234),
        force: false,
        quick: true,
    };
    format(&mut disk, &options, &mut |_, _| ()).expect("as written here");
    let mut device = Device::open(disk);
    device.life();
    device
}

/// A golden device is kept as runs: the length of a run (u32), the length of what repeats (u16),
/// what repeats (a run of 1 is plain bytes).
fn pack(image: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut put = |times: usize, bytes: &[u8]| {
        for bytes in bytes.chunks(usize::from(u16::MAX)) {
            packed.extend((times as u32).to_le_bytes());
            packed.extend((bytes.len() as u16).to_le_bytes());
            packed.extend(bytes);
        }
    };
    let runs = image.chunk_by(|a, b| a == b);
    let mut plain: Vec<u8> = Vec::new();
    for run in runs {
        if run.len() < 16 {
            plain.extend(run);
            continue;
        }
        put(1, &std::mem::take(&mut plain));
        put(run.len(), &run[..1]);
    }
    put(1, &plain);
    packed
}

fn unpack(mut packed: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    while let Some((head, rest)) = packed.split_at_checked(6) {
        let times = u32::from_le_bytes(head[..4].try_into().expect("as written here"));
        let len = u16::from_le_bytes(head[4..].try_into().expect("as written here"));
        let (bytes, rest) = rest.split_at(usize::from(len));
        (0..times).for_each(|_| image.extend(bytes));
        packed = rest;
    }
    image
}

/// `OGIVE_WRITE_DEVICE=path` writes the device of this version.
#[test]
fn a_device_of_this_version_holds_what_was_written() {
    let mut device = born();
    let packed = pack(&device.image());
    assert_eq!(unpack(&packed), device.image());
    if let Some(path) = std::env::var_os("OGIVE_WRITE_DEVICE") {
        #[allow(clippy::disallowed_methods)] // makes the golden file of a new format version
        std::fs::write(path, &packed).expect("as written here");
    }
    device.compare();
    let content = std::mem::take(&mut device.content);
    let mut again = Device { content, ..Device::open(device.disk) };
    // The log knows what was applied only up to the last batch.
    COPYSETS.iter().for_each(|&id| again.store.apply(id, Index(if id.0 == 1 { 64 } else { 94 })));
    again.compare();
}

/// Whether pages of the map are in memory or not, those of a former version are read as they are.
#[test]
fn devices_of_former_versions_open_and_are_brought_up_to_date() {
    for (golden, map_bytes_max) in [(V1, 1 << 30), (V2, 1 << 30), (V1, 0), (V2, 0)] {
        let content = born().content;
        let mut disk = SimDisk::new(DEVICE_BYTES, 512);
        disk.write_at(0, &unpack(golden)).expect("as written here");
        disk.flush().expect("as written here");
        let open = |disk| Device::open_with(disk, map_bytes_max);
        let mut device = Device { content, ..open(disk) };
        for round in 0..3 {
            let applied = |id: CopysetId| Index(if id.0 == 1 { 64 } else { 94 });
            COPYSETS.iter().for_each(|&id| device.store.apply(id, applied(id)));
            device.compare();
            if round == 1 {
                device.store.start_checkpoint();
                device.settle();
            }
            device = Device { content: device.content, ..open(device.disk) };
        }
    }
}
