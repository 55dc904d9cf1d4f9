//! Load that a small device cannot hold: an endless one, one too fast, one too large.

use std::rc::Rc;

use ogive_store::{AppendError, audit};
use ogive_types::message::Op;
use ogive_types::{ChunkId, CopysetId, Term, VolumeId, block_sums};

use ogive_crash::model::Entry;
use ogive_crash::rng::Rng;
use ogive_crash::world::{FIRST, Setup, World, range};

const ID: CopysetId = CopysetId(1);

fn world(seed: u64) -> World {
    let mut rng = Rng(seed);
    let mut setup = Setup::draw(&mut rng);
    setup.device_bytes = 9 << 20;
    let mut world = World::with(setup, rng);
    world.create(ID);
    world
}

fn write(world: &mut World, volume: u64, start: u16, blocks: u16) -> Result<(), AppendError> {
    let tag = world.fresh();
    for _ in 1..blocks {
        world.fresh();
    }
    let chunk = ChunkId { volume: VolumeId(volume), number: 0 };
    let sums = block_sums(&world.data(tag, blocks));
    let op = Op::Write { chunk, range: range(start, blocks), sums };
    world.append(ID, Rc::new(Entry { term: Term(1), op, tag }))
}

fn other(world: &mut World, op: Op) {
    let entry = Rc::new(Entry { term: Term(1), op, tag: 0 });
    world.append(ID, entry).expect("takes no blocks");
}

fn apply_all(world: &mut World) {
    world.settle();
    let persisted = world.replicas[&ID].persisted;
    world.apply(ID, persisted);
}

/// Many laps of the smallest ring there is.
#[test]
fn an_endless_load_never_fills_the_log() {
    let mut world = world(1);
    let mut laps = 0.0;
    while laps < 4.0 {
        let start = FIRST + world.rng.below(40) as u16;
        if write(&mut world, 1, start, 8).is_err() {
            world.settle(); // it must come to rest, and go on
        }
        world.pump(2);
        let persisted = world.replicas[&ID].persisted;
        world.apply(ID, persisted);
        let stats = world.store.stats();
        laps = stats.written.log_bytes as f64 / stats.log_bytes as f64;
    }
    assert!(world.store.stats().checkpoints >= 6, "{:?}", world.store.stats());
    apply_all(&mut world);
    world.crash();
    world.compare_content();
}

/// More records wait than the ring can hold, and a checkpoint begins among them.
#[test]
fn a_backlog_longer_than_the_ring_drains() {
    for seed in 0..4 {
        let mut world = world(seed);
        for _ in 0..6 {
            while let Ok(()) = {
                let volume = VolumeId(1);
                let trim = Op::Trim { chunk: ChunkId { volume, number: 0 }, range: range(0, 1) };
                world.append(ID, Rc::new(Entry { term: Term(1), op: trim, tag: 0 }))
            } {}
            world.pump(1);
            world.store.start_checkpoint();
            world.pump(1);
        }
        assert!(world.refused > 0, "a backlog is bounded");
        apply_all(&mut world);
        audit(&world.store).expect("consistent at rest");
        world.crash();
    }
}

/// Entries that nobody commits are refused before a checkpoint cannot hold them any more.
#[test]
fn entries_that_wait_for_their_commit_are_bounded() {
    let mut world = world(3);
    let volume = VolumeId(1);
    let trim = || Op::Trim { chunk: ChunkId { volume, number: 0 }, range: range(0, 1) };
    let mut appended = 0;
    while let Ok(()) = world.append(ID, Rc::new(Entry { term: Term(1), op: trim(), tag: 0 })) {
        appended += 1;
        if appended % 100 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.store.start_checkpoint();
    world.settle();
    assert!(appended > 5_000, "{appended}");
    other(&mut world, Op::Noop); // a new leader must always get through
    apply_all(&mut world);
    other(&mut world, trim());
    world.crash();
    assert_eq!(world.logs[&ID].entries.len(), appended + 1, "and the last was in flight");
}

/// Fills the device; how many blocks it took.
fn fill(world: &mut World, volume: u64) -> u64 {
    let mut taken = 0;
    for start in (0..4096).step_by(16) {
        loop {
            match write(world, volume, start, 16) {
                Ok(()) => break taken += 16,
                Err(AppendError::Busy) => apply_all(world),
                Err(AppendError::NoSpace) => return taken,
                Err(AppendError::Failed) => panic!("the device is well"),
            }
        }
        world.pump(4);
        let persisted = world.replicas[&ID].persisted;
        world.apply(ID, persisted);
    }
    panic!("the device is not so large");
}

#[test]
fn a_full_device_reads_on_and_recovers() {
    let mut world = world(5);
    let all = fill(&mut world, 1);
    let stats = world.store.stats();
    assert!(all + 16 > stats.blocks, "everything can be used: {all} of {}", stats.blocks);
    apply_all(&mut world);
    let chunk = ChunkId { volume: VolumeId(1), number: 0 };
    world.read(ID, chunk, range(0, 64));
    world.settle();

    other(&mut world, Op::Trim { chunk, range: range(0, 160) });
    apply_all(&mut world);
    let again = fill(&mut world, 2);
    assert!(again + 16 > 160, "what was trimmed is used again: {again}");
    apply_all(&mut world);
    world.crash();

    other(&mut world, Op::DropVolume { volume: VolumeId(1) });
    apply_all(&mut world);
    let again = fill(&mut world, 3);
    assert!(again + 48 > all - 160, "what was dropped is used again: {again} of {all}");
    apply_all(&mut world);
    audit(&world.store).expect("consistent when full");
    world.read(ID, ChunkId { volume: VolumeId(3), number: 0 }, range(0, 64));
    world.settle();
}

/// A block that is written again and again on a device that is full but for it.
#[test]
fn overwriting_goes_on_when_little_is_free() {
    let mut world = world(7);
    fill(&mut world, 1);
    apply_all(&mut world);
    let chunk = ChunkId { volume: VolumeId(1), number: 0 };
    other(&mut world, Op::Trim { chunk, range: range(0, 16) });
    apply_all(&mut world);
    let mut written = 0;
    for _ in 0..400 {
        match write(&mut world, 1, 16, 8) {
            Ok(()) => written += 1,
            Err(AppendError::Failed) => panic!("the device is well"),
            // Those in flight hold what is free; what they replace is free once they are applied.
            Err(_) => apply_all(&mut world),
        }
    }
    assert!(written >= 150, "{written}");
}
