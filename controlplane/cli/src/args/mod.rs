//! The command line: one definition from which parsing, `--help`, completions and the man page
//! come.

mod client;
mod device;
mod roles;

pub use client::{
    BenchArgs, BenchCommand, BenchCopysetArgs, BenchRpcArgs, BenchRpcPeerArgs, BenchStoreArgs,
    BenchVolumeArgs, DemoArgs, HwtestArgs, VolumeArgs, VolumeCommand, WaitArg,
};
pub use device::{DeviceArg, DeviceArgs, DeviceCommand};
pub use roles::{ChunkserverArgs, FormatArgs, MdsArgs, NbdArgs, PollArg};

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

/// Ogive: a replicated block store.
///
/// Volumes are kept on three machines and reached through NBD. `ogive demo` starts a whole cluster
/// on this machine, puts a file system on a volume, kills a server under load and shows that
/// nothing is lost.
///
/// Every option can also be set by an environment variable (OGIVE_..., named in each option's help)
/// and in a TOML file, in a table named after the subcommand; an option on the command line wins
/// over the variable, and the variable over the file.
#[derive(Debug, Parser)]
#[command(name = "ogive", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// Options of all subcommands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all subcommands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// TOML file with defaults for all options; without it ./ogive.toml, then
    /// /etc/ogive/ogive.toml, if they exist.
    #[arg(long, global = true, env = "OGIVE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the result as JSON on standard output.
    #[arg(long, global = true, env = "OGIVE_JSON")]
    pub json: bool,
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// `ogive_shard=debug`. By default info for the processes of a cluster, and warn for the other
    /// commands.
    #[arg(long, global = true, env = "OGIVE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster on this machine, use it, kill a part of it, and check that everything is
    /// still there.
    Demo(DemoArgs),
    /// Run a metadata server. Three of them keep the cluster's metadata in a Raft group.
    Mds(MdsArgs),
    /// Run a chunkserver: serves the replicas on one formatted device.
    Chunkserver(ChunkserverArgs),
    /// Prepare a device, or a file in its place, for a chunkserver.
    Format(FormatArgs),
    /// Look at a device that nobody serves: what is on it, whether it is whole. Writes nothing.
    Device(DeviceArgs),
    /// Export volumes over NBD.
    Nbd(NbdArgs),
    /// Create, list, show, delete and resize volumes.
    Volume(VolumeArgs),
    /// Show the state of the cluster.
    Status(MdsClient),
    /// Check what this machine can do.
    Hwtest(HwtestArgs),
    /// Measure a volume, the engine on a device, or the transports between two processes.
    Bench(BenchArgs),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff), or write it and those of all subcommands into a directory.
    Man {
        /// The directory; it is made if it does not exist.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version.
    Version,
}

/// Where the metadata servers are.
#[derive(Clone, Debug, Args)]
pub struct MdsClient {
    /// Addresses of the metadata servers, separated by commas: HOST:PORT,HOST:PORT,...
    #[arg(long, env = "OGIVE_MDS", value_name = "ADDRS", value_delimiter = ',', required = true)]
    pub mds: Vec<String>,
}

/// A size in bytes with an optional unit, such as 4096, 512MiB or 10GiB. A unit without `i` counts
/// in thousands.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|e| format!("{e}; write for example 512MiB or 10GiB"))?;
    Ok(size.as_u64())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Options of all subcommands share their names with those of each.
    #[test]
    fn names_are_given_once() {
        let command = Cli::command();
        let global: Vec<_> = command.get_arguments().filter(|a| a.is_global_set()).collect();
        let mut left: Vec<_> = command.get_subcommands().collect();
        while let Some(sub) = left.pop() {
            left.extend(sub.get_subcommands());
            for arg in sub.get_arguments() {
                let twice = global.iter().any(|g| g.get_id() == arg.get_id());
                assert!(!twice, "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("10 MiB"), Ok(10 << 20));
        assert!(parse_size("1 parsec").is_err());
        assert!(parse_size("-1").is_err());
    }
}
