//! A store on a simulated disk beside its model: what is asked of the one is asked of the other.

mod asks;
mod crash;
mod run;
mod steps;

use std::collections::BTreeMap;
use std::rc::Rc;

use ogive_buf::{Buf, Pool};
use ogive_store::simdisk::{Image, SimDisk};
use ogive_store::{FormatOptions, Label, ReadError, Store, StoreOptions, format};
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, ChunkserverId, CopysetId, ShardAddr};

use crate::model::{Logs, State};
use crate::promise::Promises;
use crate::rng::Rng;

pub use self::steps::Mix;

/// First block that random work touches.
pub const FIRST: u16 = 216;
/// How many it touches: two map pages meet in the middle.
pub const BLOCKS: u16 = 104;
/// Bytes of the buffers of all worlds of a thread.
const POOL_BYTES: usize = 64 << 20;

thread_local! {
    /// One for all: making a pool zeroes megabytes.
    static POOL: Pool = Pool::new(POOL_BYTES);
}

/// The buffers of this thread.
pub fn pool() -> Pool {
    POOL.with(Pool::clone)
}

/// How a world is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The disk has a volatile cache.
    pub volatile: bool,
    /// Bytes that it writes at once.
    pub sector: u32,
    /// Its length.
    pub device_bytes: u64,
    /// How the store runs.
    pub options: StoreOptions,
}

impl Setup {
    /// A small device of which most is under load at any time.
    pub fn draw(rng: &mut Rng) -> Setup {
        let volatile = rng.once_in(2);
        #[allow(clippy::needless_update)] // what is added to the options keeps its default here
        let options = StoreOptions {
            volatile_cache: volatile,
            retain_entries: [2, 40, 10_000][rng.below(3) as usize],
            retain_bytes: [0, 1 << 20][rng.below(2) as usize],
            retain_share: [2, 16][rng.below(2) as usize],
            // Room for none, for a few, or for all pages of the maps.
            map_bytes_max: [0, 6 << 10, 1 << 30][rng.below(3) as usize],
            ..StoreOptions::default()
        };
        let sector = [512, 4096][rng.below(2) as usize];
        let device_bytes = (9 << 20) + rng.below(3) * (1 << 20);
        Setup { volatile, sector, device_bytes, options }
    }
}

/// A replica's part of the model that is not in its log.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// Entries that the store said were persisted.
    pub persisted: usize,
    /// Entries that were applied.
    pub applied: usize,
    /// What they lead to.
    pub state: State,
    /// Before so many entries are applied its content is part of a delta and not known.
    pub clear_at: usize,
}

/// A read in flight, and what it must find if that is known.
pub(crate) struct Reading {
    copyset: CopysetId,
    chunk: ChunkId,
    start: u16,
    expected: Option<Vec<u64>>,
}

/// The store, its disk and its model.
pub struct World {
    /// How it was set up.
    pub setup: Setup,
    /// Where all chance comes from.
    pub rng: Rng,
    /// The disk.
    pub disk: SimDisk,
    /// Its label.
    pub label: Label,
    /// Buffers.
    pub pool: Pool,
    /// The store.
    pub store: Store,
    /// The logs as they were asked for.
    pub logs: Logs,
    /// The rest of the model.
    pub replicas: BTreeMap<CopysetId, Replica>,
    /// What was asked, and how much of it is sure to survive.
    pub promises: Promises,
    pub(crate) reads: BTreeMap<u64, Reading>,
    /// Results of reads for deltas.
    pub delta_reads: BTreeMap<u64, Result<Buf, ReadError>>,
    /// Tokens of deltas and resets that are persisted.
    pub persisted_tokens: Vec<u64>,
    next: u64,
    /// Appends that were refused.
    pub refused: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Checkpoints of stores that were closed since.
    pub checkpoints: u64,
    /// Reads may fail, and the store may report damage.
    pub(crate) faulty: bool,
    /// The store reported that its device failed.
    pub failed: bool,
    /// Damage that the store reported.
    pub damaged: u64,
}

/// The members of every copyset.
pub fn members() -> Vec<ShardAddr> {
    let addr = |n| ShardAddr { server: ChunkserverId(n), shard: 0 };
    (1..=3).map(addr).collect()
}

