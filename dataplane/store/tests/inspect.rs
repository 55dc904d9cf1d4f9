//! Looking at devices: what is said of a fixed one, damage that is found and named, and images that
//! hold anything.

#![allow(clippy::unwrap_used)] // tests: what fails is a finding

use ogive_buf::Pool;
use ogive_store::inspect::{LogEnd, Verified, audit_space, dump_log, inspect, verify};
use ogive_store::simdisk::SimDisk;
use ogive_store::{
    DiskDone, DiskOp, FormatOptions, RegionIo, Store, StoreOptions, format, read_label,
    write_identity,
};
use ogive_types::message::Op;
use ogive_types::{
    BLOCK_BYTES, BlockRange, ChunkId, ChunkserverId, ClusterId, CopysetId, Index, ShardAddr, Term,
    VolumeId, block_sums,
};
use proptest::prelude::*;
use uuid::Uuid;

const ID: CopysetId = CopysetId(7);
const GOLDEN: &str = include_str!("golden/inspect.txt");
const DEVICE_BYTES: u64 = 24 << 20;

/// A store on a disk in memory, all of whose operations end at once.
struct Work {
    disk: SimDisk,
    store: Store,
    pool: Pool,
    index: Index,
}

impl Work {
    fn new() -> Work {
        let mut disk = SimDisk::new(DEVICE_BYTES, 512);
        let options = FormatOptions {
            shards: 1,
            sector: 512,
            log_bytes: Some(1 << 20),
            uuid: Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
            force: false,
            quick: true,
        };
        format(&mut disk, &options, &mut |_, _| ()).unwrap();
        let label = write_identity(&mut disk, ClusterId(0xc1), ChunkserverId(3)).unwrap();
        let pool = Pool::new(32 << 20);
        let store = Store::open(&mut disk, &label, 0, pool.clone(), StoreOptions::default());
        let mut work = Work { disk, store: store.unwrap(), pool, index: Index(0) };
        let shard = |server| ShardAddr { server: ChunkserverId(server), shard: 0 };
        work.store.create_replica(ID, &[3, 4, 5].map(shard));
        work.finish();
        work
    }

    fn finish(&mut self) {
        let (mut ops, mut events) = (Vec::new(), Vec::new());
        loop {
            self.store.poll_ops(&mut ops);
            if ops.is_empty() {
                break;
            }
            for op in ops.drain(..) {
                let id = op.id();
                if let DiskOp::Write { mut addr, bufs, .. } = op {
                    for buf in &bufs {
                        self.disk.write_at(addr, buf).unwrap();
                        addr += buf.len() as u64;
                    }
                }
                self.store.complete(DiskDone { id, result: Ok(None) });
            }
        }
        self.store.poll_events(&mut events);
    }

    /// Appends a write of blocks filled with `byte`.
    fn write(&mut self, chunk: u32, block: u16, blocks: u16, byte: u8) {
        let range = BlockRange::new(block, blocks).unwrap();
        let mut data = self.pool.alloc(range.bytes()).unwrap();
        data.fill(byte);
        let data = data.freeze();
        let chunk = ChunkId { volume: VolumeId(9), number: chunk };
        let op = Op::Write { chunk, range, sums: block_sums(&data) };
        self.index = self.index.next();
        self.store.append(ID, self.index, Term(1), op, Some(data)).unwrap();
        self.finish();
    }

    fn apply(&mut self) {
        self.store.apply(ID, self.index);
        self.store.release(ID, self.index);
    }

    fn checkpoint(&mut self) {
        self.store.start_checkpoint();
        self.finish();
    }

    /// A device with two applied writes in a checkpoint, one behind it, and one that is not
    /// applied.
    fn sample() -> Work {
        let mut work = Work::new();
        work.write(0, 0, 300, 1);
        work.write(2, 4000, 8, 2);
        work.apply();
        work.checkpoint();
        work.write(0, 299, 2, 3);
        work.apply();
        work.write(5, 1, 1, 4);
        work
    }
}

fn bytes(disk: &SimDisk, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    disk.read_at(addr, &mut bytes).unwrap();
    bytes
}

