//! Options of the commands for people.

use std::path::PathBuf;

use clap::{Args, Subcommand};
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
}

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
