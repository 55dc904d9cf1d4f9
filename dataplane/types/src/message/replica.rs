//! What the replicas of a copyset tell each other.

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::checksum::BlockSum;
use crate::ids::{ChunkId, CopysetId, Epoch, Index, LogPos, Term, VolumeId};
use crate::time::Time;
use crate::units::{BLOCK_BYTES, BLOCKS_PER_CHUNK, BlockRange};

/// Most blocks of one [`ReplicaRequest::Fetch`]: as many as a read of the usual length, so that the
/// answer takes its turn between others.
pub const FETCH_BLOCKS_MAX: usize = 64;

/// A log entry as it travels; data blocks are in the payload of the frame, in the order of the
/// entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Term in which it was proposed.
    pub term: Term,
    /// What it does when it is committed.
    pub op: Op,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Nothing; a new leader's first entry, which commits those before it.
    Noop,
    /// Replace blocks of a chunk.
    Write {
        /// The chunk.
        chunk: ChunkId,
        /// Its blocks.
        range: BlockRange,
        /// Checksum of each block.
        sums: Vec<BlockSum>,
    },
    /// Unmap blocks of a chunk.
    Trim {
        /// The chunk.
        chunk: ChunkId,
        /// Its blocks.
        range: BlockRange,
    },
    /// Refuse requests of `volume` with an epoch older than `epoch` from here on.
    Fence {
        /// The volume.
        volume: VolumeId,
        /// Its newest epoch.
        epoch: Epoch,
    },
    /// The volume was deleted: drop its chunks and refuse its requests.
    DropVolume {
        /// The volume.
        volume: VolumeId,
    },
}

impl Op {
    /// Bytes of payload that belong to the entry.
    pub fn data_bytes(&self) -> usize {
        match self {
            Op::Write { range, .. } => range.bytes(),
            _ => 0,
        }
    }

    /// Checks an operation that came from the network.
    pub fn validate(&self) -> Result<(), Malformed> {
        match self {
            Op::Write { range, .. } | Op::Trim { range, .. } if !range.is_valid() => {
                Err(Malformed("block range outside its chunk"))
            }
            Op::Write { range, sums, .. } if sums.len() != range.blocks() as usize => {
                Err(Malformed("not one checksum per block"))
            }
            _ => Ok(()),
        }
    }
}

/// A request from one replica to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaRequest {
    /// Ask for a vote, or whether one would be given.
    Vote(CopysetId, Vote),
    /// Add entries.
    Append(CopysetId, Append),
    /// Leaders' signs of life for many copysets at once.
    Heartbeats(Vec<(CopysetId, Heartbeat)>),
    /// Map pages for a follower that the log no longer reaches.
    Delta(CopysetId, DeltaPage),
    /// The delta is complete.
    DeltaEnd(CopysetId, DeltaEnd),
    /// The leader hands over: start an election at once.
    TimeoutNow(CopysetId, Term),
    /// Copies of blocks that are damaged at the sender's.
    Fetch(CopysetId, Vec<BlockVersion>),
}

/// The answer to a [`ReplicaRequest`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaReply {
    /// To `Vote`.
    Vote(CopysetId, VoteReply),
    /// To `Append`.
    Append(CopysetId, AppendReply),
    /// To `Heartbeats`, for the copysets that the receiver has.
    Heartbeats(Vec<(CopysetId, HeartbeatReply)>),
    /// To `Delta` and `DeltaEnd`.
    Delta(CopysetId, DeltaReply),
    /// To `Fetch`: what was found, for each block asked for. The payload holds those that are
    /// [`Found::Here`], in order.
    Fetched(CopysetId, Vec<Found>),
    /// To `TimeoutNow`, and to any request about a copyset that the receiver does not have, or
    /// while it is busy.
    Nothing,
}

/// A version of a block of a chunk. Equal names mean equal bytes, on whichever replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockVersion {
    /// The chunk.
    pub chunk: ChunkId,
    /// Number of the block within the chunk.
    pub number: u16,
    /// The entry that wrote it.
    pub index: Index,
    /// Checksum of its bytes.
    pub sum: BlockSum,
}

/// What a replica has of a [`BlockVersion`] that another asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// The bytes, which match the checksum.
    Here,
    /// Its copy is damaged, too.
    Damaged,
    /// Not yet: it has not applied the entry.
    Behind,
    /// Not any more: it has something newer in this place.
    Newer,
    /// It cannot look now.
    Busy,
}

/// RequestVote of the Raft paper, with a pre-vote form (Ongaro's thesis, 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The candidate's term; for a pre-vote the term that it would start.
    pub term: Term,
    /// The end of the candidate's log.
    pub last: LogPos,
    /// True when nothing is promised yet.
    pub pre: bool,
    /// True when the old leader asked for this election, so its lease does not stand against it.
    pub transfer: bool,
}

/// Answer to [`Vote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteReply {
    /// The voter's term; for a granted pre-vote the term asked for.
    pub term: Term,
    /// Whether the vote is given.
    pub granted: bool,
    /// Echo.
    pub pre: bool,
}

