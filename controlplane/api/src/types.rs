//! The interface in Rust's own terms: what [`crate::MdsClient`] takes and returns. All of it
//! serialises, for `--json`.

use std::collections::BTreeMap;

use ogive_types::{
    ChunkserverId, ClusterId, CopysetId, Epoch, Index, Layout, SessionId, ShardAddr, Term, VolumeId,
};
use serde::Serialize;
use uuid::Uuid;

pub use crate::pb::{Health, Presence, Role};

/// What a chunkserver says of itself once per start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Cluster in the device's label; `None` for a device without one.
    pub cluster: Option<ClusterId>,
    /// Identity of the device.
    pub device: Uuid,
    /// Failure domain.
    pub zone: String,
    /// Machine.
    pub server: String,
    /// Endpoint of each shard: `PATH[,PATH...]:HOST:PORT`.
    pub endpoints: Vec<String>,
    /// Size of the device.
    pub capacity_bytes: u64,
}

/// What a chunkserver is told at registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id, the same for the same device for ever.
    pub id: ChunkserverId,
    /// The cluster that it is now part of.
    pub cluster: ClusterId,
    /// By which it shows who it is.
    pub credential: Credential,
}

/// What a chunkserver or a session shows to its peers, and checks theirs with. What the bytes mean
/// is the business of `ogive_rpc::token`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// A signed statement of who it is. Whoever has it passes for its holder, so `Debug` does not
    /// show it.
    pub token: Vec<u8>,
    /// The Ed25519 public key with which tokens of the cluster are checked.
    pub public_key: [u8; 32],
    /// The token is not valid after this, in seconds of Unix time.
    pub not_after_s: u64,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential(secret, not after {})", self.not_after_s)
    }
}

/// What went over one path of a process since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathUse {
    /// `rdma`, `shm` or `tcp`; a newer process may have others.
    pub path: String,
    /// Connections with chunkservers that take it now.
    pub chunkservers: u32,
    /// Connections with clients that take it now.
    pub clients: u32,
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Payload bytes that were copied on their way into the buffer from which they are used.
    pub copied_bytes: u64,
}

/// How a chunkserver's device does, since its process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceHealth {
    /// Blocks whose stored copy was found damaged.
    pub damaged_blocks: u64,
    /// Those among them that the device failed to read.
    pub read_errors: u64,
    /// Blocks that were written anew from a peer's copy.
    pub repaired_blocks: u64,
    /// Damaged blocks that are not repaired now.
    pub open_repairs: u64,
    /// Those among them of which no replica has a good copy.
    pub unrepairable_blocks: u64,
    /// Bytes that are not used again, since the device failed to read them.
    pub retired_bytes: u64,
    /// So much is damaged that the device should be replaced.
    pub replace: bool,
    /// Laps of the scrub.
    pub scrub_laps: u64,
    /// What the lap under way has read.
    pub scrub_bytes: u64,
    /// What there was to read when it began.
    pub scrub_bytes_expected: u64,
    /// How long the last lap took, in milliseconds.
    pub last_lap_ms: u64,
    /// What it read.
    pub last_lap_bytes: u64,
    /// Little space is left.
    pub near_full: bool,
    /// No space is left: writes are refused.
    pub full: bool,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// From registration.
    pub id: ChunkserverId,
    /// Identity of the device.
    pub device: Uuid,
    /// As in [`Registration`].
    pub endpoints: Vec<String>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// One per replica here.
    pub replicas: Vec<ReplicaReport>,
    /// Drops committed in copysets led from here.
    pub drops_done: Vec<Drop>,
    /// Version of the topology known here; 0 for none.
    pub topology_version: u64,
    /// Until when the token here holds, in seconds of Unix time; 0 for none.
    pub token_not_after_s: u64,
    /// What went over the paths here.
    pub paths: Vec<PathUse>,
    /// How the device does.
    pub device_health: DeviceHealth,
}

