//! Options of the processes that make up a cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ogive_reactor::PollMode;
use ogive_rpc::transport::PathChoice;

use super::{MdsClient, parse_size};

/// Options of `ogive mds`.
#[derive(Clone, Debug, Args)]
pub struct MdsArgs {
    /// Number of this server within the group; one of those in --peers.
    #[arg(long, env = "OGIVE_MDS_ID", value_name = "N")]
    pub id: u64,
    /// All servers of the group, this one too: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT. The same list
    /// on each of them.
    #[arg(long, env = "OGIVE_MDS_PEERS", value_name = "LIST", value_delimiter = ',',
        value_parser = parse_peer, required = true)]
    pub peers: Vec<(u64, String)>,
    /// Address to listen on; by default this server's address in --peers.
    #[arg(long, env = "OGIVE_MDS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Directory of the server's log and state; made at the first start.
    #[arg(long, env = "OGIVE_MDS_DIR", value_name = "DIR")]
    pub dir: PathBuf,
    /// Copysets (replication groups) to make per shard of the chunkservers.
    #[arg(long, env = "OGIVE_MDS_COPYSETS_PER_SHARD", default_value_t = 4, value_name = "N")]
    pub copysets_per_shard: u32,
}

fn parse_peer(text: &str) -> Result<(u64, String), String> {
    let (id, addr) = text.split_once('=').ok_or("write ID=HOST:PORT")?;
    let id = id.trim().parse().map_err(|_| format!("'{id}' is not a number"))?;
    Ok((id, addr.trim().to_owned()))
}

/// Options of `ogive chunkserver`.
#[derive(Clone, Debug, Args)]
pub struct ChunkserverArgs {
    /// The metadata servers.
    #[command(flatten)]
    pub mds: MdsClient,
    /// The device: a block device or a file that `ogive format` prepared.
    #[arg(long, env = "OGIVE_CHUNKSERVER_DEVICE", value_name = "PATH")]
    pub device: PathBuf,
    /// Failure domain of this machine: a room, a rack, a power feed. Replicas of one copyset lie in
    /// different zones.
    #[arg(long, env = "OGIVE_CHUNKSERVER_ZONE", value_name = "NAME")]
    pub zone: String,
    /// Name of this machine; its host name by default.
    #[arg(long, env = "OGIVE_CHUNKSERVER_SERVER", value_name = "NAME")]
    pub server: Option<String>,
    /// Address to listen on. With several shards, shard n takes port + n; port 0 takes free ones.
    #[arg(
        long,
        env = "OGIVE_CHUNKSERVER_LISTEN",
        default_value = "127.0.0.1:0",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// Cores to pin the shards to, one each, such as 2,3. By default the scheduler places them.
    #[arg(long, env = "OGIVE_CHUNKSERVER_CORES", value_name = "LIST", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// How a shard waits for work.
    #[arg(long, env = "OGIVE_CHUNKSERVER_POLL", default_value = "adaptive", value_name = "MODE")]
    pub poll: PollArg,
    /// How long `adaptive` spins before it sleeps, in microseconds. By default as long as the cores
    /// allow.
    #[arg(long, env = "OGIVE_CHUNKSERVER_SPIN_US", value_name = "US")]
    pub spin_us: Option<u64>,
    /// Which path connections take: auto (the best that both ends have), tcp, shm or rdma. One that
    /// cannot be had ends the process, or the connection, instead of falling back.
    #[arg(long, env = "OGIVE_TRANSPORT", default_value = "auto", value_name = "PATH")]
    pub transport: PathChoice,
    /// Memory for buffers of each shard.
    #[arg(long, env = "OGIVE_CHUNKSERVER_BUFFERS", default_value = "256MiB",
        value_parser = parse_size, value_name = "SIZE")]
    pub buffers: u64,
    /// Memory for the maps of each shard, which say where each block lies. They take 1 to 3.3 GiB
    /// for each TiB of data; what is beyond this size is read from the device when it is needed.
    #[arg(long, env = "OGIVE_CHUNKSERVER_MAPS", default_value = "1GiB",
        value_parser = parse_size, value_name = "SIZE")]
    pub maps: u64,
    /// Bytes that the scrub reads in a second to find damaged blocks before somebody needs them; 0
    /// for none.
    #[arg(long, env = "OGIVE_CHUNKSERVER_SCRUB_RATE", default_value = "8MiB",
        value_parser = parse_size, value_name = "SIZE")]
    pub scrub_rate: u64,
}

