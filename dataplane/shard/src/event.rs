//! What a shard is told, and what it asks for.

use std::collections::BTreeMap;

use ogive_rpc::transport::{CloseReason, ConnId, Endpoint, Event as NetEvent, Outgoing};
use ogive_store::{DiskDone, DiskOp};
use ogive_types::{CopysetId, ShardAddr, VolumeId};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The transport reports.
    Net(NetEvent),
    /// A connection that [`Effect::Connect`] asked for has this id; its `Connected` or `Closed`
    /// follows.
    Connecting {
        /// The peer asked for.
        peer: ShardAddr,
        /// The connection.
        conn: ConnId,
    },
    /// A disk operation ended.
    Disk(DiskDone),
    /// The control plane wants something.
    Admin(Admin),
}

/// Wishes of the control plane; all of them may be repeated.
#[derive(Clone, Debug)]
pub enum Admin {
    /// These replicas belong on this shard; missing ones are made.
    Replicas(Vec<ReplicaSpec>),
    /// Where the shards of the cluster listen.
    Endpoints(BTreeMap<ShardAddr, Endpoint>),
    /// The volume was deleted: drop its chunks of this copyset. Only its leader acts on it.
    DropVolume {
        /// The copyset.
        copyset: CopysetId,
        /// The volume.
        volume: VolumeId,
    },
}

/// A replica that belongs on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// The copyset.
    pub copyset: CopysetId,
    /// All its members, this shard among them; the first is the preferred leader.
    pub members: Vec<ShardAddr>,
}

/// Something must be done.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The frame.
        frame: Outgoing,
    },
    /// Connect to a peer; answer with [`Event::Connecting`].
    Connect {
        /// The peer.
        peer: ShardAddr,
        /// Where it listens.
        endpoint: Endpoint,
    },
    /// Close a connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Start a disk operation.
    Disk(DiskOp),
    /// The shard cannot go on (its device failed); the process should end with this message.
    Fatal(String),
}