/// The state of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The copyset.
    pub copyset: CopysetId,
    /// The shard that holds the replica.
    pub shard: u16,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Newest entry applied.
    pub applied: Index,
    /// Newest entry in the log.
    pub last: Index,
    /// The leader's view of the others.
    pub followers: Vec<FollowerReport>,
    /// False when the replica knows that something is wrong with it.
    pub healthy: bool,
}

/// A leader's view of another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerReport {
    /// The replica.
    pub replica: ShardAddr,
    /// Log entries that it lacks.
    pub lag: u64,
    /// True when it answered lately.
    pub active: bool,
}

/// A deleted volume whose data a copyset must drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Drop {
    /// The copyset.
    pub copyset: CopysetId,
    /// The volume.
    pub volume: VolumeId,
}

/// What a chunkserver should hold and do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The cluster.
    pub cluster: ClusterId,
    /// Copysets with a replica on this chunkserver, and their members; the first is the preferred
    /// leader.
    pub replicas: BTreeMap<CopysetId, Vec<ShardAddr>>,
    /// Version of the topology.
    pub topology_version: u64,
    /// The topology, when it is newer than the one known.
    pub topology: Option<Topology>,
    /// Deleted volumes whose data the leaders here must drop, and then report.
    pub drops: Vec<Drop>,
    /// A new credential, when the one here is to be renewed.
    pub credential: Option<Credential>,
}

/// Copysets, and where their replicas listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Grows with every change.
    pub version: u64,
    /// Members of each copyset; the first is the preferred leader.
    pub copysets: BTreeMap<CopysetId, Vec<ShardAddr>>,
    /// Where each shard listens, and on which paths: `PATH[,PATH...]:HOST:PORT`.
    pub endpoints: BTreeMap<ShardAddr, String>,
}

/// A volume to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// 1 to 255 bytes of `A-Za-z0-9._/-`.
    pub name: String,
    /// A multiple of 4 KiB, 1 MiB to 64 TiB.
    pub size_bytes: u64,
    /// Striping.
    pub layout: Layout,
    /// Copysets that share a segment; `None` for the default.
    pub copysets_per_segment: Option<u32>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Its id, never reused.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Striping.
    pub layout: Layout,
    /// Copysets that share a segment.
    pub copysets_per_segment: u32,
    /// Epoch of the newest attachment; 0 before the first.
    pub epoch: Epoch,
    /// When it was created, milliseconds of Unix time.
    pub created_unix_ms: u64,
    /// Segments that have space.
    pub segments: u64,
    /// The newest attachment, unless it was detached.
    pub session: Option<Session>,
}

/// An attachment, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What the client said of itself.
    pub client: String,
    /// False when its lease has run out.
    pub alive: bool,
    /// What its holder last said of its paths.
    pub paths: Vec<PathUse>,
}

/// An attachment, as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The volume.
    pub volume: Volume,
    /// The session to keep alive.
    pub session: SessionId,
    /// Its epoch, for the fence of each request.
    pub epoch: Epoch,
    /// Milliseconds after which a silent session may be replaced; keep it alive every third of
    /// that.
    pub lease_ms: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// By which the session shows who it is.
    pub credential: Credential,
}

/// A session's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The volume.
    pub volume: VolumeId,
    /// From attachment.
    pub session: SessionId,
    /// As in [`Heartbeat`].
    pub token_not_after_s: u64,
    /// As in [`Heartbeat`].
    pub paths: Vec<PathUse>,
}

impl KeepAlive {
    /// The sign of life of an attachment that has nothing to report.
    pub fn of(attachment: &Attachment) -> KeepAlive {
        KeepAlive {
            volume: attachment.volume.id,
            session: attachment.session,
            token_not_after_s: attachment.credential.not_after_s,
            paths: Vec::new(),
        }
    }
}

/// Answer to a session's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAlive {
    /// As in [`Attachment`].
    pub lease_ms: u64,
    /// The volume's present size.
    pub size_bytes: u64,
    /// As in [`HeartbeatReply`].
    pub credential: Option<Credential>,
}

/// Part of a volume's segment map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Copysets of each segment that has space.
    pub segments: BTreeMap<u32, Vec<CopysetId>>,
    /// How many numbers were looked at; go on from there.
    pub looked_at: u32,
}

