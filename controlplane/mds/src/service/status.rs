//! Everything about the cluster's state.

use std::collections::BTreeMap;

use ogive_api::convert::cluster_text;
use ogive_api::pb;
use ogive_api::types::{Health, Presence, Role, names};
use ogive_meta::{Chunkserver, Copyset, Meta};
use ogive_types::{ChunkserverId, Time};
use tonic::Status;

use super::volume_message;
use super::volumes::changed;
use crate::health::{self, Overall, Verdict};
use crate::node::Node;
use crate::volatile::Volatile;

pub(super) async fn status(node: &Node, _: pb::StatusRequest) -> Result<pb::StatusReply, Status> {
    node.pass().await?;
    let mds = mds(node);
    let mut overall = Overall::new();
    for server in mds.iter().filter(|s| s.presence() != Presence::Online) {
        overall.add(Health::Degraded, || {
            format!("MDS {} at {} does not answer the leader", server.node_id, server.address)
        });
    }
    let mut reply = {
        let (now, volatile) = (node.now(), node.volatile());
        node.read(|m| cluster(node, m, &volatile, now, &mut overall))
    };
    let volumes = node
        .read(|m| m.volumes_after("").map(|v| (changed(v), v.segments.len())).collect::<Vec<_>>());
    reply.volumes = volumes.iter().map(|(v, n)| volume_message(node, v, *n)).collect();
    reply.mds = mds;
    let (health, reasons) = overall.finish();
    reply.health = health.into();
    reply.reasons = reasons;
    Ok(reply)
}

fn mds(node: &Node) -> Vec<pb::MdsStatus> {
    let metrics = node.raft.metrics();
    let metrics = metrics.borrow();
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = |id: u64| {
        let replication = metrics.replication.as_ref()?;
        Some(replication.get(&id)?.as_ref().map_or(0, |log| log.index))
    };
    // A follower answers every heartbeat; three missed ones are more than bad luck.
    let window = node.config.timing.raft_heartbeat * 4 + crate::limits::PEER_BACKOFF;
    let status = |(&node_id, address): (&u64, &String)| {
        let leader = node_id == node.config.node_id;
        let online = leader || node.peers.answered_within(node_id, window);
        pb::MdsStatus {
            node_id,
            address: address.clone(),
            leader,
            presence: if online { Presence::Online } else { Presence::Offline }.into(),
            lag: if leader { 0 } else { last.saturating_sub(matched(node_id).unwrap_or(0)) },
        }
    };
    node.peers.addresses().iter().map(status).collect()
}

fn cluster(
    node: &Node,
    m: &Meta,
    volatile: &Volatile,
    now: Time,
    overall: &mut Overall,
) -> pb::StatusReply {
    let timing = &node.config.timing;
    let judge = |c: &Copyset| health::copyset(c, volatile, now, timing);
    let judged: Vec<(&Copyset, Verdict)> = m.copysets().map(|c| (c, judge(c))).collect();
    let mut held: BTreeMap<ChunkserverId, (u32, u32)> = BTreeMap::new();
    for (c, verdict) in &judged {
        c.members.iter().for_each(|a| held.entry(a.server).or_default().0 += 1);
        verdict.leader.iter().for_each(|a| held.entry(a.server).or_default().1 += 1);
    }
    let chunkservers: Vec<_> = m
        .chunkservers()
        .map(|c| chunkserver(c, volatile, now, node, held.get(&c.id).copied().unwrap_or((0, 0))))
        .collect();
    judge_parts(m, node, &chunkservers, &judged, overall);
    let copysets = judged.into_iter().map(|(c, v)| copyset(c, v, volatile, now, node)).collect();
    pb::StatusReply {
        cluster_id: cluster_text(m.cluster_id()),
        cluster_name: node.config.cluster_name.clone(),
        chunkservers,
        copysets,
        drops_pending: m.drops().count() as u64,
        replicas: m.cluster().map_or(node.config.replicas, |c| c.replicas),
        ..pb::StatusReply::default()
    }
}

fn judge_parts(
    m: &Meta,
    node: &Node,
    chunkservers: &[pb::ChunkserverStatus],
    judged: &[(&Copyset, Verdict)],
    overall: &mut Overall,
) {
    let replicas = m.cluster().map_or(node.config.replicas, |c| c.replicas);
    if judged.is_empty() {
        let zones = m.zone_count();
        overall.add(Health::Unavailable, || match zones < replicas as usize {
            true => format!(
                "chunkservers run in {zones} zones; {replicas} are needed before data can be stored"
            ),
            false => "copysets are being created".into(),
        });
    }
    for c in chunkservers.iter().filter(|c| c.presence() != Presence::Online) {
        let health = match c.presence() {
            Presence::Unknown => Health::Unknown,
            _ => Health::Degraded,
        };
        overall.add(health, || {
            let presence = names::of_presence(c.presence());
            format!("chunkserver {} ({}, zone {}) is {presence}", c.id, c.server, c.zone)
        });
    }
    for c in chunkservers {
        for what in health::device_faults(&c.device_health.unwrap_or_default()) {
            overall.add(Health::Degraded, || {
                format!("chunkserver {} ({}, zone {}): {what}", c.id, c.server, c.zone)
            });
        }
    }
    for (c, verdict) in judged {
        overall.add(verdict.health, || format!("copyset {}: {}", c.id, verdict.reason));
    }
}

fn chunkserver(
    c: &Chunkserver,
    volatile: &Volatile,
    now: Time,
    node: &Node,
    (replicas, leaders): (u32, u32),
) -> pb::ChunkserverStatus {
    let seen = volatile.seen(c.id);
    pb::ChunkserverStatus {
        id: c.id.0,
        device_uuid: c.device.to_string(),
        zone: c.zone.clone(),
        server: c.server.clone(),
        presence: volatile.presence(c.id, now, &node.config.timing).into(),
        endpoints: c.endpoints.clone(),
        used_bytes: seen.map_or(0, |s| s.used_bytes),
        total_bytes: seen.map(|s| s.total_bytes).filter(|&n| n > 0).unwrap_or(c.capacity_bytes),
        replicas,
        leaders,
        silent_ms: seen.map(|s| now.since(s.at).as_millis() as u64),
        paths: seen.map_or(&[][..], |s| &s.paths).iter().cloned().map(Into::into).collect(),
        device_health: seen.map(|s| s.health.into()),
    }
}

fn copyset(
    c: &Copyset,
    verdict: Verdict,
    volatile: &Volatile,
    now: Time,
    node: &Node,
) -> pb::CopysetStatus {
    let timing = &node.config.timing;
    let led = verdict.leader.and_then(|a| volatile.report(a, c.id, now, timing));
    let member = |&a| {
        let report = volatile.report(a, c.id, now, timing);
        pb::ReplicaStatus {
            replica: Some(pb::ShardAddr::from(a)),
            presence: volatile.presence(a.server, now, timing).into(),
            role: report.map_or(Role::Unspecified, |r| r.role).into(),
            applied: report.map_or(0, |r| r.applied.0),
            last: report.map_or(0, |r| r.last.0),
            lag: led.and_then(|l| l.followers.iter().find(|f| f.replica == a)).map(|f| f.lag),
        }
    };
    pb::CopysetStatus {
        id: c.id.0,
        health: verdict.health.into(),
        leader: verdict.leader.map(Into::into),
        term: verdict.term.0,
        members: c.members.iter().map(member).collect(),
        segments: c.segments,
        reason: verdict.reason,
    }
}
