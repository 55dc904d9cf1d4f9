//! Registration and heartbeats.

use std::collections::BTreeMap;

use ogive_api::convert::{cluster_from, cluster_text, copyset};
use ogive_api::types::ReplicaReport;
use ogive_api::{Refusal, pb};
use ogive_meta::command::{FinishDrops, RegisterChunkserver, SetEndpoints};
use ogive_meta::{Command, Drop, MetaError, Reply};
use ogive_rpc::token::Holder;
use ogive_types::{ChunkserverId, CopysetId, ShardAddr, VolumeId};
use tonic::Status;

use super::topology::topology;
use super::{invalid, path_uses, unexpected, uuid};
use crate::limits::REPORTS_MAX;
use crate::node::Node;
use crate::proposer::refusal;
use crate::volatile::Seen;

pub(super) async fn register_chunkserver(
    node: &Node,
    r: pb::RegisterChunkserverRequest,
) -> Result<pb::RegisterChunkserverReply, Status> {
    let cluster = match r.cluster_id.as_str() {
        "" => None,
        text => {
            Some(cluster_from(text).ok_or_else(|| invalid(format!("{text:?} is no cluster id")))?)
        }
    };
    let device = uuid("the device's identity", &r.device_uuid)?;
    node.pass().await?;
    let command = RegisterChunkserver {
        cluster,
        device,
        zone: r.zone,
        server: r.server,
        endpoints: r.endpoints,
        capacity_bytes: r.capacity_bytes,
    };
    match node.propose(Command::RegisterChunkserver(command)).await? {
        Reply::Chunkserver(id) => {
            node.volatile().registered(id, node.now());
            tracing::info!(chunkserver = id.0, %device, "registered");
            let cluster_id = cluster_text(node.read(|m| m.cluster_id()));
            let credential = Some(node.credential(Holder::Chunkserver(id))?);
            Ok(pb::RegisterChunkserverReply { chunkserver_id: id.0, cluster_id, credential })
        }
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn heartbeat(
    node: &Node,
    h: pb::HeartbeatRequest,
) -> Result<pb::HeartbeatReply, Status> {
    let id = ChunkserverId(h.chunkserver_id);
    let device = uuid("the device's identity", &h.device_uuid)?;
    if h.replicas.len() > REPORTS_MAX || h.drops_done.len() > REPORTS_MAX {
        return Err(
            Refusal::Limit.status(format!("a heartbeat holds at most {REPORTS_MAX} reports"))
        );
    }
    node.pass_recent().await?;
    let known = node.read(|m| m.chunkserver(id, device).map(|c| c.endpoints.clone()));
    // An earlier proof of leadership does not cover the newest registration: look again before
    // sending anyone away.
    let known = match known {
        Err(MetaError::NoChunkserver(_)) => {
            node.pass().await?;
            node.read(|m| m.chunkserver(id, device).map(|c| c.endpoints.clone()))
        }
        other => other,
    };
    if known.map_err(refusal)? != h.endpoints {
        let endpoints = h.endpoints.clone();
        node.propose(Command::SetEndpoints(SetEndpoints { id, device, endpoints })).await?;
    }
    let reports = reports(h.replicas)?;
    let (used_bytes, total_bytes) = (h.used_bytes, h.total_bytes);
    let paths = path_uses(h.paths);
    let health = h.device_health.unwrap_or_default().into();
    let seen = Seen { at: node.now(), used_bytes, total_bytes, reports, paths, health };
    node.volatile().heard(id, seen);
    finish_drops(node, id, &h.drops_done).await?;
    // A key that is not there yet is no reason to send it away: its next sign of life gets one.
    let credential = node.renewal(Holder::Chunkserver(id), h.token_not_after_s).unwrap_or(None);
    Ok(pb::HeartbeatReply { credential, ..reply(node, id, h.topology_version) })
}

fn reports(
    replicas: Vec<pb::ReplicaReport>,
) -> Result<BTreeMap<(CopysetId, u16), ReplicaReport>, Status> {
    let keyed = |r: pb::ReplicaReport| {
        let report = ReplicaReport::try_from(r).map_err(|e| invalid(e.to_string()))?;
        Ok(((report.copyset, report.shard), report))
    };
    replicas.into_iter().map(keyed).collect()
}

/// Notes the drops that are done. Only members of a copyset may say so.
async fn finish_drops(node: &Node, id: ChunkserverId, done: &[pb::Drop]) -> Result<(), Status> {
    let done: Vec<Drop> = node.read(|m| {
        let drops =
            done.iter().map(|d| Drop { copyset: CopysetId(d.copyset), volume: VolumeId(d.volume) });
        let member = |c| m.copyset(c).is_some_and(|c| c.members.iter().any(|a| a.server == id));
        let pending = |d: &Drop| m.drops_of(d.copyset).any(|p| p == *d);
        drops.filter(|d| member(d.copyset) && pending(d)).collect()
    });
    if !done.is_empty() {
        node.propose(Command::FinishDrops(FinishDrops { drops: done })).await?;
    }
    Ok(())
}

fn reply(node: &Node, id: ChunkserverId, known_version: u64) -> pb::HeartbeatReply {
    node.read(|m| {
        let here = |a: &ShardAddr| a.server == id;
        let replicas: Vec<_> = m.copysets().filter(|c| c.members.iter().any(here)).collect();
        let drops = replicas.iter().flat_map(|c| m.drops_of(c.id));
        let drops = drops.map(|d| pb::Drop { copyset: d.copyset.0, volume: d.volume.0 }).collect();
        pb::HeartbeatReply {
            cluster_id: cluster_text(m.cluster_id()),
            topology_version: m.topology_version(),
            topology: (m.topology_version() != known_version).then(|| topology(m)),
            drops,
            replicas: replicas.into_iter().map(|c| copyset(c.id, &c.members)).collect(),
            credential: None,
        }
    })
}