/// A page of volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePage {
    /// In order of their names.
    pub volumes: Vec<Volume>,
    /// True when there are more after the last.
    pub more: bool,
}

/// Everything about the cluster's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// The verdict.
    #[serde(serialize_with = "names::health")]
    pub health: Health,
    /// Why it is not healthy.
    pub reasons: Vec<String>,
    /// Metadata servers.
    pub mds: Vec<MdsStatus>,
    /// Chunkservers.
    pub chunkservers: Vec<ChunkserverStatus>,
    /// Copysets.
    pub copysets: Vec<CopysetStatus>,
    /// Volumes, by name.
    pub volumes: Vec<Volume>,
    /// Volume drops that leaders have not reported yet.
    pub drops_pending: u64,
    /// Zones that a copyset spans.
    pub replicas: u32,
}

/// A metadata server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MdsStatus {
    /// Its id.
    pub node_id: u64,
    /// Where it listens.
    pub address: String,
    /// True for the leader.
    pub leader: bool,
    /// Whether it answers the leader.
    #[serde(serialize_with = "names::presence")]
    pub presence: Presence,
    /// Log entries that it lacks.
    pub lag: u64,
}

/// A chunkserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChunkserverStatus {
    /// Its id.
    pub id: ChunkserverId,
    /// Identity of its device.
    pub device: String,
    /// Failure domain.
    pub zone: String,
    /// Machine.
    pub server: String,
    /// Whether it is heard of.
    #[serde(serialize_with = "names::presence")]
    pub presence: Presence,
    /// Where its shards listen.
    pub endpoints: Vec<String>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Replicas that it should hold.
    pub replicas: u32,
    /// Copysets that it leads.
    pub leaders: u32,
    /// Milliseconds since it was heard of.
    pub silent_ms: Option<u64>,
    /// What it last said of its paths.
    pub paths: Vec<PathUse>,
    /// What it last said of its device.
    pub device_health: DeviceHealth,
}

/// A copyset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopysetStatus {
    /// Its id.
    pub id: CopysetId,
    /// The verdict.
    #[serde(serialize_with = "names::health")]
    pub health: Health,
    /// Why it is not healthy; empty when it is.
    pub reason: String,
    /// Its leader, when one is known.
    pub leader: Option<ShardAddr>,
    /// Newest term reported.
    pub term: Term,
    /// Its replicas, the preferred leader first.
    pub members: Vec<ReplicaStatus>,
    /// Segments that use it.
    pub segments: u64,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// Where it lives.
    pub replica: ShardAddr,
    /// Whether its chunkserver is heard of.
    #[serde(serialize_with = "names::presence")]
    pub presence: Presence,
    /// Its role, as it said itself.
    #[serde(serialize_with = "names::role")]
    pub role: Role,
    /// Newest entry applied.
    pub applied: Index,
    /// Newest entry in the log.
    pub last: Index,
    /// Entries that it lacks, as the leader sees it.
    pub lag: Option<u64>,
}

/// Names of enumerations for people and for JSON.
pub mod names {
    use serde::Serializer;

    use super::{Health, Presence, Role};

    /// `healthy`, `degraded`, `unavailable` or `unknown`.
    pub fn of_health(h: Health) -> &'static str {
        match h {
            Health::Unknown => "unknown",
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unavailable => "unavailable",
        }
    }

    /// `online`, `offline` or `unknown`.
    pub fn of_presence(p: Presence) -> &'static str {
        match p {
            Presence::Unknown => "unknown",
            Presence::Online => "online",
            Presence::Offline => "offline",
        }
    }

    /// `leader`, `follower`, `candidate`, `learner` or `unknown`.
    pub fn of_role(r: Role) -> &'static str {
        match r {
            Role::Unspecified => "unknown",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
            Role::Learner => "learner",
        }
    }

    pub(super) fn health<S: Serializer>(h: &Health, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(of_health(*h))
    }

    pub(super) fn presence<S: Serializer>(p: &Presence, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(of_presence(*p))
    }

    pub(super) fn role<S: Serializer>(r: &Role, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(of_role(*r))
    }
}
