//! Identifiers as types, so that two of them cannot be swapped.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(/** A volume; given once by the metadata servers, never reused. */ VolumeId(u64), "v");
id!(/** A copyset: one replication group. */ CopysetId(u32), "c");
id!(/** A chunkserver, by its persisted identity, not its address. */ ChunkserverId(u32), "s");
id!(/** Raft term of a copyset. 0 is before the first election. */ Term(u64), "t");
id!(/** Position in a copyset's log, from 1; 0 is before the first entry. */ Index(u64), "i");
id!(/** Fencing number of a volume attachment; an older one is refused. */ Epoch(u64), "e");
id!(/** A client's attachment to a volume. */ SessionId(u64), "n");
id!(/** Counts the reconnects of one session. */ Incarnation(u32), "r");
id!(/** A cluster; in every label and HELLO, so that none are mixed up. */ ClusterId(u128), "k");

impl Term {
    /// The next term.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The next position.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The position before; 0 stays 0.
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

/// One shard of one chunkserver: where a replica lives, and the node id of the replication
/// protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardAddr {
    /// The chunkserver.
    pub server: ChunkserverId,
    /// Which of its shards, from 0.
    pub shard: u16,
}

impl fmt::Display for ShardAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.shard)
    }
}

/// A 16 MiB chunk: its volume and its number in the volume's chunk order (see [`crate::Layout`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId {
    /// The volume.
    pub volume: VolumeId,
    /// Number of the chunk in the volume.
    pub number: u32,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.volume, self.number)
    }
}

/// A 1 GiB segment: the unit in which the metadata servers give space to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId {
    /// The volume.
    pub volume: VolumeId,
    /// Number of the segment in the volume.
    pub number: u32,
}

/// A place in a log: an index and the term of the entry there. Ordered by term, then index ("more
/// up to date").
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogPos {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

impl fmt::Display for LogPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.index, self.term)
    }
}

/// What a replica must not forget between two votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term that it answered in.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<ShardAddr>,
}
