//! Options of the commands for people.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ogive_bench::rpc::{Contender, PeerKind};
use ogive_rpc::transport::PathChoice;

use super::{MdsClient, parse_size};

/// Options of `ogive demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Directory of everything that the demo makes. It must not exist, or be left over from a demo.
    #[arg(long, env = "OGIVE_DEMO_DIR", default_value = "/tmp/ogive-demo", value_name = "DIR")]
    pub dir: PathBuf,
    /// Leave the cluster running at the end, and say how to go on.
    #[arg(long, env = "OGIVE_DEMO_KEEP")]
    pub keep: bool,
    /// Stop a cluster that an earlier demo left running, remove its directory, and do nothing else.
    #[arg(long, conflicts_with = "keep")]
    pub stop: bool,
    /// Size of each of the three devices.
    #[arg(long, env = "OGIVE_DEMO_DEVICE", default_value = "1GiB", value_parser = parse_size,
        value_name = "SIZE")]
    pub device: u64,
    /// Seconds of each measured phase.
    #[arg(long, env = "OGIVE_DEMO_SECONDS", default_value_t = 3, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Which path the processes of the cluster take to each other: auto (the best that this build
    /// and this machine have), tcp, shm or rdma.
    #[arg(long, env = "OGIVE_TRANSPORT", default_value = "auto", value_name = "PATH")]
    pub transport: PathChoice,
    /// Directory to copy onto the volume; by default a tree made for the purpose.
    #[arg(long, env = "OGIVE_DEMO_TREE", value_name = "DIR")]
    pub tree: Option<PathBuf>,
}

/// Options of `ogive volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume. It takes space only where it is written.
    Create {
        /// The metadata servers.
        #[command(flatten)]
        mds: MdsClient,
        /// Name: letters, digits and . _ - /
        name: String,
        /// Size, a multiple of 4 KiB, at least 1 MiB.
        #[arg(long, value_parser = parse_size, value_name = "SIZE")]
        size: u64,
        /// Spread neighbouring data over so many chunks (a power of two up to 64).
        #[arg(long, default_value_t = 1, value_name = "N")]
        stripe_chunks: u32,
        /// In pieces of this size (a power of two from 4 KiB to 16 MiB).
        #[arg(long, default_value = "16MiB", value_parser = parse_size, value_name = "SIZE")]
        stripe_unit: u64,
    },
    /// List all volumes.
    List {
        /// The metadata servers.
        #[command(flatten)]
        mds: MdsClient,
    },
    /// Show one volume.
    Show {
        /// The metadata servers.
        #[command(flatten)]
        mds: MdsClient,
        /// Its name.
        name: String,
    },
    /// Delete a volume with all of its data.
    Delete {
        /// The metadata servers.
        #[command(flatten)]
        mds: MdsClient,
        /// Its name.
        name: String,
        /// Delete it even if a gateway holds it.
        #[arg(long)]
        force: bool,
    },
    /// Change the size of a volume. Clients see the new size when they connect again.
    Resize {
        /// The metadata servers.
        #[command(flatten)]
        mds: MdsClient,
        /// Its name.
        name: String,
        /// The new size, a multiple of 4 KiB.
        #[arg(long, value_parser = parse_size, value_name = "SIZE")]
        size: u64,
    },
}

/// Options of `ogive hwtest`.
#[derive(Clone, Debug, Args)]
pub struct HwtestArgs {
    /// Directory or device whose storage to look at.
    #[arg(default_value = ".", value_name = "PATH")]
    pub path: PathBuf,
    /// Measure the latency of the storage for half a second (writes a temporary file; directories
    /// only).
    #[arg(long)]
    pub measure: bool,
}

/// Options of `ogive bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Load an NBD export and print rates and latencies. Writes destroy what is there.
    Volume(BenchVolumeArgs),
    /// Measure the transports of the data plane between two processes of this machine, beside
    /// references in the same run.
    #[command(long_about = RPC_ABOUT, after_long_help = RPC_EXAMPLES)]
    Rpc(BenchRpcArgs),
    /// Measure the engine of one shard on a file or device, without a network, beside fio on the
    /// same one. Everything on it is lost.
    #[command(long_about = STORE_ABOUT, after_long_help = STORE_EXAMPLES)]
    Store(BenchStoreArgs),
    /// Measure the replication core in one thread: processor time per committed operation and node,
    /// and for idle copysets. `make bench-copyset` has raft-rs and openraft beside it.
    Copyset(BenchCopysetArgs),
    /// The other end of `rpc`, which starts it.
    #[command(hide = true)]
    RpcPeer(BenchRpcPeerArgs),
}