/// How a loop waits for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PollArg {
    /// Never sleeps: lowest latency, one core each.
    Busy,
    /// Spins for a moment, then sleeps.
    Adaptive,
    /// Sleeps as soon as there is nothing to do: least CPU.
    Event,
}

impl PollArg {
    /// The reactor's mode; `spin` of `None` leaves the time to the reactor, which knows the cores.
    pub fn mode(self, spin_us: Option<u64>, reactors: usize) -> PollMode {
        match self {
            PollArg::Busy => PollMode::Busy,
            PollArg::Event => PollMode::Event,
            PollArg::Adaptive => match spin_us {
                Some(us) => PollMode::Adaptive { spin: Duration::from_micros(us) },
                None => PollMode::adaptive(cores(), reactors),
            },
        }
    }
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Options of `ogive format`.
#[derive(Clone, Debug, Args)]
pub struct FormatArgs {
    /// The block device, or the file to make.
    pub path: PathBuf,
    /// Size of the file; needed when it does not exist yet, refused for block devices.
    #[arg(long, env = "OGIVE_FORMAT_SIZE", value_parser = parse_size, value_name = "SIZE")]
    pub size: Option<u64>,
    /// Shards, each served by a core of its own. By default as many as half of this machine's
    /// cores, at most 8; the other half is for the network and for clients.
    #[arg(long, env = "OGIVE_FORMAT_SHARDS", value_name = "N")]
    pub shards: Option<u16>,
    /// Size of each shard's log; by default chosen by the size of the device.
    #[arg(long, env = "OGIVE_FORMAT_LOG_SIZE", value_parser = parse_size, value_name = "SIZE")]
    pub log_size: Option<u64>,
    /// Do not write zeroes over a file first. Faster now, but first writes are slower later.
    #[arg(long, env = "OGIVE_FORMAT_QUICK")]
    pub quick: bool,
    /// Overwrite what is there: another file system, a partition table, or an Ogive device with its
    /// data.
    #[arg(long)]
    pub force: bool,
}

/// Options of `ogive nbd`.
#[derive(Clone, Debug, Args)]
pub struct NbdArgs {
    /// The metadata servers.
    #[command(flatten)]
    pub mds: MdsClient,
    /// Volume to export, under its name; may be repeated. The first is also the default export.
    #[arg(
        long = "volume",
        env = "OGIVE_NBD_VOLUME",
        value_name = "NAME",
        value_delimiter = ',',
        required = true
    )]
    pub volumes: Vec<String>,
    /// Unix socket to listen on; may be repeated.
    #[arg(long = "socket", env = "OGIVE_NBD_SOCKET", value_name = "PATH", value_delimiter = ',')]
    pub sockets: Vec<PathBuf>,
    /// TCP address to listen on, such as 127.0.0.1:10809; may be repeated.
    #[arg(
        long = "listen",
        env = "OGIVE_NBD_LISTEN",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,
    /// Refuse writes.
    #[arg(long, env = "OGIVE_NBD_READ_ONLY")]
    pub read_only: bool,
    /// Attach even if another gateway holds the volume; its requests are refused from then on.
    #[arg(long)]
    pub force: bool,
    /// Fail I/O that could not be served for so many seconds; by default it waits until it can.
    #[arg(long, env = "OGIVE_NBD_IO_TIMEOUT", value_name = "SECONDS")]
    pub io_timeout: Option<u64>,
    /// How the loop waits for work.
    #[arg(long, env = "OGIVE_NBD_POLL", default_value = "adaptive", value_name = "MODE")]
    pub poll: PollArg,
    /// How long `adaptive` spins before it sleeps, in microseconds.
    #[arg(long, env = "OGIVE_NBD_SPIN_US", value_name = "US")]
    pub spin_us: Option<u64>,
    /// Which path connections to chunkservers take: auto (the best that both ends have), tcp,
    /// shm or rdma. One that cannot be had ends the process or the connection: no falling back.
    #[arg(long, env = "OGIVE_TRANSPORT", default_value = "auto", value_name = "PATH")]
    pub transport: PathChoice,
    /// Core to pin the loop to.
    #[arg(long, env = "OGIVE_NBD_CORE", value_name = "N")]
    pub core: Option<usize>,
    /// Memory for buffers.
    #[arg(long, env = "OGIVE_NBD_BUFFERS", default_value = "256MiB",
        value_parser = parse_size, value_name = "SIZE")]
    pub buffers: u64,
}
