//! Why a command was refused.

use ogive_types::{ChunkserverId, ClusterId, CopysetId, Epoch, SessionId, VolumeId};
use serde::{Deserialize, Serialize};

/// A refusal. Part of the replicated history: the same command on the same state gives the same
/// refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MetaError {
    /// The cluster has no id yet.
    #[error("the cluster is being set up; try again in a second")]
    NotInitialised,
    /// A volume name breaks the rules.
    #[error("{0:?} is no volume name: use 1 to 255 bytes of A-Z a-z 0-9 . _ / -")]
    BadName(String),
    /// A volume size breaks the rules.
    #[error("{0} bytes is no volume size: use a multiple of 4 KiB from 1 MiB to 64 TiB")]
    BadSize(u64),
    /// A layout breaks the rules.
    #[error("a segment may be spread over 1 to 64 copysets, not {0}")]
    BadSpread(u32),
    /// A zone, server, endpoint or client text is empty, too long or not printable.
    #[error("bad {what} {text:?}: {rule}")]
    BadText {
        /// Which text.
        what: String,
        /// The text.
        text: String,
        /// What it should be.
        rule: String,
    },
    /// A chunkserver has no shard, or too many.
    #[error("a chunkserver has 1 to 64 shards, not {0}")]
    BadShards(usize),
    /// A device that was registered comes back with fewer shards, but replicas live on them.
    #[error(
        "chunkserver {server} was registered with {had} shards and comes back with {has}: start \
         it as before, its \
         replicas live on all of them"
    )]
    ShardsLost {
        /// The chunkserver.
        server: ChunkserverId,
        /// Shards that it had.
        had: usize,
        /// Shards that it has.
        has: usize,
    },
    /// A registered device comes back in another zone while it holds replicas.
    #[error(
        "chunkserver {server} was registered in zone {had:?} and comes back in {has:?}: its \
         replicas were placed for \
         the old zone; start it with that"
    )]
    ZoneChanged {
        /// The chunkserver.
        server: ChunkserverId,
        /// Zone that it had.
        had: String,
        /// Zone that it has.
        has: String,
    },
    /// A device or client belongs to another cluster.
    #[error(
        "it belongs to cluster {theirs}, this is {ours}: check the MDS addresses, or format the \
         device anew"
    )]
    WrongCluster {
        /// Cluster of the device.
        theirs: ClusterId,
        /// This cluster.
        ours: ClusterId,
    },
    /// No chunkserver has that id.
    #[error("chunkserver {0} is not registered here; it must register first")]
    NoChunkserver(ChunkserverId),
    /// The id belongs to another device.
    #[error(
        "chunkserver {0} is another device: is a copy of a device running, or an id written by \
         hand?"
    )]
    WrongDevice(ChunkserverId),
    /// A limit of the state is reached.
    #[error("the cluster has {limit} {what}, and that is the most it can have")]
    Limit {
        /// Of what.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Copysets that were planned on a state that has changed since; plan again.
    #[error("the topology has changed; plan again")]
    StalePlan,
    /// A copyset that breaks the rules of placement.
    #[error("a planned copyset is unfit: {0}")]
    BadCopyset(String),
    /// No volume has that name.
    #[error("there is no volume {0:?}")]
    NoVolume(String),
    /// No volume has that id.
    #[error("there is no volume {0}; it may have been deleted")]
    NoVolumeId(VolumeId),
    /// The name is taken.
    #[error("there already is a volume {0:?}")]
    VolumeExists(String),
    /// The volume is in use.
    #[error("volume {name:?} is attached by {client:?}; detach it there first, or use force")]
    Attached {
        /// The volume.
        name: String,
        /// Who holds it.
        client: String,
    },
    /// Volumes do not shrink.
    #[error(
        "volume {name:?} has {has} bytes and cannot shrink to {wanted}: copy it to a smaller \
         volume instead"
    )]
    Shrink {
        /// The volume.
        name: String,
        /// Its size.
        has: u64,
        /// The size asked for.
        wanted: u64,
    },
    /// The session has ended.
    #[error(
        "session {0} has ended: the volume was detached, or attached by another client; attach \
         again"
    )]
    SessionGone(SessionId),
    /// A newer attachment exists.
    #[error("epoch {had} is over, {now} is the newest: another client has attached the volume")]
    StaleEpoch {
        /// Epoch of the request.
        had: Epoch,
        /// Newest epoch.
        now: Epoch,
    },
    /// The segment lies behind the volume's end.
    #[error("segment {number} lies behind the end of volume {volume}")]
    BeyondEnd {
        /// The volume.
        volume: VolumeId,
        /// The segment.
        number: u32,
    },
    /// There is nowhere to put data.
    #[error(
        "there are no copysets yet: chunkservers must run in {replicas} zones ({zones} so far)"
    )]
    NoCopysets {
        /// Zones needed.
        replicas: u32,
        /// Zones there are.
        zones: u32,
    },
    /// No copyset has that id.
    #[error("there is no copyset {0}")]
    NoCopyset(CopysetId),
}