/// A block of data with a tag; tag 0 is zeroes.
pub fn block(tag: u64) -> Vec<u8> {
    let mut bytes = vec![tag as u8; BLOCK_BYTES];
    if tag != 0 {
        bytes[..8].copy_from_slice(&tag.to_le_bytes());
    }
    bytes
}

/// A range of blocks within a chunk.
pub fn range(start: u16, blocks: u16) -> BlockRange {
    BlockRange::new(start, blocks).expect("within a chunk")
}

/// Data of so many blocks from `tag` on.
pub fn data(pool: &Pool, tag: u64, blocks: u16) -> Buf {
    let mut buf = pool.alloc(usize::from(blocks) * BLOCK_BYTES).expect("memory");
    for (bytes, tag) in buf.chunks_exact_mut(BLOCK_BYTES).zip(tag..) {
        bytes.copy_from_slice(&block(tag));
    }
    buf.freeze()
}

impl World {
    /// A world of which everything follows from `seed`.
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let setup = Setup::draw(&mut rng);
        World::with(setup, rng)
    }

    /// A world on a new device.
    pub fn with(setup: Setup, rng: Rng) -> World {
        let mut disk = SimDisk::new(setup.device_bytes, setup.sector);
        disk.set_volatile_cache(setup.volatile);
        let options = FormatOptions {
            shards: 1,
            sector: setup.sector,
            log_bytes: Some(1 << 20),
            uuid: uuid::Uuid::from_u128(7),
            force: false,
            quick: true,
        };
        let label = format(&mut disk, &options, &mut |_, _| ()).expect("it fits");
        let store = Store::open(&mut disk, &label, 0, pool(), setup.options.clone());
        World::around(setup, rng, disk, label, store.expect("a new device"))
    }

    fn around(setup: Setup, rng: Rng, disk: SimDisk, label: Label, store: Store) -> World {
        World {
            setup,
            rng,
            disk,
            label,
            pool: pool(),
            store,
            logs: Logs::new(),
            replicas: BTreeMap::new(),
            promises: Promises::default(),
            reads: BTreeMap::new(),
            delta_reads: BTreeMap::new(),
            persisted_tokens: Vec::new(),
            next: 0,
            refused: 0,
            crashes: 0,
            checkpoints: 0,
            faulty: false,
            failed: false,
            damaged: 0,
        }
    }

    /// A world that goes on with what was recovered from an image, which must open. `next` is a
    /// number below which no tag and no term is new.
    pub fn resume(
        setup: &Setup,
        label: &Label,
        image: &Image,
        (logs, replicas): (Logs, BTreeMap<CopysetId, Replica>),
        (next, rng): (u64, Rng),
    ) -> World {
        let mut disk = image.to_disk(setup.volatile);
        let store = Store::open(&mut disk, label, 0, pool(), setup.options.clone());
        let store = store.expect("it was opened before");
        let mut world = World::around(setup.clone(), rng, disk, label.clone(), store);
        world.promises = Promises::of(logs.clone());
        (world.logs, world.replicas, world.next) = (logs, replicas, next);
        world
    }

    /// A number that was never given before.
    pub fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The first of so many numbers that were never given before.
    pub fn fresh_run(&mut self, count: u64) -> u64 {
        self.next += count;
        self.next + 1 - count
    }

    /// The newest number given.
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// Data of so many blocks from `tag` on.
    pub fn data(&self, tag: u64, blocks: u16) -> Buf {
        data(&self.pool, tag, blocks)
    }

    /// Records the disk from now on, and what is promised at each place. Nothing may be in flight.
    pub fn start_tape(&mut self) {
        self.promises = Promises::of(self.logs.clone());
        self.disk.start_tape();
        self.note();
    }

    /// Writes down what is promised at this place of the tape.
    pub(crate) fn note(&mut self) {
        let lives = self.logs.iter().map(|(id, log)| (*id, log.life));
        let known = lives.filter_map(|(id, life)| {
            let replica = self.replicas.get(&id)?;
            Some((
                id,
                crate::promise::Known {
                    life,
                    applied: replica.applied,
                    clear_at: replica.clear_at,
                },
            ))
        });
        let known = Rc::new(known.collect());
        self.promises.note(self.disk.tape_len(), known);
    }
}