fn flip(disk: &mut SimDisk, addr: u64) {
    let byte = bytes(disk, addr, 1)[0] ^ 0x10;
    disk.write_at(addr, &[byte]).unwrap();
}

fn verified(disk: &SimDisk) -> Verified {
    verify(disk, &mut |_| ()).unwrap()
}

/// First address of a part of the one region.
fn part(disk: &SimDisk, what: &str) -> u64 {
    let view = inspect(disk).unwrap();
    view.regions[0].parts.iter().find(|part| part.what == what).unwrap().start
}

#[test]
fn a_fixed_device_is_explained_as_it_always_was() {
    let work = Work::sample();
    let text = inspect(&work.disk).unwrap().to_string();
    if let Some(path) = std::env::var_os("OGIVE_WRITE_GOLDEN") {
        #[allow(clippy::disallowed_methods)] // makes the golden file anew
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, GOLDEN, "OGIVE_WRITE_GOLDEN=tests/golden/inspect.txt makes it anew");
}

#[test]
fn a_whole_device_is_clean_and_nothing_is_written() {
    let work = Work::sample();
    let before = bytes(&work.disk, 0, DEVICE_BYTES as usize);
    let seen = verified(&work.disk);
    assert_eq!((seen.damages, seen.findings.len()), (0, 0), "{seen}");
    // 309 blocks are shown, one is not applied.
    assert_eq!((seen.data_blocks, seen.map_pages), (310, 3), "{seen}");
    let label = read_label(&work.disk).unwrap();
    let space = audit_space(&work.disk, &label, 0).unwrap();
    assert_eq!(space.contradiction, None);
    assert_eq!((space.blocks_mapped, space.blocks_pending), (309, 1));
    assert_eq!(space.blocks, space.blocks_free + 310);
    assert_eq!(space.replicas.len(), 1);
    assert_eq!((space.replicas[0].chunks, space.replicas[0].blocks), (2, 309));
    let mut kinds = Vec::new();
    let end = dump_log(&work.disk, &label, 0, &mut |batch| {
        kinds.extend(batch.records.unwrap().iter().map(|record| record.kind));
        true
    });
    assert_eq!(end.unwrap(), LogEnd::Clean);
    assert_eq!(kinds.iter().filter(|kind| **kind == "write").count(), 2, "{kinds:?}");
    assert!(before == bytes(&work.disk, 0, DEVICE_BYTES as usize), "nothing is written");
}

#[test]
fn damaged_data_is_named_by_its_blocks() {
    let mut work = Work::sample();
    // The first write took the first 300 blocks.
    let data = part(&work.disk, "data");
    for block in [10, 11, 200] {
        flip(&mut work.disk, data + block * BLOCK_BYTES as u64 + 77);
    }
    let seen = verified(&work.disk);
    let places: Vec<_> = seen.findings.iter().map(|finding| finding.place.unwrap()).collect();
    let found: Vec<_> = places.iter().map(|p| (p.volume, p.chunk, p.block, p.blocks)).collect();
    assert_eq!(found, [(9, 0, 10, 2), (9, 0, 200, 1)], "{seen}");
    assert!(seen.to_string().contains("volume 9, chunk 0, blocks 10 to 11 (copyset 7)"), "{seen}");
}

#[test]
fn damaged_structures_are_named() {
    let cases = [
        ("superblocks", 100, "superblock 0 is damaged"),
        ("map slots", 100, "map page in slot 0 is damaged"),
        ("directory 0", 30, "the directory of the checkpoint is damaged"),
        ("log", 100, "the log is damaged at position 0"),
    ];
    for (what, offset, expected) in cases {
        let mut work = Work::sample();
        // The log is looked at from the checkpoint on.
        let tail = inspect(&work.disk).unwrap().regions[0].log.unwrap().tail;
        let skip = if what == "log" { tail } else { 0 };
        let addr = part(&work.disk, what) + skip + offset;
        flip(&mut work.disk, addr);
        let seen = verified(&work.disk);
        let expected = expected.replace("position 0", &format!("position {tail}"));
        let named = seen.findings.iter().any(|f| f.what.contains(&expected));
        assert!(named && seen.damages > 0, "{what}: {seen}");
    }
}

