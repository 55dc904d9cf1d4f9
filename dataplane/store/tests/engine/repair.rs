//! Damage of every kind is found by a scrub, named exactly, and mended for good.

use std::collections::BTreeSet;

use ogive_store::{DiskOp, ReadError, RegionIo, RepairError, ScrubCursor, StoreEvent, audit};
use ogive_types::message::BlockVersion;
use ogive_types::{BLOCK_BYTES, BlockSum, ChunkId, CopysetId, VolumeId, block_sum};

use ogive_crash::model::Entry;
use ogive_crash::rng::Rng;
use ogive_crash::world::{BLOCKS, FIRST, Mix, Setup, World, block, range};

const ID: CopysetId = CopysetId(1);

/// A world at rest, all of whose data is below the persisted mark of a checkpoint.
fn lived(seed: u64, steps: u64) -> World {
    let mut rng = Rng(seed);
    let setup = Setup { device_bytes: 12 << 20, ..Setup::draw(&mut rng) };
    let mut world = World::with(setup, rng);
    world.create(ID);
    for _ in 0..steps {
        world.step_on(ID, &Mix { mend: 0, ..Mix::default() });
    }
    world.settle();
    let persisted = world.replicas[&ID].persisted;
    world.apply(ID, persisted);
    world.store.start_checkpoint();
    world.settle();
    // From here on the model knows exactly what a restart brings back.
    world.crash();
    let persisted = world.replicas[&ID].persisted;
    world.apply(ID, persisted);
    world
}

fn data_start(world: &World) -> u64 {
    world.label.regions()[0].layout().expect("it was formatted").data_start
}

/// Where the device holds a block with this tag, as an address.
fn find(world: &World, tag: u64) -> u64 {
    let start = data_start(world);
    let mut bytes = vec![0; BLOCK_BYTES];
    let blocks = (world.disk.len() - start) / BLOCK_BYTES as u64;
    let mut places = (0..blocks).map(|n| start + n * BLOCK_BYTES as u64);
    let found =
        places.find(|&at| world.disk.read_at(at, &mut bytes).is_ok() && bytes == block(tag));
    found.expect("it is on the device")
}

/// Ends all operations, without drawing; what was reported.
pub fn rest(world: &mut World) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    loop {
        let mut ops: Vec<DiskOp> = Vec::new();
        world.store.poll_ops(&mut ops);
        ops.into_iter().for_each(|op| world.disk.submit(op));
        while let Some(done) = world.disk.complete_next(&mut |_| 0) {
            world.store.complete(done);
        }
        world.store.poll_events(&mut events);
        if world.store.idle() && world.disk.pending() == 0 {
            return events;
        }
    }
}

