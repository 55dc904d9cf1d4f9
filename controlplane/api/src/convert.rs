//! Between generated messages and [`crate::types`]. Everything that arrives is checked here.

use ogive_types::{
    ChunkserverId, ClusterId, CopysetId, Epoch, Index, Layout, SessionId, ShardAddr, Term, VolumeId,
};
use uuid::Uuid;

use crate::error::ApiError;
use crate::pb;
use crate::types::*;

/// A cluster id in its text form.
pub fn cluster_text(id: ClusterId) -> String {
    Uuid::from_u128(id.0).to_string()
}

/// A cluster id from its text form; `None` for anything else, or for zero.
pub fn cluster_from(text: &str) -> Option<ClusterId> {
    let id = Uuid::parse_str(text).ok()?.as_u128();
    (id != 0).then_some(ClusterId(id))
}

fn cluster(text: &str) -> Result<ClusterId, ApiError> {
    cluster_from(text).ok_or(ApiError::Malformed("a cluster id that is no UUID"))
}

impl From<ShardAddr> for pb::ShardAddr {
    fn from(a: ShardAddr) -> pb::ShardAddr {
        pb::ShardAddr { chunkserver: a.server.0, shard: a.shard.into() }
    }
}

impl TryFrom<pb::ShardAddr> for ShardAddr {
    type Error = ApiError;

    fn try_from(a: pb::ShardAddr) -> Result<ShardAddr, ApiError> {
        let shard =
            u16::try_from(a.shard).map_err(|_| ApiError::Malformed("a shard above 65535"))?;
        Ok(ShardAddr { server: ChunkserverId(a.chunkserver), shard })
    }
}

fn shard(a: Option<pb::ShardAddr>) -> Result<ShardAddr, ApiError> {
    a.ok_or(ApiError::Malformed("a missing shard address"))?.try_into()
}

fn members(c: pb::Copyset) -> Result<(CopysetId, Vec<ShardAddr>), ApiError> {
    let all: Result<_, _> = c.members.into_iter().map(ShardAddr::try_from).collect();
    Ok((CopysetId(c.id), all?))
}

impl From<Registration> for pb::RegisterChunkserverRequest {
    fn from(r: Registration) -> Self {
        pb::RegisterChunkserverRequest {
            cluster_id: r.cluster.map(cluster_text).unwrap_or_default(),
            device_uuid: r.device.to_string(),
            zone: r.zone,
            server: r.server,
            endpoints: r.endpoints,
            capacity_bytes: r.capacity_bytes,
        }
    }
}

impl TryFrom<pb::RegisterChunkserverReply> for Registered {
    type Error = ApiError;

    fn try_from(r: pb::RegisterChunkserverReply) -> Result<Registered, ApiError> {
        let id = ChunkserverId(r.chunkserver_id);
        let credential = credential(r.credential)?;
        Ok(Registered { id, cluster: cluster(&r.cluster_id)?, credential })
    }
}

impl From<Credential> for pb::Credential {
    fn from(c: Credential) -> Self {
        let (token, public_key) = (c.token, c.public_key.to_vec());
        pb::Credential { token, public_key, not_after_s: c.not_after_s }
    }
}

impl TryFrom<pb::Credential> for Credential {
    type Error = ApiError;

    fn try_from(c: pb::Credential) -> Result<Credential, ApiError> {
        let public_key = <[u8; 32]>::try_from(c.public_key);
        let public_key = public_key.map_err(|_| ApiError::Malformed("a key of a wrong length"))?;
        Ok(Credential { token: c.token, public_key, not_after_s: c.not_after_s })
    }
}

fn credential(c: Option<pb::Credential>) -> Result<Credential, ApiError> {
    c.ok_or(ApiError::Malformed("no token"))?.try_into()
}

impl From<PathUse> for pb::PathUse {
    fn from(p: PathUse) -> Self {
        pb::PathUse {
            path: p.path,
            chunkservers: p.chunkservers,
            clients: p.clients,
            frames_sent: p.frames_sent,
            frames_received: p.frames_received,
            bytes_sent: p.bytes_sent,
            bytes_received: p.bytes_received,
            copied_bytes: p.copied_bytes,
        }
    }
}

