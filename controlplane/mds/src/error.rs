//! Why a metadata server does not start, or stopped.

use std::io;
use std::path::PathBuf;

/// Why [`crate::serve`] ended. The message is for people and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MdsError {
    /// The configuration makes no sense.
    #[error("bad MDS configuration: {0}")]
    Config(String),
    /// Another process listens there.
    #[error("{address} is taken by another process: stop it, or give this MDS another port")]
    PortTaken {
        /// Where.
        address: String,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot {what} {path}: {source}; check the path, its owner and the free space")]
    DataDir {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The data directory belongs to another server.
    #[error(
        "{path} belongs to MDS {theirs}, this is MDS {ours}: check the node id or the data \
         directory"
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        theirs: u64,
        /// This server.
        ours: u64,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "{path} belongs to cluster {theirs:?}, this is {ours:?}: check the name or the data \
         directory"
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        theirs: String,
        /// This server's cluster.
        ours: String,
    },
    /// The data directory was written by another version.
    #[error(
        "{path} has format {found}, this version reads {known}: use the version of Ogive that \
         wrote it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The format that this version knows.
        known: u32,
    },
    /// Another process uses the data directory.
    #[error("{path} is in use: is this MDS already running?")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Data that was there is gone.
    #[error(
        "{path} is incomplete, {missing} is missing: restore it; if this MDS's data is lost, do \
         not start it with an \
         empty directory while it is a member, since it forgot what it voted for"
    )]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// The data does not make sense.
    #[error(
        "{path} is damaged ({detail}): restore it from a backup; the other MDS have the same \
         content"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The consensus engine stopped.
    #[error(
        "the metadata log stopped: {0}; check the disk of the data directory, then start this \
         MDS again"
    )]
    Raft(String),
    /// The server loop failed.
    #[error("the gRPC server failed: {0}")]
    Server(String),
}
