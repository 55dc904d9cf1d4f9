//! What callers hand to a [`crate::Client`] and get back.

use std::collections::BTreeMap;
use std::time::Duration;

use ogive_buf::Buf;
use ogive_rpc::transport::{ConnId, Endpoint, Outgoing};
use ogive_types::{
    ClusterId, CopysetId, Epoch, Layout, MAX_IO_BYTES, SegmentId, SessionId, ShardAddr, VolumeId,
};

/// The volume served and the attachment under which it is.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// The volume.
    pub volume: VolumeId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its striping.
    pub layout: Layout,
    /// Fencing number of this attachment.
    pub epoch: Epoch,
    /// This attachment.
    pub session: SessionId,
    /// The cluster; shards of another one are not spoken to.
    pub cluster: ClusterId,
}

/// How patient a client is.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long an operation may take before it fails with [`VolumeError::TimedOut`]; `None` lets
    /// it wait for ever.
    pub io_timeout: Option<Duration>,
    /// How long one request may stay unanswered before it is tried elsewhere. Doubles each time
    /// that the same piece of work runs into it, up to 16 times, so that a slow cluster still makes
    /// progress.
    pub attempt_timeout: Duration,
    /// The same for the small request that looks for a leader.
    pub probe_timeout: Duration,
    /// How long a connection may take to come up.
    pub connect_timeout: Duration,
    /// First pause before something is tried again; doubles up to `backoff_max`, with jitter.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// How long to wait for an answer from the metadata servers before asking again.
    pub metadata_retry: Duration,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            io_timeout: None,
            attempt_timeout: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(300),
            connect_timeout: Duration::from_millis(500),
            backoff_min: Duration::from_millis(2),
            backoff_max: Duration::from_millis(100),
            metadata_retry: Duration::from_secs(2),
        }
    }
}

/// Where copysets live and how their shards are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Members of each copyset; the first is the preferred leader.
    pub copysets: BTreeMap<CopysetId, Vec<ShardAddr>>,
    /// Where each shard listens.
    pub endpoints: BTreeMap<ShardAddr, Endpoint>,
}

/// An operation on the volume. Offsets and lengths are in bytes and need no alignment.
#[derive(Clone, Debug)]
pub enum VolumeOp {
    /// Read; at most [`MAX_IO_BYTES`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Write; at most [`MAX_IO_BYTES`].
    Write {
        /// First byte.
        offset: u64,
        /// The data.
        data: Buf,
    },
    /// Free the whole blocks in the range; they read as zeroes then. Parts of blocks at its edges
    /// stay as they are.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes, any number.
        len: u64,
    },
    /// Make every byte of the range zero and free its whole blocks.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes, any number.
        len: u64,
    },
    /// Which parts of the range hold data.
    Map {
        /// First byte.
        offset: u64,
        /// Bytes, any number; the answer may cover only the first part of it.
        len: u64,
    },
    /// Make completed writes durable. They are already, since a write completes only once a
    /// majority has it on stable storage; so this completes at once.
    Flush,
}

impl VolumeOp {
    /// First byte and number of bytes concerned.
    pub fn span(&self) -> (u64, u64) {
        match self {
            VolumeOp::Read { offset, len }
            | VolumeOp::Trim { offset, len }
            | VolumeOp::WriteZeroes { offset, len }
            | VolumeOp::Map { offset, len } => (*offset, *len),
            VolumeOp::Write { offset, data } => (*offset, data.len() as u64),
            VolumeOp::Flush => (0, 0),
        }
    }
}

/// What a successful operation gives.
#[derive(Clone, Debug)]
pub enum VolumeOutput {
    /// Done.
    Done,
    /// The bytes read: these buffers in order, together exactly as long as asked.
    Data(Vec<Buf>),
    /// Runs of the range from its start, `(bytes, holds data)`, neighbours differing. Covers at
    /// least one byte, and perhaps less than asked when there are very many runs.
    Map(Vec<(u64, bool)>),
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// It does not lie inside the volume.
    #[error("byte range past the end of the volume ({size_bytes} bytes)")]
    OutOfRange {
        /// Size of the volume.
        size_bytes: u64,
    },
    /// It is longer than one read or write may be.
    #[error("longer than {MAX_IO_BYTES} bytes; split it")]
    TooLong,
    /// More operations are in flight than a client keeps.
    #[error("too many operations in flight; wait for some to complete")]
    Overloaded,
    /// The cluster has no room for it.
    #[error("no space left in the cluster; free some or add chunkservers")]
    NoSpace,
    /// This attachment is over. Nothing that it still had in flight can take effect after a newer
    /// attachment's I/O.
    #[error("the volume is attached elsewhere; attach it again to go on")]
    Fenced,
    /// It could not be done in time. A write may or may not have happened.
    #[error("not done in time; is a majority of its copyset's chunkservers up?")]
    TimedOut,
    /// The data cannot be read, or the cluster refuses the request for good.
    #[error("I/O error: {0}")]
    Io(&'static str),
}

/// Why an attachment ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// A shard has seen a newer attachment.
    #[error("the volume was attached elsewhere, with {current}")]
    Fenced {
        /// Its epoch.
        current: Epoch,
    },
    /// The metadata servers ended it.
    #[error("the metadata servers ended the session")]
    Expired,
}

/// What the owner of a client has to do for it.
#[derive(Clone, Debug)]
pub enum ClientEffect {
    /// Start connecting, and tell the connection's id with [`crate::Client::connected`] before the
    /// next event.
    Connect {
        /// The shard wanted.
        peer: ShardAddr,
        /// Where it listens.
        endpoint: Endpoint,
    },
    /// Send a frame.
    Send {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Outgoing,
    },
    /// Close a connection; the client has forgotten it.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Ask the metadata servers for a segment and report with [`crate::Client::on_segment`].
    NeedSegment {
        /// The segment.
        segment: SegmentId,
        /// Allocate it when it is not.
        allocate: bool,
    },
    /// Ask the metadata servers for the topology and report with [`crate::Client::on_topology`].
    NeedTopology,
    /// An operation is over. Each submitted token is completed exactly once.
    Completed {
        /// As given to [`crate::Client::submit`].
        token: u64,
        /// How it ended.
        result: Result<VolumeOutput, VolumeError>,
    },
    /// The attachment is over: every operation, also in future, fails with [`VolumeError::Fenced`].
    SessionLost {
        /// Why.
        reason: LostReason,
    },
}

/// Counters since the start, and what is in flight now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Operations in flight.
    pub ops_in_flight: usize,
    /// Requests sent.
    pub sent: u64,
    /// Pieces of work that had to be tried again.
    pub retries: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Searches for a leader that were started.
    pub searches: u64,
    /// Reads whose data did not match its checksums.
    pub bad_sums: u64,
}