impl From<pb::PathUse> for PathUse {
    fn from(p: pb::PathUse) -> Self {
        PathUse {
            path: p.path,
            chunkservers: p.chunkservers,
            clients: p.clients,
            frames_sent: p.frames_sent,
            frames_received: p.frames_received,
            bytes_sent: p.bytes_sent,
            bytes_received: p.bytes_received,
            copied_bytes: p.copied_bytes,
        }
    }
}

impl From<DeviceHealth> for pb::DeviceHealth {
    fn from(h: DeviceHealth) -> Self {
        pb::DeviceHealth {
            damaged_blocks: h.damaged_blocks,
            read_errors: h.read_errors,
            repaired_blocks: h.repaired_blocks,
            open_repairs: h.open_repairs,
            unrepairable_blocks: h.unrepairable_blocks,
            retired_bytes: h.retired_bytes,
            replace: h.replace,
            scrub_laps: h.scrub_laps,
            scrub_bytes: h.scrub_bytes,
            scrub_bytes_expected: h.scrub_bytes_expected,
            last_lap_ms: h.last_lap_ms,
            last_lap_bytes: h.last_lap_bytes,
            near_full: h.near_full,
            full: h.full,
        }
    }
}

impl From<pb::DeviceHealth> for DeviceHealth {
    fn from(h: pb::DeviceHealth) -> Self {
        DeviceHealth {
            damaged_blocks: h.damaged_blocks,
            read_errors: h.read_errors,
            repaired_blocks: h.repaired_blocks,
            open_repairs: h.open_repairs,
            unrepairable_blocks: h.unrepairable_blocks,
            retired_bytes: h.retired_bytes,
            replace: h.replace,
            scrub_laps: h.scrub_laps,
            scrub_bytes: h.scrub_bytes,
            scrub_bytes_expected: h.scrub_bytes_expected,
            last_lap_ms: h.last_lap_ms,
            last_lap_bytes: h.last_lap_bytes,
            near_full: h.near_full,
            full: h.full,
        }
    }
}

fn path_uses(all: Vec<pb::PathUse>) -> Vec<PathUse> {
    all.into_iter().map(Into::into).collect()
}

impl From<FollowerReport> for pb::FollowerReport {
    fn from(f: FollowerReport) -> Self {
        pb::FollowerReport { replica: Some(f.replica.into()), lag: f.lag, active: f.active }
    }
}

impl From<ReplicaReport> for pb::ReplicaReport {
    fn from(r: ReplicaReport) -> Self {
        pb::ReplicaReport {
            copyset: r.copyset.0,
            shard: r.shard.into(),
            role: r.role.into(),
            term: r.term.0,
            applied: r.applied.0,
            last: r.last.0,
            followers: r.followers.into_iter().map(Into::into).collect(),
            healthy: r.healthy,
        }
    }
}

impl TryFrom<pb::ReplicaReport> for ReplicaReport {
    type Error = ApiError;

    fn try_from(r: pb::ReplicaReport) -> Result<ReplicaReport, ApiError> {
        let role = r.role();
        let follower = |f: pb::FollowerReport| {
            Ok(FollowerReport { replica: shard(f.replica)?, lag: f.lag, active: f.active })
        };
        let followers: Result<_, ApiError> = r.followers.into_iter().map(follower).collect();
        Ok(ReplicaReport {
            copyset: CopysetId(r.copyset),
            shard: u16::try_from(r.shard)
                .map_err(|_| ApiError::Malformed("a shard above 65535"))?,
            role,
            term: Term(r.term),
            applied: Index(r.applied),
            last: Index(r.last),
            followers: followers?,
            healthy: r.healthy,
        })
    }
}

impl From<Drop> for pb::Drop {
    fn from(d: Drop) -> Self {
        pb::Drop { copyset: d.copyset.0, volume: d.volume.0 }
    }
}

impl From<pb::Drop> for Drop {
    fn from(d: pb::Drop) -> Self {
        Drop { copyset: CopysetId(d.copyset), volume: VolumeId(d.volume) }
    }
}