/// What `ogive bench rpc` does, and how its figures are meant.
const RPC_ABOUT: &str = "\
Measure the transports of the data plane between two processes of this machine, beside references \
in the same run.

Both ends spin on a core of their own. Each size is echoed at depth 1 (round trip); at the other \
depths the request carries the data and the answer is short, as for a write (rate, bandwidth). 64 \
bytes travel in the body of a frame; more than 512 travel as its payload, with a body of 48 bytes.

References: `bare` is a program that spins on a plain TCP socket and moves as many bytes as our \
frames have, writing each message by itself; `tonic` is a unary gRPC call with the same data; \
`ucx` is ucx_perftest (active messages over shared memory) with the data alone, if it is \
installed. A path that this build or this machine does not have is named with the reason, and is \
no error.

The contenders take turns in each round, so that other load hits all alike: trust the ratios, and \
the spread beside them, more than the microseconds. CPU is the processor time of both ends for a \
request and its answer; an end that spins without work burns it too, so compare it at depth 32 and \
more. The table at the end judges the budgets: the exit code is 0 also when one is not met.";

/// Calls of `ogive bench rpc` that are worth knowing.
const RPC_EXAMPLES: &str = "\
Examples:
  ogive bench rpc                              everything: a few minutes
  ogive bench rpc --path tcp --size 4KiB       TCP beside the plain socket and tonic
  ogive bench rpc --size 4KiB --depth 1 --rounds 21 --seconds 0.1
                                               many short rounds, for a machine with other load
  ogive bench rpc --json > rpc.json            all measurements";

/// What `ogive bench store` does, and how its figures are meant.
const STORE_ABOUT: &str = "\
Measure the engine of one shard on a file or device, without a network, beside fio on the same \
one. Everything on it is lost.

The first half of the file is formatted for a store, the second is fio's. One thread, bound to a \
core, does what a shard does: starts requests, hands the store's operations to the disk ring, \
takes what ended. A write ends when it is on stable storage; a read when its checksum was right. \
fio (io_uring, O_DIRECT, one thread on the same core) takes turns with it in each round, so that \
other load hits both alike: trust the ratios, and the spread beside them, more than the \
microseconds.

The same durability: where the device has a volatile cache, the store shares one flush among all \
writes that ended before it began. `fio` then flushes once for each DEPTH writes, which is what a \
group commit at that depth is at its best. It promises less: fio counts a write before its flush \
has ended. At depth 1 both are a write and then a flush. `fio, writers` is DEPTH threads that each \
flush after every write: every write is on stable storage when it counts, and nothing is shared. \
Without a volatile cache nobody flushes.

The sequential cases come first, on space that is not scattered yet. A mean latency of fio with \
flushes follows from its rate; percentiles are not given, since its flushes are requests of their \
own. CPU is the processor time of the thread for a request: a loop that spins burns all of it, so \
compare it with --wait sleep, which is also how fio waits. `engine` is the part of it within the \
engine, and `device` is bytes written to the device for each byte of data, by /proc/self/io.

Then: device bytes over whole checkpoints; the engine alone, every operation of which ends at \
once; and, with --mapped, recovery, checkpoint and memory for so much mapped data, on a sparse \
file in the same folder. The table at the end judges the budgets: the exit code is 0 also when one \
is not met.";

/// Calls of `ogive bench store` that are worth knowing.
const STORE_EXAMPLES: &str = "\
Examples:
  ogive bench store /data/bench.ogive          a file of 4 GiB, made and removed: five minutes
  ogive bench store /dev/nvme1n1 --force       a whole device; what is on it is lost
  ogive bench store b --case 'random write' --rounds 9
                                               one kind of case, more rounds
  ogive bench store b --case none --mapped 10GiB,100GiB
                                               recovery and memory alone
  ogive bench store b --wait sleep --json      a loop that sleeps, as fio does; all measurements";

