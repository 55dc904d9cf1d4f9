//! Options of `ogive device`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Options of `ogive device`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DeviceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DeviceCommand,
}

/// Calls of `ogive device` that are worth knowing.
const EXAMPLES: &str = "\
Examples:
  ogive device inspect /dev/nvme0n1            what is on it
  ogive device verify /data/disk.ogive && echo good
                                               read everything that has a checksum
  ogive device dump-log disk --shard 1 --json | jq 'select(any(.records[]?; .volume == 7))'
                                               what the log says of a volume
  ogive device audit disk                      what every block is used for

None of them writes anything. The exit code is 0 when all is well, 1 when damage was found or the \
device cannot be read, 2 when the call is wrong.";

/// What to do with a device.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Explain what is on a device: whose it is, its shards, where their parts lie, superblocks,
    /// checkpoint, extent of the log.
    Inspect {
        /// The device.
        #[command(flatten)]
        device: DeviceArg,
        /// Look also at a device that is in use. What is shown may contradict itself then.
        #[arg(long)]
        force: bool,
    },
    /// Read label, superblocks, directories, map pages, logs and all data, check every checksum,
    /// and say what is damaged and which blocks of which volumes that concerns.
    Verify {
        /// The device.
        #[command(flatten)]
        device: DeviceArg,
    },
    /// Print the log from the checkpoint on: batches and their records, one JSON object for each
    /// batch with --json.
    DumpLog {
        /// The device.
        #[command(flatten)]
        device: DeviceArg,
        /// The shard whose log to print; all by default.
        #[arg(long, value_name = "N")]
        shard: Option<u16>,
    },
    /// Recover each shard in memory and account for every block: by volume, free, or belonging to
    /// entries that are not applied.
    Audit {
        /// The device.
        #[command(flatten)]
        device: DeviceArg,
    },
}

/// A device to look at.
#[derive(Clone, Debug, Args)]
pub struct DeviceArg {
    /// The block device or file; no chunkserver may serve it meanwhile.
    #[arg(value_name = "DEVICE")]
    pub path: PathBuf,
}
