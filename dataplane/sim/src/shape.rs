//! The shape of a world: what it consists of, and how it is used.

use std::time::Duration;

use ogive_shard::ScrubOptions;

use crate::limits::{DEVICE_BYTES, DEVICE_BYTES_TIGHT};
use crate::net::Delays;
use crate::rng::Rng;

/// The shape of a world.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) servers: u32,
    pub(crate) shards: u16,
    pub(crate) copysets: u32,
    pub(crate) replicas: u32,
    pub(crate) volumes: u64,
    pub(crate) depth: u64,
    pub(crate) think_us: u64,
    /// Blocks that are written to, for each of the chunks.
    pub(crate) hot_blocks: u64,
    pub(crate) chunks: u64,
    pub(crate) volatile_cache: bool,
    pub(crate) retain_entries: usize,
    pub(crate) retain_bytes: usize,
    pub(crate) disk_us: u64,
    pub(crate) device_bytes: u64,
    pub(crate) delays: Delays,
    pub(crate) io_timeout: Option<Duration>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) handover_after: Duration,
    pub(crate) allocated: bool,
    pub(crate) clocks: Clocks,
    pub(crate) scrub: ScrubOptions,
    /// How many of the copies for repairs arrive spoilt.
    pub(crate) spoilt_percent: u64,
}

/// How far clocks are off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// Each runs slow or fast by up to this much.
    pub(crate) drift_ppm: i64,
    /// A step is at most so long.
    pub(crate) step_us: u64,
    /// More than the lease assumes: what is read may be old then, and nothing else wrong.
    pub(crate) loose: bool,
}

impl Clocks {
    fn draw(rng: &mut Rng) -> Clocks {
        if rng.chance(10) {
            let drift_ppm = rng.pick(&[5_000, 100_000]);
            return Clocks { drift_ppm, step_us: 2_000_000, loose: true };
        }
        // Of the margin of 20 ms, two steps on either side within one lease.
        Clocks { drift_ppm: rng.pick(&[0, 100, 450]), step_us: 4_000, loose: false }
    }
}

impl Shape {
    pub(crate) fn draw(rng: &mut Rng) -> Shape {
        let delays = Delays { base_us: rng.between(10, 300), jitter_us: rng.between(10, 2_000) };
        let servers = if rng.chance(65) { 3 } else { rng.between(4, 9) as u32 };
        let replicas = if servers >= 5 && rng.chance(30) { 5 } else { 3 };
        let copysets = if rng.chance(85) { rng.between(1, 4) } else { rng.between(10, 40) } as u32;
        let clocks = Clocks::draw(rng);
        let many = copysets > 4;
        let tight = !many && rng.chance(8);
        Shape {
            servers,
            shards: rng.pick(&[1, 1, 1, 2, 3]),
            copysets,
            replicas,
            volumes: rng.pick(&[1, 1, 2, 2, if tight { 2 } else { 3 }]),
            depth: rng.between(1, 8),
            think_us: rng.pick(&[500, 3_000, 20_000]),
            hot_blocks: hot_blocks(rng, tight, many),
            // A tight device has few map pages: blocks are to run out before these.
            chunks: if many { 32 } else { rng.between(1, if tight { 2 } else { 4 }) },
            volatile_cache: rng.chance(70),
            retain_entries: rng.pick(&[4, 16, 64, 16_384]),
            retain_bytes: rng.pick(&[0, 64 << 10, 4 << 20]),
            disk_us: rng.pick(&[30, 100, 1_000, 5_000]),
            device_bytes: if tight { DEVICE_BYTES_TIGHT } else { DEVICE_BYTES },
            delays,
            io_timeout: rng.chance(30).then(|| Duration::from_millis(rng.between(100, 3_000))),
            attempt_timeout: Duration::from_millis(rng.pick(&[150, 400, 1_000])),
            handover_after: Duration::from_millis(rng.pick(&[300, 2_000])),
            allocated: rng.chance(50),
            clocks,
            scrub: ScrubOptions {
                bytes_per_second: rng.pick(&[8 << 20, 64 << 20]),
                pause: Duration::from_millis(rng.pick(&[200, 1_000, 3_000])),
            },
            spoilt_percent: rng.pick(&[0, 0, 30]),
        }
    }

    /// Whether writes of parts of blocks are drawn. They read a block, change it, and write it
    /// back: read from a leader that takes itself for one for too long, it would be an old one.
    pub(crate) fn parts_of_blocks(&self) -> bool {
        !self.clocks.loose
    }
}

fn hot_blocks(rng: &mut Rng, tight: bool, many: bool) -> u64 {
    match (tight, many) {
        (true, _) => 1_500,
        (_, true) => rng.pick(&[1, 4, 16]),
        _ => rng.pick(&[1, 2, 4, 4, 16, 64, 600, 1_500]),
    }
}