#[test]
fn one_copy_of_the_label_is_enough_and_the_other_is_named() {
    let mut work = Work::sample();
    flip(&mut work.disk, 4096 + 30);
    let seen = verified(&work.disk);
    assert_eq!((seen.damages, seen.findings[0].shard), (1, None), "{seen}");
    assert!(seen.findings[0].what.contains("copy 1"), "{seen}");
    assert_eq!(inspect(&work.disk).unwrap().label_copies, ["newest", "damaged"]);
    flip(&mut work.disk, 30);
    assert!(verify(&work.disk, &mut |_| ()).is_err() && inspect(&work.disk).is_err());
}

/// All of it, whatever comes of it.
fn look(disk: &SimDisk) -> bool {
    let Ok(view) = inspect(disk) else { return false };
    let text = view.to_string();
    assert!(!text.is_empty() && serde_json::to_string(&view).is_ok());
    let seen = verify(disk, &mut |_| ()).unwrap();
    assert!(!seen.to_string().is_empty() && serde_json::to_string(&seen).is_ok());
    let mut whole = seen.damages == 0;
    if let Ok(label) = read_label(disk) {
        for shard in 0..label.shards {
            let dumped = dump_log(disk, &label, shard, &mut |batch| !batch.to_string().is_empty());
            let space = audit_space(disk, &label, shard);
            whole &= dumped.is_ok() && space.is_ok_and(|s| s.contradiction.is_none());
        }
    }
    whole
}

/// What is checked: everything but the space that nothing uses.
fn used(disk: &SimDisk) -> Vec<std::ops::Range<u64>> {
    let view = inspect(disk).unwrap();
    let log = view.regions[0].log.unwrap();
    let log_start = part(disk, "log");
    vec![
        0..8192,
        part(disk, "superblocks")..part(disk, "superblocks") + 8192,
        log_start + log.tail..log_start + log.head,
        part(disk, "map slots")..part(disk, "map slots") + 3 * 4096,
        part(disk, "data")..part(disk, "data") + 300 * BLOCK_BYTES as u64,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn mutated_images_are_looked_at_without_panic(
        changes in prop::collection::vec(
            (0usize..5, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..64)),
            1..8,
        ),
        fix_sums in any::<bool>(),
    ) {
        let mut work = Work::sample();
        let used = used(&work.disk);
        for (part, at, bytes) in changes {
            let range = &used[part];
            let len = (bytes.len() as u64).min(range.end - range.start);
            let at = range.start + at.index((range.end - range.start - len + 1) as usize) as u64;
            work.disk.write_at(at, &bytes[..len as usize]).unwrap();
        }
        if fix_sums {
            hostile(&mut work.disk, &used);
        }
        look(&work.disk);
    }
}

/// Makes the checksums right again: what an attacker, or a bug, would write.
fn hostile(disk: &mut SimDisk, used: &[std::ops::Range<u64>]) {
    for addr in [0, 4096] {
        let mut label = bytes(disk, addr, 4096);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&label[..12]), &label[16..]);
        label[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.write_at(addr, &label).unwrap();
    }
    // Superblocks and map pages: the first four bytes cover the rest of the 4 KiB.
    let pages = [used[1].clone(), used[3].clone()].into_iter().flat_map(|r| r.step_by(4096));
    for addr in pages {
        let mut page = bytes(disk, addr, 4096);
        let crc = crc32c::crc32c(&page[4..]);
        page[..4].copy_from_slice(&crc.to_le_bytes());
        disk.write_at(addr, &page).unwrap();
    }
    for addr in used[2].clone().step_by(512) {
        let mut batch = bytes(disk, addr, 4096);
        let records = u32::from_le_bytes(batch[52..56].try_into().unwrap()) as usize;
        if &batch[4..8] == b"OGLB" && records <= 4096 - 64 {
            let crc = crc32c::crc32c(&batch[4..64 + records]);
            batch[..4].copy_from_slice(&crc.to_le_bytes());
            disk.write_at(addr, &batch[..512]).unwrap();
        }
    }
}
