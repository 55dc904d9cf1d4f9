//! Damage that a power cut cannot explain: it is found and named, and never served.

use std::collections::BTreeSet;

use ogive_store::{OpenError, ReadError, RegionIo, RegionLayout, Store, StoreEvent, audit};
use ogive_types::{BLOCK_BYTES, ChunkId, CopysetId, VolumeId};

use ogive_crash::rng::Rng;
use ogive_crash::world::{BLOCKS, FIRST, Mix, Setup, World, block, range};

const ID: CopysetId = CopysetId(1);

/// A world at rest that has lived for so many steps.
fn lived(seed: u64, steps: u64) -> World {
    let mut rng = Rng(seed);
    let setup = Setup { device_bytes: 9 << 20, ..Setup::draw(&mut rng) };
    let mut world = World::with(setup, rng);
    world.create(ID);
    for _ in 0..steps {
        world.step_on(ID, &Mix::default());
    }
    world.settle();
    world
}

fn layout(world: &World) -> RegionLayout {
    world.label.regions()[0].layout().expect("it was formatted")
}

fn open(world: &mut World) -> Result<Store, OpenError> {
    let options = world.setup.options.clone();
    Store::open(&mut world.disk, &world.label, 0, world.pool.clone(), options)
}

#[test]
fn rot_in_the_log_is_not_taken_for_a_torn_tail() {
    let mut found = 0;
    for seed in 0..40 {
        // Without a checkpoint the log is needed from its first byte on.
        let mut world = World::new(seed);
        world.create(ID);
        for _ in 0..12 {
            let entry = world.draw_entry(ID, &Mix { blocks_max: 4, ..Mix::default() });
            world.append(ID, entry).expect("room for a few");
            world.settle();
        }
        let log = layout(&world).log_start;
        let batches = world.store.stats().log_bytes_used / u64::from(world.setup.sector);
        // The last two: the newest mark that is on the device lies before them.
        let sector = world.rng.below(batches - 2) * u64::from(world.setup.sector);
        let at = log + sector + world.rng.below(64);
        world.disk.flip_bit(at, world.rng.below(8) as u8);
        match open(&mut world) {
            Err(OpenError::LogRot { .. }) => found += 1,
            Err(other) => panic!("seed {seed}: {other}"),
            Ok(_) => panic!("seed {seed}: rot at {sector} was taken for a torn tail"),
        }
    }
    assert_eq!(found, 40);
}

#[test]
fn rotten_data_is_named_and_never_served() {
    let mut world = lived(3, 400);
    let data = layout(&world).data_start;
    let (&(chunk, number), &tag) =
        world.replicas[&ID].state.content.iter().next().expect("something was written");
    let blocks = (world.disk.len() - data) / BLOCK_BYTES as u64;
    let mut bytes = vec![0; BLOCK_BYTES];
    let places = (0..blocks).map(|n| data + n * BLOCK_BYTES as u64);
    let mut places = places.filter(|&at| {
        world.disk.read_at(at, &mut bytes).expect("a disk in memory");
        bytes == block(tag)
    });
    let at = places.next().expect("it is on the device");
    drop(places);
    world.disk.flip_bit(at + 1234, 5);

    world.store.read(1, ID, chunk, range(FIRST, BLOCKS));
    let mut events = Vec::new();
    while events.is_empty() {
        let mut ops = Vec::new();
        world.store.poll_ops(&mut ops);
        ops.into_iter().for_each(|op| world.disk.submit(op));
        while let Some(done) = world.disk.complete_next(&mut |_| 0) {
            world.store.complete(done);
        }
        world.store.poll_events(&mut events);
    }
    let damaged = events.iter().any(|event| {
        let StoreEvent::Damaged(damage) = event else { return false };
        let [found] = damage.blocks[..] else { return false };
        damage.copyset == ID && (found.block.chunk, found.block.number) == (chunk, number)
    });
    assert!(damaged, "{events:?}");
    let result = events.into_iter().find_map(|event| match event {
        StoreEvent::ReadDone { token: 1, result } => Some(result),
        _ => None,
    });
    assert_eq!(result.expect("it ends").err(), Some(ReadError::Checksum));
}

/// Parts of the region that hold something, as start and length.
fn structures(world: &World) -> Vec<(u64, u64)> {
    let layout = layout(world);
    let mut parts = vec![(layout.superblock[0], 128), (layout.superblock[1], 128)];
    for start in layout.directory {
        parts.push((start, 4096));
    }
    parts.push((layout.slots_start, 32 * 4096));
    parts.push((layout.log_start, 64 << 10));
    parts
}

/// Whatever bits flip, `open` ends, and what it opens is consistent.
#[test]
fn damaged_structures_are_refused_or_harmless() {
    let (mut refused, mut opened) = (BTreeSet::new(), 0);
    for seed in 0..12 {
        let mut world = lived(seed, 300);
        world.store.start_checkpoint();
        world.settle();
        for _ in 0..20 {
            world.step_on(ID, &Mix::default());
        }
        world.settle();
        let parts = structures(&world);
        for _ in 0..24 {
            let mut flipped = Vec::new();
            for _ in 0..1 + world.rng.below(3) {
                let (start, len) = parts[world.rng.below(parts.len() as u64) as usize];
                flipped.push((start + world.rng.below(len), world.rng.below(8) as u8));
            }
            let before = superblocks(&world);
            flipped.iter().for_each(|&(at, bit)| world.disk.flip_bit(at, bit));
            match open(&mut world) {
                Ok(store) => {
                    opened += 1;
                    audit(&store).expect("what opens is consistent");
                }
                Err(error) => {
                    refused.insert(kind(&error));
                }
            }
            // Back to how it was: opening writes a superblock and nothing else.
            flipped.iter().for_each(|&(at, bit)| world.disk.flip_bit(at, bit));
            for (at, bytes) in before {
                world.disk.write_at(at, &bytes).expect("a disk in memory");
            }
            world.disk.flush().expect("a disk in memory");
        }
        world.reopen();
        audit(&world.store).expect("consistent once healed");
    }
    assert!(opened > 20, "{opened}");
    assert!(refused.len() >= 2, "{refused:?}");
}

fn superblocks(world: &World) -> Vec<(u64, Vec<u8>)> {
    let one = |at| {
        let mut bytes = vec![0; 4096];
        world.disk.read_at(at, &mut bytes).expect("a disk in memory");
        (at, bytes)
    };
    layout(world).superblock.map(one).to_vec()
}

fn kind(error: &OpenError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(']).next().expect("a name").to_owned()
}

/// A chunk that was never written reads as zeroes, and so does a replica that is not here.
#[test]
fn what_was_never_written_is_zero() {
    let mut world = lived(9, 50);
    world.read(CopysetId(77), ChunkId { volume: VolumeId(1), number: 0 }, range(FIRST, 8));
    world.read(ID, ChunkId { volume: VolumeId(999), number: 7 }, range(FIRST, 8));
    world.settle();
}