impl From<Heartbeat> for pb::HeartbeatRequest {
    fn from(h: Heartbeat) -> Self {
        pb::HeartbeatRequest {
            chunkserver_id: h.id.0,
            device_uuid: h.device.to_string(),
            endpoints: h.endpoints,
            used_bytes: h.used_bytes,
            total_bytes: h.total_bytes,
            replicas: h.replicas.into_iter().map(Into::into).collect(),
            drops_done: h.drops_done.into_iter().map(Into::into).collect(),
            topology_version: h.topology_version,
            token_not_after_s: h.token_not_after_s,
            paths: h.paths.into_iter().map(Into::into).collect(),
            device_health: Some(h.device_health.into()),
        }
    }
}

impl From<KeepAlive> for pb::KeepAliveRequest {
    fn from(k: KeepAlive) -> Self {
        pb::KeepAliveRequest {
            volume: k.volume.0,
            session: k.session.0,
            token_not_after_s: k.token_not_after_s,
            paths: k.paths.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::KeepAliveReply> for KeptAlive {
    type Error = ApiError;

    fn try_from(k: pb::KeepAliveReply) -> Result<KeptAlive, ApiError> {
        let credential = k.credential.map(Credential::try_from).transpose()?;
        Ok(KeptAlive { lease_ms: k.lease_ms, size_bytes: k.size_bytes, credential })
    }
}

impl From<Topology> for pb::Topology {
    fn from(t: Topology) -> Self {
        let endpoint = |(at, endpoint): (ShardAddr, String)| pb::ShardEndpoint {
            shard: Some(at.into()),
            endpoint,
        };
        pb::Topology {
            version: t.version,
            copysets: t.copysets.iter().map(|(&id, all)| copyset(id, all)).collect(),
            endpoints: t.endpoints.into_iter().map(endpoint).collect(),
        }
    }
}

/// A copyset as a message.
pub fn copyset(id: CopysetId, members: &[ShardAddr]) -> pb::Copyset {
    pb::Copyset { id: id.0, members: members.iter().map(|&m| m.into()).collect() }
}

impl TryFrom<pb::Topology> for Topology {
    type Error = ApiError;

    fn try_from(t: pb::Topology) -> Result<Topology, ApiError> {
        let copysets: Result<_, _> = t.copysets.into_iter().map(members).collect();
        let endpoint = |e: pb::ShardEndpoint| Ok((shard(e.shard)?, e.endpoint));
        let endpoints: Result<_, ApiError> = t.endpoints.into_iter().map(endpoint).collect();
        Ok(Topology { version: t.version, copysets: copysets?, endpoints: endpoints? })
    }
}

impl TryFrom<pb::HeartbeatReply> for HeartbeatReply {
    type Error = ApiError;

    fn try_from(h: pb::HeartbeatReply) -> Result<HeartbeatReply, ApiError> {
        let replicas: Result<_, _> = h.replicas.into_iter().map(members).collect();
        Ok(HeartbeatReply {
            cluster: cluster(&h.cluster_id)?,
            replicas: replicas?,
            topology_version: h.topology_version,
            topology: h.topology.map(Topology::try_from).transpose()?,
            drops: h.drops.into_iter().map(Into::into).collect(),
            credential: h.credential.map(Credential::try_from).transpose()?,
        })
    }
}

impl TryFrom<pb::Volume> for Volume {
    type Error = ApiError;

    fn try_from(v: pb::Volume) -> Result<Volume, ApiError> {
        let layout = v.layout.ok_or(ApiError::Malformed("a volume without a layout"))?;
        Ok(Volume {
            id: VolumeId(v.id),
            name: v.name,
            size_bytes: v.size_bytes,
            layout: Layout::new(layout.stripe_unit_bytes, layout.stripe_chunks)
                .ok_or(ApiError::Malformed("an impossible volume layout"))?,
            copysets_per_segment: layout.copysets_per_segment,
            epoch: Epoch(v.epoch),
            created_unix_ms: v.created_unix_ms,
            segments: v.segments,
            session: v.session.map(Into::into),
        })
    }
}

impl From<pb::Session> for Session {
    fn from(s: pb::Session) -> Session {
        let (id, epoch) = (SessionId(s.id), Epoch(s.epoch));
        let paths = path_uses(s.paths);
        Session { id, epoch, client: s.client, alive: s.alive, paths }
    }
}

impl TryFrom<pb::AttachVolumeReply> for Attachment {
    type Error = ApiError;

    fn try_from(a: pb::AttachVolumeReply) -> Result<Attachment, ApiError> {
        let volume = a.volume.ok_or(ApiError::Malformed("an attachment without its volume"))?;
        Ok(Attachment {
            volume: volume.try_into()?,
            session: SessionId(a.session),
            epoch: Epoch(a.epoch),
            lease_ms: a.lease_ms,
            cluster: cluster(&a.cluster_id)?,
            credential: credential(a.credential)?,
        })
    }
}

/// The copysets of a segment.
pub(crate) fn segment(s: pb::Segment) -> Result<(u32, Vec<CopysetId>), ApiError> {
    if s.copysets.is_empty() {
        return Err(ApiError::Malformed("a segment without copysets"));
    }
    Ok((s.number, s.copysets.into_iter().map(CopysetId).collect()))
}

impl TryFrom<pb::StatusReply> for ClusterStatus {
    type Error = ApiError;

    fn try_from(s: pb::StatusReply) -> Result<ClusterStatus, ApiError> {
        let health = s.health();
        let copysets: Result<_, _> = s.copysets.into_iter().map(CopysetStatus::try_from).collect();
        let volumes: Result<_, _> = s.volumes.into_iter().map(Volume::try_from).collect();
        Ok(ClusterStatus {
            cluster: s.cluster_id,
            name: s.cluster_name,
            health,
            reasons: s.reasons,
            mds: s.mds.into_iter().map(Into::into).collect(),
            chunkservers: s.chunkservers.into_iter().map(Into::into).collect(),
            copysets: copysets?,
            volumes: volumes?,
            drops_pending: s.drops_pending,
            replicas: s.replicas,
        })
    }
}

impl From<pb::MdsStatus> for MdsStatus {
    fn from(m: pb::MdsStatus) -> Self {
        let presence = m.presence();
        MdsStatus { node_id: m.node_id, address: m.address, leader: m.leader, presence, lag: m.lag }
    }
}

impl From<pb::ChunkserverStatus> for ChunkserverStatus {
    fn from(c: pb::ChunkserverStatus) -> Self {
        ChunkserverStatus {
            presence: c.presence(),
            id: ChunkserverId(c.id),
            device: c.device_uuid,
            zone: c.zone,
            server: c.server,
            endpoints: c.endpoints,
            used_bytes: c.used_bytes,
            total_bytes: c.total_bytes,
            replicas: c.replicas,
            leaders: c.leaders,
            silent_ms: c.silent_ms,
            paths: path_uses(c.paths),
            device_health: c.device_health.unwrap_or_default().into(),
        }
    }
}

impl TryFrom<pb::CopysetStatus> for CopysetStatus {
    type Error = ApiError;

    fn try_from(c: pb::CopysetStatus) -> Result<CopysetStatus, ApiError> {
        let health = c.health();
        let members: Result<_, _> = c.members.into_iter().map(ReplicaStatus::try_from).collect();
        Ok(CopysetStatus {
            id: CopysetId(c.id),
            health,
            reason: c.reason,
            leader: c.leader.map(ShardAddr::try_from).transpose()?,
            term: Term(c.term),
            members: members?,
            segments: c.segments,
        })
    }
}

impl TryFrom<pb::ReplicaStatus> for ReplicaStatus {
    type Error = ApiError;

    fn try_from(r: pb::ReplicaStatus) -> Result<ReplicaStatus, ApiError> {
        Ok(ReplicaStatus {
            presence: r.presence(),
            role: r.role(),
            replica: shard(r.replica)?,
            applied: Index(r.applied),
            last: Index(r.last),
            lag: r.lag,
        })
    }
}