/// Options of `ogive bench volume`.
#[derive(Clone, Debug, Args)]
pub struct BenchVolumeArgs {
    /// NBD URI, such as nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME.
    pub uri: String,
    /// Requests in flight.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub depth: usize,
    /// Connections to the export, each with `depth` requests in flight.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub connections: usize,
    /// Bytes of a request, a multiple of 512, with --verify of 4 KiB.
    #[arg(long, default_value = "4KiB", value_parser = parse_size, value_name = "SIZE")]
    pub block: u64,
    /// Percentage of reads; the rest are writes.
    #[arg(long, default_value_t = 100, value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100))]
    pub reads: u8,
    /// Neighbouring blocks in order instead of random ones.
    #[arg(long)]
    pub sequential: bool,
    /// How long to measure.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub seconds: u64,
    /// Start so many requests a second, however long they take (open loop), instead of keeping
    /// `depth` in flight.
    #[arg(long, value_name = "IOPS")]
    pub rate: Option<u64>,
    /// Use only the first part of the export.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub range: Option<u64>,
    /// Check every block that is read against what was written, and all of them at the end.
    #[arg(long)]
    pub verify: bool,
    /// Seed of the random offsets.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Options of `ogive bench rpc`.
#[derive(Clone, Debug, Args)]
pub struct BenchRpcArgs {
    /// Paths to measure, separated by commas: rdma, shm, tcp; by default all.
    #[arg(long, visible_alias = "transport", value_delimiter = ',', value_name = "PATHS",
        default_value = "rdma,shm,tcp", value_parser = parse_path)]
    pub path: Vec<Contender>,
    /// Bytes of data in a message, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "SIZES", default_value = "64,4KiB,64KiB,1MiB",
        value_parser = parse_size)]
    pub size: Vec<u64>,
    /// Requests in flight, separated by commas. Where that were more than 32 MiB it is left out.
    #[arg(long, value_delimiter = ',', value_name = "DEPTHS", default_value = "1,32,256")]
    pub depth: Vec<usize>,
    /// Length of one measurement; a fifth of it more warms up.
    #[arg(long, default_value_t = 0.3, value_name = "N", value_parser = parse_seconds)]
    pub seconds: f64,
    /// Measurements of each contender in each case.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: usize,
    /// Measure our own paths only.
    #[arg(long)]
    pub no_references: bool,
}

/// Options of `ogive bench store`.
#[derive(Clone, Debug, Args)]
pub struct BenchStoreArgs {
    /// The file, which is made if it does not exist and then removed at the end, or the device.
    pub path: PathBuf,
    /// Size of a file to make.
    #[arg(long, default_value = "4GiB", value_parser = parse_size, value_name = "SIZE")]
    pub size: u64,
    /// Overwrite what is there.
    #[arg(long)]
    pub force: bool,
    /// Length of one measurement; a fifth of it more warms up.
    #[arg(long, default_value_t = 1.0, value_name = "N", value_parser = parse_seconds)]
    pub seconds: f64,
    /// Measurements of each contender in each case.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: usize,
    /// Measure the store only.
    #[arg(long)]
    pub no_fio: bool,
    /// How the store's loop waits: spin, as a busy shard does, or sleep, as fio does.
    #[arg(long, default_value = "spin", value_name = "HOW")]
    pub wait: WaitArg,
    /// Only cases whose names contain this, such as `random write`; may be repeated. `none` leaves
    /// all out.
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// Measure recovery, checkpoint and memory for so much mapped data; sizes separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "SIZES", value_parser = parse_size)]
    pub mapped: Vec<u64>,
}

/// Options of `ogive bench copyset`.
#[derive(Clone, Debug, Args)]
pub struct BenchCopysetArgs {
    /// Numbers of copysets to spread operations over, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,1000", value_name = "NUMBERS",
        value_parser = parse_copysets)]
    pub groups: Vec<usize>,
    /// Numbers of idle copysets, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_name = "NUMBERS",
        value_parser = parse_copysets)]
    pub idle: Vec<usize>,
    /// Operations of one round.
    #[arg(long, default_value_t = 200_000, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub operations: u64,
    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 5, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
}

/// A number of copysets that fits into the memory of a laptop.
fn parse_copysets(text: &str) -> Result<usize, String> {
    let number: usize = text.trim().parse().map_err(|e| format!("{e}"))?;
    match number {
        1..=100_000 => Ok(number),
        _ => Err("write a number from 1 to 100000".into()),
    }
}

/// How the loop of `ogive bench store` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitArg {
    /// It looks again at once.
    Spin,
    /// It sleeps in the kernel.
    Sleep,
}

/// Options of `ogive bench rpc-peer`.
#[derive(Clone, Debug, Args)]
pub struct BenchRpcPeerArgs {
    /// What to serve: rdma, shm, tcp, bare or tonic.
    pub kind: PeerKind,
    /// Core to run on.
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
}

fn parse_path(text: &str) -> Result<Contender, String> {
    let path = Contender::PATHS.into_iter().find(|path| path.name() == text);
    path.ok_or_else(|| "write rdma, shm or tcp".into())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(_) if (0.001..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number from 0.001 to 600".into()),
    }
}
