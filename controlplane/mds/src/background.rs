//! What the leader does by itself: sets the cluster up, creates copysets, forgets ended sessions.
#![allow(clippy::disallowed_methods)] // A shell: it draws the cluster's id and key.

use std::collections::BTreeSet;
use std::sync::Arc;

use ogive_api::types::Presence;
use ogive_meta::command::{CreateCopysets, InitCluster, SetSigningKey};
use ogive_meta::limits::COPYSETS_PER_COMMAND_MAX;
use ogive_meta::plan::plan_copysets;
use ogive_meta::{Command, Reply, SigningKey};
use ogive_types::{ChunkserverId, ClusterId};
use ring::rand::SystemRandom;
use tonic::Status;
use uuid::Uuid;

use crate::node::Node;

/// Runs until the node is dropped from the runtime.
pub(crate) async fn run(node: Arc<Node>) {
    let mut period = tokio::time::interval(node.config.timing.background);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut planned = None;
    loop {
        period.tick().await;
        if !node.leads() {
            planned = None;
            continue;
        }
        if let Err(status) = turn(&node, &mut planned).await {
            tracing::debug!("background work waits: {}", status.message());
        }
    }
}

/// What a plan depends on: nothing needs planning while this stays the same.
type Basis = (u64, BTreeSet<ChunkserverId>);

async fn turn(node: &Node, planned: &mut Option<Basis>) -> Result<(), Status> {
    if node.read(|m| m.cluster().is_err()) {
        init_cluster(node).await?;
    }
    if node.read(|m| m.signing_key().is_err()) {
        set_signing_key(node).await?;
    }
    let held = node.read(|m| m.sessions());
    node.volatile().keep_sessions(|id| held.contains(&id));
    let Some(basis) = basis(node) else { return Ok(()) };
    if planned.as_ref() == Some(&basis) {
        return Ok(());
    }
    create_copysets(node, &basis.1).await?;
    // Creating some has changed the version: the next turn looks again, and finds nothing to do.
    *planned = Some(basis);
    Ok(())
}

async fn init_cluster(node: &Node) -> Result<(), Status> {
    // Only the newest state can tell that no earlier leader has done it.
    node.pass().await?;
    if node.read(|m| m.cluster().is_ok()) {
        return Ok(());
    }
    let id = ClusterId(Uuid::new_v4().as_u128());
    let (name, replicas) = (node.config.cluster_name.clone(), node.config.replicas);
    node.propose(Command::InitCluster(InitCluster { id, name, replicas })).await?;
    tracing::info!(cluster = %Uuid::from_u128(id.0), "the cluster is set up");
    Ok(())
}

/// Also for a cluster of before there were keys.
async fn set_signing_key(node: &Node) -> Result<(), Status> {
    node.pass().await?;
    if node.read(|m| m.signing_key().is_ok()) {
        return Ok(());
    }
    let drawn: ring::rand::Random<[u8; 32]> = ring::rand::generate(&SystemRandom::new())
        .map_err(|_| Status::unavailable("this host gives no random numbers"))?;
    let key = SigningKey(drawn.expose());
    node.propose(Command::SetSigningKey(SetSigningKey { key })).await?;
    tracing::info!("the cluster has a key to sign tokens with");
    Ok(())
}

/// The online chunkservers, once no new one has come for a while.
fn basis(node: &Node) -> Option<Basis> {
    let (now, timing) = (node.now(), &node.config.timing);
    let volatile = node.volatile();
    if now.since(volatile.last_registration()) < timing.settle {
        return None;
    }
    let online = |id| volatile.presence(id, now, timing) == Presence::Online;
    Some(node.read(|m| {
        (m.topology_version(), m.chunkservers().map(|c| c.id).filter(|&id| online(id)).collect())
    }))
}

async fn create_copysets(node: &Node, online: &BTreeSet<ChunkserverId>) -> Result<(), Status> {
    let planned = node.read(|m| {
        let replicas = m.cluster().ok()?.replicas;
        let shards = m.shard_uses(|id| online.contains(&id));
        let leads = node.config.leads_per_shard(replicas);
        let plan = plan_copysets(&shards, replicas as usize, leads, COPYSETS_PER_COMMAND_MAX);
        Some(CreateCopysets { last_copyset: m.last_copyset(), copysets: plan })
    });
    let Some(command) = planned.filter(|c| !c.copysets.is_empty()) else { return Ok(()) };
    if let Reply::Copysets(ids) = node.propose(Command::CreateCopysets(command)).await? {
        tracing::info!(created = ids.len(), "copysets");
    }
    Ok(())
}
