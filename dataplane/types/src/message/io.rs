//! What clients ask of a copyset's leader.

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::checksum::BlockSum;
use crate::ids::{ChunkId, CopysetId, Epoch, Incarnation, SessionId, ShardAddr, Term, VolumeId};
use crate::units::{BlockRange, MAX_IO_BYTES};

/// A request to a copyset's leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoRequest {
    /// The copyset that holds the chunk.
    pub copyset: CopysetId,
    /// Why it may be applied.
    pub fence: Fence,
    /// What to do.
    pub op: IoOp,
}

/// Proof that a request is not left over from an earlier attachment, connection or leader. The
/// leader applies a request only if `epoch` is not older than the replicated one, `incarnation` is
/// the session's newest, and `term` is its own current term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The volume attached.
    pub volume: VolumeId,
    /// Epoch of the attachment.
    pub epoch: Epoch,
    /// The attachment.
    pub session: SessionId,
    /// Its reconnect counter.
    pub incarnation: Incarnation,
    /// Term of the leader that the client believes in; 0 when it knows none, which gets
    /// [`IoError::StaleTerm`].
    pub term: Term,
}

/// An operation on one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoOp {
    /// Read the blocks; the response's payload holds them. Unmapped blocks read as zeroes.
    Read {
        /// The chunk.
        chunk: ChunkId,
        /// Its blocks.
        range: BlockRange,
        /// Show every write that the leader took before, also those that are not committed yet. For
        /// a reader that will write back a part of what it reads: nothing older may come between.
        settled: bool,
    },
    /// Write the payload, whose blocks have the checksums `sums`.
    Write {
        /// The chunk.
        chunk: ChunkId,
        /// Its blocks.
        range: BlockRange,
        /// Checksum of each block.
        sums: Vec<BlockSum>,
    },
    /// Make the blocks read as zeroes and free their space.
    Trim {
        /// The chunk.
        chunk: ChunkId,
        /// Its blocks.
        range: BlockRange,
    },
    /// Which blocks of the range are mapped.
    Map {
        /// The chunk.
        chunk: ChunkId,
        /// Its blocks.
        range: BlockRange,
    },
}

impl IoOp {
    /// The chunk and blocks concerned.
    pub fn place(&self) -> (ChunkId, BlockRange) {
        match *self {
            IoOp::Read { chunk, range, .. }
            | IoOp::Write { chunk, range, .. }
            | IoOp::Trim { chunk, range }
            | IoOp::Map { chunk, range } => (chunk, range),
        }
    }
}

impl IoRequest {
    /// Checks a request from the network against its payload's length in bytes.
    pub fn validate(&self, payload_bytes: usize) -> Result<(), Malformed> {
        let (chunk, range) = self.op.place();
        if !range.is_valid() {
            return Err(Malformed("block range outside its chunk"));
        }
        if chunk.volume != self.fence.volume {
            return Err(Malformed("chunk of another volume than the session's"));
        }
        let data_bytes = match &self.op {
            IoOp::Write { sums, .. } if sums.len() != range.blocks() as usize => {
                return Err(Malformed("not one checksum per block"));
            }
            IoOp::Write { .. } => range.bytes(),
            IoOp::Read { .. } if range.bytes() > MAX_IO_BYTES => {
                return Err(Malformed("read longer than the limit"));
            }
            _ => 0,
        };
        if data_bytes != payload_bytes {
            return Err(Malformed("payload does not match the block range"));
        }
        Ok(())
    }
}

/// Blocks of a [`IoOp::Map`] request that are mapped or not, in order and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// The blocks.
    pub range: BlockRange,
    /// Whether they hold data.
    pub mapped: bool,
}

/// Answer to an [`IoRequest`]. The variants other than `Failed` mean success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoReply {
    /// Written or trimmed: on stable storage of a majority.
    Done,
    /// The payload holds the blocks; their checksums, for an end-to-end check.
    Data(Vec<BlockSum>),
    /// The map of the range.
    Map(Vec<Mapped>),
    /// Not done, or (for writes, with [`IoError::outcome_unknown`]) perhaps done.
    Failed(IoError),
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum IoError {
    /// This replica does not lead; try the hint, or the other replicas in turn.
    #[error("not the leader (hint: {leader:?})")]
    NotLeader {
        /// The leader that it knows of.
        leader: Option<ShardAddr>,
    },
    /// The request names another term than the leader's; send it again with `current` if it was not
    /// applied.
    #[error("stale term, the leader's is {current}")]
    StaleTerm {
        /// The leader's term.
        current: Term,
    },
    /// A newer attachment of the volume exists; this one is over.
    #[error("volume attached elsewhere with {current}")]
    Fenced {
        /// The newest epoch.
        current: Epoch,
    },
    /// A newer connection of the same session exists.
    #[error("a newer connection of this session exists")]
    StaleIncarnation,
    /// The shard has no replica of this copyset (yet).
    #[error("no such copyset here")]
    NoCopyset,
    /// The device is full; reads go on, and writes do once space is freed.
    #[error("device full")]
    NoSpace,
    /// Too much in flight or out of buffers; try again soon.
    #[error("busy")]
    Busy,
    /// The leader lost its role before the write was committed: it may or may not be applied.
    #[error("leadership lost, outcome unknown")]
    Interrupted,
    /// The payload did not match its checksums on arrival.
    #[error("payload does not match its checksums")]
    BadChecksum,
    /// The blocks cannot be read: the stored copy fails its checksum, or the device failed.
    #[error("blocks unreadable")]
    Unreadable,
    /// The request breaks the protocol.
    #[error("malformed request")]
    Malformed,
}

impl IoError {
    /// True when a write that failed like this may still have been, or may later be, applied.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, IoError::Interrupted)
    }
}
