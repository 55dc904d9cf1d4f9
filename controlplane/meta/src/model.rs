//! What the state is made of.

use std::collections::BTreeMap;
use std::fmt;

use ogive_types::{
    ChunkserverId, ClusterId, CopysetId, Epoch, Layout, SEGMENT_BYTES, SessionId, ShardAddr,
    VolumeId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is decided once, when the cluster is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id, drawn by the first leader.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Replicas of a copyset, each in a zone of its own.
    pub replicas: u32,
}

/// The secret with which the metadata servers sign tokens: 32 random bytes. What it is for is said
/// in `controlplane/mds/design/0003-identity-tokens.md`.
///
/// It is written to the log and to snapshots, and shown nowhere: not in replies, not by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SigningKey(pub [u8; 32]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(secret)")
    }
}

/// A registered device and the process that serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunkserver {
    /// Its id; the same for the same device.
    pub id: ChunkserverId,
    /// Identity of the device.
    pub device: Uuid,
    /// Failure domain.
    pub zone: String,
    /// Machine.
    pub server: String,
    /// Endpoint of each shard.
    pub endpoints: Vec<String>,
    /// Size of the device.
    pub capacity_bytes: u64,
}

/// A replication group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copyset {
    /// Its id.
    pub id: CopysetId,
    /// Its replicas, in distinct zones; the first is the preferred leader.
    pub members: Vec<ShardAddr>,
    /// Segments that use it.
    pub segments: u64,
}

/// How a volume is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// Striping.
    pub layout: Layout,
    /// Copysets that share a segment, when the cluster has as many.
    pub copysets_per_segment: u32,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its layout.
    pub options: VolumeOptions,
    /// Epoch of the newest attachment; 0 before the first. Only grows.
    pub epoch: Epoch,
    /// When it was created, milliseconds of Unix time on the leader's clock.
    pub created_unix_ms: u64,
    /// The request that created it, by which a retry is known.
    pub created_by: Uuid,
    /// Copysets of the segments that have space.
    pub segments: BTreeMap<u32, Vec<CopysetId>>,
    /// The newest attachment, unless it was detached.
    pub session: Option<Session>,
}

impl Volume {
    /// Number of segments, the last of which may be partial.
    pub fn segment_count(&self) -> u32 {
        self.size_bytes.div_ceil(SEGMENT_BYTES) as u32
    }
}

/// An attachment. Whether its lease still runs is the leader's volatile knowledge; see
/// `controlplane/mds/design/0001-volatile-leases.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id, never reused.
    pub id: SessionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What the client said of itself.
    pub client: String,
    /// The request that made it, by which a retry is known.
    pub request: Uuid,
}

/// A deleted volume whose data a copyset must drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Drop {
    /// The copyset.
    pub copyset: CopysetId,
    /// The volume.
    pub volume: VolumeId,
}