/// AppendEntries of the Raft paper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// Position of the entry before the first one here.
    pub prev: LogPos,
    /// Everything up to here is committed.
    pub commit: Index,
    /// The leader's clock when it sent this; echoed, it extends the lease.
    pub sent: Time,
    /// Entries at `prev.index + 1 ..`; none in a probe.
    pub entries: Vec<Entry>,
}

/// Answer to [`Append`], sent once the entries are on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendReply {
    /// The follower's term.
    pub term: Term,
    /// Echo of the leader's clock.
    pub sent: Time,
    /// `Ok`: the log is the leader's and persisted up to here. `Err`: it does not match at `prev`;
    /// try from this position, at or before which it may.
    pub matched: Result<Index, LogPos>,
}

/// A leader's sign of life for one copyset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The leader's term.
    pub term: Term,
    /// Committed up to here, as far as the follower's log is known to match.
    pub commit: Index,
    /// The leader's clock when it sent this.
    pub sent: Time,
}

/// Answer to [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The follower's term.
    pub term: Term,
    /// Echo of the leader's clock.
    pub sent: Time,
    /// End of the follower's persisted log, so that a leader notices one that lags.
    pub last: Index,
}

/// Blocks that changed after an index, chunk by chunk. The data is in the payload, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaPage {
    /// The leader's term.
    pub term: Term,
    /// The delta leads to the state at this position or later.
    pub upto: LogPos,
    /// All blocks newer than this are in the delta; the receiver has applied this much.
    pub base: Index,
    /// Chunks after this one (or all from the first) ...
    pub after: Option<ChunkId>,
    /// ... up to and including this one are covered (or all to the last); the receiver drops those
    /// not in `chunks`.
    pub through: Option<ChunkId>,
    /// The chunks that exist in the covered range, with their changed blocks. One chunk may be
    /// spread over several pages; then all but its last page end (`through`) before it and list it
    /// only for its extents.
    pub chunks: Vec<DeltaChunk>,
}

/// Changed blocks of one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its changed blocks, in order.
    pub extents: Vec<DeltaExtent>,
}

/// Neighbouring blocks that one entry wrote or trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaExtent {
    /// The blocks.
    pub range: BlockRange,
    /// Index of the entry.
    pub index: Index,
    /// Checksum of each block; empty when the blocks are unmapped.
    pub sums: Vec<BlockSum>,
}

/// The end of a delta: the receiver's log restarts behind `upto`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaEnd {
    /// The leader's term.
    pub term: Term,
    /// The position reached.
    pub upto: LogPos,
    /// The volumes' newest epochs at that position; `Epoch(u64::MAX)` for deleted volumes.
    pub fences: Vec<(VolumeId, Epoch)>,
}

/// Answer to [`DeltaPage`] and [`DeltaEnd`], sent once what they brought is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaReply {
    /// The receiver's term.
    pub term: Term,
    /// False when it was refused (stale term, no space, bad data).
    pub accepted: bool,
    /// The end of the receiver's log, moved by `DeltaEnd`.
    pub last: LogPos,
}

impl ReplicaRequest {
    /// Checks a request from the network against its payload's length in bytes.
    pub fn validate(&self, payload_bytes: usize) -> Result<(), Malformed> {
        let data_bytes = match self {
            ReplicaRequest::Append(_, append) => {
                append.entries.iter().try_for_each(|e| e.op.validate())?;
                append.entries.iter().map(|e| e.op.data_bytes()).sum()
            }
            ReplicaRequest::Delta(_, page) => page.data_bytes()?,
            ReplicaRequest::Fetch(_, blocks) => {
                if blocks.len() > FETCH_BLOCKS_MAX {
                    return Err(Malformed("more blocks than one request may ask for"));
                }
                if blocks.iter().any(|block| block.number >= BLOCKS_PER_CHUNK) {
                    return Err(Malformed("block outside its chunk"));
                }
                0
            }
            _ => 0,
        };
        if data_bytes != payload_bytes {
            return Err(Malformed("payload does not match the entries"));
        }
        Ok(())
    }
}

impl ReplicaReply {
    /// Checks an answer from the network against its payload's length in bytes.
    pub fn validate(&self, payload_bytes: usize) -> Result<(), Malformed> {
        let data_bytes = match self {
            ReplicaReply::Fetched(_, found) => {
                found.iter().filter(|&&f| f == Found::Here).count() * BLOCK_BYTES
            }
            _ => 0,
        };
        if data_bytes != payload_bytes {
            return Err(Malformed("payload does not match the blocks found"));
        }
        Ok(())
    }
}

impl DeltaPage {
    fn data_bytes(&self) -> Result<usize, Malformed> {
        let mut bytes = 0;
        for extent in self.chunks.iter().flat_map(|c| &c.extents) {
            if !extent.range.is_valid() {
                return Err(Malformed("block range outside its chunk"));
            }
            match extent.sums.len() {
                0 => {}
                n if n == extent.range.blocks() as usize => bytes += extent.range.bytes(),
                _ => return Err(Malformed("not one checksum per block")),
            }
        }
        Ok(bytes)
    }
}

const _: () = assert!(BLOCKS_PER_CHUNK as usize * 4 < 1 << 20, "checksums of a chunk fit a body");
