//! What a run is like: all of it follows from the seed.

use std::time::Duration;

use ogive_shard::ScrubOptions;

use crate::net::Delays;
use crate::rng::Rng;

/// A known bug to put in, to prove that the checks find it. The shards stay as they are: the
/// simulated environment lies to them, so that one of their defences does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Disks report flushes that did not happen: entries are acknowledged before they are durable.
    LyingFlush,
    /// Late requests carry the newest epoch: the fence against older attachments is open.
    LieEpoch,
    /// Late requests carry the newest incarnation of their session.
    LieIncarnation,
    /// Late requests carry the term of whoever leads when they arrive.
    LieTerm,
    /// Every vote is granted.
    ForgeVotes,
    /// Followers seem to have taken appends before they look at them.
    ForgeAppends,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 6] = [
        Mutant::LyingFlush,
        Mutant::LieEpoch,
        Mutant::LieIncarnation,
        Mutant::LieTerm,
        Mutant::ForgeVotes,
        Mutant::ForgeAppends,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mutant::LyingFlush => "lying-flush",
            Mutant::LieEpoch => "lie-epoch",
            Mutant::LieIncarnation => "lie-incarnation",
            Mutant::LieTerm => "lie-term",
            Mutant::ForgeVotes => "forge-votes",
            Mutant::ForgeAppends => "forge-appends",
        }
    }
}

impl std::str::FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Mutant, String> {
        let known = Mutant::ALL.iter().find(|m| m.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<_> = Mutant::ALL.iter().map(|m| m.name()).collect();
            format!("no such bug; there are {}", names.join(", "))
        })
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Simulated microseconds of load and faults, before healing.
    pub chaos_us: u64,
    /// False for a run without faults.
    pub faults: bool,
    /// A bug to put in.
    pub mutant: Option<Mutant>,
    /// Print what happens.
    pub trace: bool,
}

impl Options {
    /// A run of a seed with its usual length.
    pub fn seed(seed: u64) -> Options {
        Options { seed, chaos_us: 6_000_000, faults: true, mutant: None, trace: false }
    }
}

/// The shape of a world.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) servers: u32,
    pub(crate) shards: u16,
    pub(crate) copysets: u32,
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
    pub(crate) delays: Delays,
    pub(crate) io_timeout: Option<Duration>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) allocated: bool,
    pub(crate) drift_ppm: i64,
    pub(crate) scrub: ScrubOptions,
    /// How many of the copies for repairs arrive spoilt.
    pub(crate) spoilt_percent: u64,
}

impl Shape {
    pub(crate) fn draw(rng: &mut Rng) -> Shape {
        let delays = Delays { base_us: rng.between(10, 300), jitter_us: rng.between(10, 2_000) };
        Shape {
            servers: 3,
            shards: if rng.chance(30) { 2 } else { 1 },
            copysets: rng.between(1, 4) as u32,
            volumes: rng.between(1, 2),
            depth: rng.between(1, 8),
            think_us: rng.pick(&[500, 3_000, 20_000]),
            hot_blocks: rng.pick(&[1, 2, 4, 4, 16, 64, 600, 1_500]),
            chunks: rng.between(1, 4),
            volatile_cache: rng.chance(70),
            retain_entries: rng.pick(&[4, 16, 64, 16_384]),
            retain_bytes: rng.pick(&[0, 64 << 10, 4 << 20]),
            disk_us: rng.pick(&[30, 100, 1_000, 5_000]),
            delays,
            io_timeout: rng.chance(30).then(|| Duration::from_millis(rng.between(100, 3_000))),
            attempt_timeout: Duration::from_millis(rng.pick(&[150, 400, 1_000])),
            allocated: rng.chance(50),
            drift_ppm: rng.pick(&[0, 100, 450]),
            scrub: ScrubOptions {
                bytes_per_second: rng.pick(&[8 << 20, 64 << 20]),
                pause: Duration::from_millis(rng.pick(&[200, 1_000, 3_000])),
            },
            spoilt_percent: rng.pick(&[0, 0, 30]),
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A chunkserver's process is killed; its disk keeps what was written.
    Kill,
    /// A chunkserver loses its power, and what was not flushed.
    PowerCut,
    /// The leader of some copyset is killed or loses its power.
    LeaderCrash,
    /// One side of a catch-up by delta is killed, loses its power, or the connection.
    DeltaBroken,
    /// All chunkservers lose their power at once.
    Blackout,
    /// One host cannot reach, or be reached by, the others.
    Isolate,
    /// One direction between two hosts is cut.
    OneWay,
    /// A connection breaks.
    Reset,
    /// One direction of a connection is held up for long.
    Stall,
    /// What clients have sent to a leader is held up, and it loses its leadership meanwhile.
    LateRequests,
    /// Everything between two hosts is slow for a while.
    SlowNetwork,
    /// A disk is slow for a while.
    SlowDisk,
    /// A process stands still for a while.
    Pause,
    /// A disk fails a write.
    DiskError,
    /// Bits of stored blocks flip.
    Rot,
    /// Sectors cannot be read any more.
    BadSector,
    /// Blocks hold what was written for others.
    Misdirected,
    /// A volume is attached anew while its former client goes on.
    TakeOver,
    /// A client's process is killed, and its volume attached anew.
    ClientCrash,
    /// The metadata servers do not answer for a while.
    MetadataDown,
}

impl Fault {
    pub(crate) const ALL: [Fault; 20] = [
        Fault::Kill,
        Fault::PowerCut,
        Fault::LeaderCrash,
        Fault::DeltaBroken,
        Fault::Blackout,
        Fault::Isolate,
        Fault::OneWay,
        Fault::Reset,
        Fault::Stall,
        Fault::LateRequests,
        Fault::SlowNetwork,
        Fault::SlowDisk,
        Fault::Pause,
        Fault::DiskError,
        Fault::Rot,
        Fault::BadSector,
        Fault::Misdirected,
        Fault::TakeOver,
        Fault::ClientCrash,
        Fault::MetadataDown,
    ];

    /// Mean time between two of them in simulated microseconds, when it happens at all.
    pub(crate) fn mean_us(self) -> u64 {
        match self {
            Fault::Blackout | Fault::DiskError => 4_000_000,
            // Looked for often, since deltas are short and rare.
            Fault::DeltaBroken => 3_000,
            Fault::Reset | Fault::Stall => 150_000,
            Fault::Rot | Fault::BadSector | Fault::Misdirected => 300_000,
            Fault::SlowDisk | Fault::SlowNetwork | Fault::Pause => 700_000,
            _ => 1_200_000,
        }
    }
}