/// One lap: how many blocks were checked, and what was damaged.
fn scrub(world: &mut World) -> (usize, Vec<(BlockVersion, ReadError)>) {
    let (mut at, mut blocks, mut found) = (Some(ScrubCursor::default()), 0, Vec::new());
    while let Some(cursor) = at {
        let step = world.store.scrub(77, cursor, 7);
        (at, blocks) = (step.next, blocks + step.blocks);
        for event in rest(world) {
            match event {
                StoreEvent::Damaged(damage) => {
                    assert!(damage.rest.is_none(), "nobody waits for it");
                    found.extend(damage.blocks.iter().map(|b| (b.block, b.error)));
                }
                StoreEvent::Checked { token: 77, .. } | StoreEvent::MapRead { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    (blocks, found)
}

fn content(world: &World) -> Vec<((ChunkId, u16), u64)> {
    let content = &world.replicas[&ID].state.content;
    content.iter().filter(|(_, tag)| **tag != 0).map(|(&k, &tag)| (k, tag)).collect()
}

#[test]
fn a_lap_checks_every_mapped_block_once() {
    for seed in 0..12 {
        let mut world = lived(seed, 400);
        let mapped = world.store.stats().blocks_mapped as usize;
        assert_eq!(scrub(&mut world), (mapped, vec![]), "seed {seed}");
    }
}

/// Rots, misdirects or loses some blocks, whose keys and tags it returns.
fn harm(world: &mut World, mut all: Vec<((ChunkId, u16), u64)>) -> Vec<((ChunkId, u16), u64)> {
    let mut harmed = Vec::new();
    let stale = world.data(1 << 40, 1);
    for _ in 0..1 + world.rng.below(4) {
        if all.len() < 2 {
            break;
        }
        let victim = all.swap_remove(world.rng.below(all.len() as u64) as usize);
        let at = find(world, victim.1);
        harmed.push(victim);
        match world.rng.below(4) {
            0 => world.disk.flip_bit(at + world.rng.below(4096), world.rng.below(8) as u8),
            1 => world.disk.fail_reads(at..at + 1),
            2 => {
                // What was to lie there went to another block's place, and both are wrong.
                let other = all.swap_remove(world.rng.below(all.len() as u64) as usize);
                let to = find(world, other.1);
                world.disk.write_at(to, &block(victim.1)).expect("a disk in memory");
                world.disk.write_at(at, &stale).expect("a disk in memory");
                harmed.push(other);
            }
            _ => world.disk.write_at(at, &stale).expect("a disk in memory"), // a lost write
        }
    }
    world.disk.flush().expect("a disk in memory");
    harmed
}

#[test]
fn whatever_is_damaged_is_found_and_mended_whenever_the_power_fails() {
    let mut mended = 0;
    for seed in 0..60 {
        let mut world = lived(seed, 300);
        let all = content(&world);
        let harmed = harm(&mut world, all);
        let tag_of = |b: &BlockVersion| {
            let found = harmed.iter().find(|((c, n), _)| (*c, *n) == (b.chunk, b.number));
            found.map(|(_, tag)| *tag)
        };
        let (_, found) = scrub(&mut world);
        let named: BTreeSet<_> = found.iter().map(|(b, _)| (b.chunk, b.number)).collect();
        let expected: BTreeSet<_> = harmed.iter().map(|(key, _)| *key).collect();
        assert_eq!(named, expected, "seed {seed}");
        for (version, _) in &found {
            let data = world.data(tag_of(version).expect("named above"), 1);
            let token = world.fresh();
            world.store.repair(token, ID, version, &data).expect("there is room");
        }
        // The world goes on, and may end at any moment; what was not mended by then is found anew.
        for _ in 0..world.rng.below(30) {
            world.pump(3);
        }
        if world.rng.once_in(2) {
            let rng = &mut world.rng;
            world.disk.power_cut(&mut |n| rng.below(n));
            world.disk.clear_faults(); // sectors are mended by the writes to come
            world.reopen();
        }
        rest(&mut world);
        audit(&world.store).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let persisted = world.replicas[&ID].persisted as u64;
        world.store.apply(ID, ogive_types::Index(persisted));
        for (version, _) in scrub(&mut world).1 {
            let data = world.data(tag_of(&version).expect("no other is damaged"), 1);
            world.store.repair(1, ID, &version, &data).expect("there is room");
        }
        rest(&mut world);
        assert_eq!(scrub(&mut world).1, vec![], "seed {seed}: all is mended");
        mended += found.len();
        world.disk.clear_faults();
        world.compare_content();
        world.store.start_checkpoint();
        world.settle();
        audit(&world.store).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        world.crash();
        for _ in 0..200 {
            world.step_on(ID, &Mix::default());
        }
        world.crash();
    }
    assert!(mended > 90, "{mended}");
}

/// Bytes that are not right, and versions that are gone, are refused; nothing changes.
#[test]
fn wrong_bytes_and_replaced_blocks_are_refused() {
    let mut world = lived(5, 300);
    let ((chunk, number), tag) = content(&world)[0];
    let at = find(&world, tag);
    world.disk.flip_bit(at, 0);
    let (_, found) = scrub(&mut world);
    let [(version, ReadError::Checksum)] = found[..] else { panic!("{found:?}") };
    assert_eq!((version.chunk, version.number), (chunk, number));
    let (right, wrong) = (world.data(tag, 1), world.data(tag + (1 << 30), 1));
    let free = world.store.stats().blocks_free;
    let refused = world.store.repair(1, ID, &version, &wrong);
    assert_eq!(refused, Err(RepairError::Checksum));
    let other = BlockVersion { index: version.index.next(), ..version };
    assert_eq!(world.store.repair(1, ID, &other, &right), Err(RepairError::Replaced));
    let other = BlockVersion { sum: BlockSum(version.sum.0 ^ 1), ..version };
    assert_eq!(world.store.repair(1, ID, &other, &right), Err(RepairError::Checksum));
    assert_eq!(world.store.stats().blocks_free, free);
    world.store.repair(1, ID, &version, &right).expect("this is it");
    let events = rest(&mut world);
    assert!(matches!(events[..], [StoreEvent::Repaired { token: 1 }]), "{events:?}");
    world.compare_content();
}

/// A bad sector is one block's damage, not that of all which were read with it; the rest of the
/// result is there, and its place is not used again.
#[test]
fn a_sector_that_cannot_be_read_costs_one_block() {
    let mut world = lived(8, 0);
    let chunk = ChunkId { volume: VolumeId(1), number: 0 };
    let data = world.data(500, 16);
    let sums = ogive_types::block_sums(&data);
    let op = ogive_types::message::Op::Write { chunk, range: range(FIRST, 16), sums };
    let term = ogive_types::Term(9);
    let entry = Entry { term, op, tag: 500 };
    world.append(ID, std::rc::Rc::new(entry)).expect("there is room");
    world.settle();
    world.apply(ID, world.replicas[&ID].persisted);
    world.settle();
    let at = find(&world, 507);
    world.disk.fail_reads(at..at + 512);
    world.store.read(4, ID, chunk, range(FIRST, BLOCKS));
    let events = rest(&mut world);
    let [StoreEvent::Damaged(damage), StoreEvent::ReadDone { token: 4, result: Err(_) }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    let [bad] = damage.blocks[..] else { panic!("{damage:?}") };
    assert!(matches!(bad.error, ReadError::Device(_)));
    assert_eq!((bad.at, bad.block.number), (7, FIRST + 7));
    let rest_of_it = damage.rest.as_ref().expect("there is memory");
    for (at, bytes) in rest_of_it.chunks_exact(BLOCK_BYTES).enumerate().filter(|(n, _)| *n != 7) {
        assert_eq!(bytes, block(if at < 16 { 500 + at as u64 } else { 0 }), "block {at}");
    }
    let right = world.data(507, 1);
    assert_eq!(block_sum(&right), bad.block.sum);
    world.store.repair(1, ID, &bad.block, &right).expect("there is room");
    rest(&mut world);
    // Its entry is kept for followers and still names the old place, but is read from the new one.
    let index = bad.block.index;
    world.store.read_entry(5, ID, index);
    let events = rest(&mut world);
    let [StoreEvent::ReadDone { token: 5, result: Ok(all) }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(all[..], world.data(500, 16)[..]);
    assert_eq!(world.store.stats().blocks_retired, 0, "the entry names it");
    world.store.release(ID, index);
    assert_eq!(world.store.stats().blocks_retired, 1);
    audit(&world.store).expect("retired is neither free nor used");
    world.compare_content();
}
