//! What a recorded life is about.

use std::rc::Rc;

use ogive_store::AppendError;
use ogive_types::message::Op;
use ogive_types::{ChunkId, CopysetId, Term, VolumeId, block_sums};

use crate::model::Entry;
use crate::pair::{self, Pair};
use crate::rng::Rng;
use crate::world::{Mix, Setup, World, range};

const ID: CopysetId = CopysetId(1);
/// Steps that are recorded.
const STEPS: u64 = 60;
/// How far from the end of the log ring the recording starts, in sectors.
const BEFORE_LAP: u64 = 6;

/// A kind of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Writes to one copyset.
    Plain,
    /// A little of everything in many copysets.
    Copysets,
    /// Entries are truncated, and others take their place.
    Truncation,
    /// One checkpoint after the other.
    Checkpoints,
    /// The log passes the end of its ring.
    Lap,
    /// The device is full most of the time.
    Full,
    /// More trims than writes.
    Trims,
    /// Volumes and replicas are dropped.
    Drops,
    /// Deltas and resets.
    Delta,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 9] = [
        Scenario::Plain,
        Scenario::Copysets,
        Scenario::Truncation,
        Scenario::Checkpoints,
        Scenario::Lap,
        Scenario::Full,
        Scenario::Trims,
        Scenario::Drops,
        Scenario::Delta,
    ];

    /// The scenario of a seed.
    pub fn of(seed: u64) -> Scenario {
        Scenario::ALL[(seed % Scenario::ALL.len() as u64) as usize]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Plain => "plain writes",
            Scenario::Copysets => "several copysets",
            Scenario::Truncation => "truncation",
            Scenario::Checkpoints => "checkpoints",
            Scenario::Lap => "end of the log ring",
            Scenario::Full => "full device",
            Scenario::Trims => "trims",
            Scenario::Drops => "dropped volumes and replicas",
            Scenario::Delta => "deltas and resets",
        }
    }

    /// What it consists of.
    pub fn mix(self) -> Mix {
        let mix = Mix { blocks_max: 8, copysets: 2, drop_replica: 0, ..Mix::default() };
        match self {
            Scenario::Plain | Scenario::Lap | Scenario::Delta => Mix { copysets: 1, ..mix },
            Scenario::Copysets => Mix { copysets: 6, blocks_max: 4, drop_replica: 100, ..mix },
            Scenario::Truncation => Mix { truncate: 14, pump: 24, ..mix },
            Scenario::Checkpoints => Mix { checkpoint: 8, quiet: 2, ..mix },
            Scenario::Full => {
                let reads = Mix { read: 25, pump: 30, release: 8, trim: 2, ..mix };
                Mix { blocks_max: 16, copysets: 1, truncate: 1, ..reads }
            }
            Scenario::Trims => Mix { trim: 30, write: 20, ..mix },
            Scenario::Drops => Mix { drop_volume: 5, drop_replica: 15, checkpoint: 3, ..mix },
        }
    }

    /// A life that was recorded; its tape has not been taken yet.
    pub fn live(self, seed: u64) -> World {
        if self == Scenario::Delta {
            return deltas(seed);
        }
        let (mix, mut rng) = (self.mix(), Rng(seed));
        let mut setup = Setup::draw(&mut rng);
        if self == Scenario::Lap {
            setup.sector = 4096; // the ring ends sooner
        }
        let mut world = World::with(setup, rng);
        world.create(ID);
        match self {
            Scenario::Lap => approach_lap(&mut world),
            Scenario::Full => fill(&mut world),
            _ => (0..world.rng.below(4 * STEPS)).for_each(|_| world.step(&mix)),
        }
        world.settle();
        world.start_tape();
        for _ in 0..STEPS {
            world.step(&mix);
        }
        world.settle();
        world
    }
}

/// Writes batches until the end of the ring is near.
fn approach_lap(world: &mut World) {
    let stats = world.store.stats();
    let sector = u64::from(world.setup.sector);
    while world.store.stats().written.log_bytes < stats.log_bytes - BEFORE_LAP * sector {
        world.save_hard(ID);
        world.settle();
    }
}

/// Fills the device with one chunk.
fn fill(world: &mut World) {
    let chunk = ChunkId { volume: VolumeId(1), number: 0 };
    for start in (0..4096).step_by(16) {
        loop {
            let tag = world.fresh_run(16);
            let sums = block_sums(&world.data(tag, 16));
            let op = Op::Write { chunk, range: range(start, 16), sums };
            match world.append(ID, Rc::new(Entry { term: Term(1), op, tag })) {
                Ok(()) => break,
                Err(AppendError::NoSpace) => return apply_all(world),
                Err(AppendError::Busy) => apply_all(world),
                Err(AppendError::Failed) => panic!("the device is well"),
            }
        }
    }
    panic!("the device is not so large");
}

fn apply_all(world: &mut World) {
    world.settle();
    let persisted = world.replicas[&ID].persisted;
    world.apply(ID, persisted);
}

/// The one of a pair that lags.
fn deltas(seed: u64) -> World {
    let mut pair = Pair::new(seed);
    pair.power_cuts = false;
    pair.source_lives(STEPS);
    pair.to.start_tape();
    for _ in 0..3 {
        pair.follow(6);
        if pair.to.rng.once_in(3) {
            pair.to.store.start_checkpoint();
        }
        if pair.delta().is_err() {
            break; // the device is full
        }
        if pair.to.rng.once_in(2) {
            // While the record of the reset waits for a batch: the checkpoint has it already.
            pair.to.store.start_checkpoint();
        }
        pair.source_lives(STEPS / 4);
    }
    let mut world = pair.to;
    world.settle();
    world.apply(pair::ID, world.replicas[&pair::ID].persisted);
    world
}
