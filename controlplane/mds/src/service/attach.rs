//! Attachments and their leases.

use ogive_api::convert::cluster_text;
use ogive_api::pb;
use ogive_meta::command::{AttachVolume, DetachVolume};
use ogive_meta::{Command, MetaError, Reply};
use ogive_rpc::token::Holder;
use ogive_types::{SessionId, VolumeId};
use tonic::Status;

use super::{changed_volume, displace, path_uses, unexpected, uuid};
use crate::node::Node;
use crate::proposer::refusal;

pub(super) async fn attach_volume(
    node: &Node,
    r: pb::AttachVolumeRequest,
) -> Result<pb::AttachVolumeReply, Status> {
    let request = match r.request_id.as_str() {
        "" => uuid::Uuid::new_v4(),
        text => uuid("request_id", text)?,
    };
    node.pass().await?;
    let displace = displace(node, &r.name, r.force);
    let command = AttachVolume { name: r.name, client: r.client, request, displace };
    match node.propose(Command::AttachVolume(command)).await? {
        Reply::Attached(session, volume) => {
            let credential = node.credential(Holder::Session(session.id))?;
            node.volatile().session_heard(session.id, Vec::new(), node.now());
            Ok(pb::AttachVolumeReply {
                volume: Some(changed_volume(node, &volume)),
                session: session.id.0,
                epoch: session.epoch.0,
                lease_ms: lease_ms(node),
                cluster_id: cluster_text(node.read(|m| m.cluster_id())),
                credential: Some(credential),
            })
        }
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn keep_alive(
    node: &Node,
    r: pb::KeepAliveRequest,
) -> Result<pb::KeepAliveReply, Status> {
    node.pass_recent().await?;
    let (volume, session) = (VolumeId(r.volume), SessionId(r.session));
    let size_bytes = match held(node, volume, session) {
        Ok(size) => size,
        // The session may be newer than the proof that this server leads.
        Err(_) => {
            node.pass().await?;
            held(node, volume, session).map_err(refusal)?
        }
    };
    node.volatile().session_heard(session, path_uses(r.paths), node.now());
    let credential = node.renewal(Holder::Session(session), r.token_not_after_s).unwrap_or(None);
    Ok(pb::KeepAliveReply { lease_ms: lease_ms(node), size_bytes, credential })
}

/// The volume's size, when the session holds it.
fn held(node: &Node, volume: VolumeId, session: SessionId) -> Result<u64, MetaError> {
    node.read(|m| {
        let volume = m.volume(volume)?;
        match &volume.session {
            Some(s) if s.id == session => Ok(volume.size_bytes),
            _ => Err(MetaError::SessionGone(session)),
        }
    })
}

pub(super) async fn detach_volume(
    node: &Node,
    r: pb::DetachVolumeRequest,
) -> Result<pb::DetachVolumeReply, Status> {
    let (volume, session) = (VolumeId(r.volume), SessionId(r.session));
    node.propose(Command::DetachVolume(DetachVolume { volume, session })).await?;
    Ok(pb::DetachVolumeReply {})
}

fn lease_ms(node: &Node) -> u64 {
    node.config.timing.session_lease.as_millis() as u64
}
