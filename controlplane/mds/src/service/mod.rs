//! The calls of clients and chunkservers; one file per group.

mod attach;
mod chunkserver;
mod segments;
mod status;
mod topology;
mod volumes;

use std::sync::Arc;

use ogive_api::types::PathUse;
use ogive_api::{Refusal, pb};
use ogive_meta::{Displace, Reply, Volume};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::limits::{PATH_NAME_BYTES_MAX, PATHS_MAX};
use crate::node::Node;

/// The service; all of it is in the groups' files.
pub(crate) struct MdsService(pub(crate) Arc<Node>);

macro_rules! forward {
    ($($name:ident($request:ident) -> $reply:ident in $group:ident;)*) => {
        #[tonic::async_trait]
        impl pb::mds_server::Mds for MdsService {
            $(async fn $name(
                &self,
                request: Request<pb::$request>,
            ) -> Result<Response<pb::$reply>, Status> {
                $group::$name(&self.0, request.into_inner()).await.map(Response::new)
            })*
        }
    };
}

forward! {
    register_chunkserver(RegisterChunkserverRequest) -> RegisterChunkserverReply in chunkserver;
    heartbeat(HeartbeatRequest) -> HeartbeatReply in chunkserver;
    create_volume(CreateVolumeRequest) -> Volume in volumes;
    list_volumes(ListVolumesRequest) -> ListVolumesReply in volumes;
    get_volume(GetVolumeRequest) -> Volume in volumes;
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeReply in volumes;
    resize_volume(ResizeVolumeRequest) -> Volume in volumes;
    attach_volume(AttachVolumeRequest) -> AttachVolumeReply in attach;
    keep_alive(KeepAliveRequest) -> KeepAliveReply in attach;
    detach_volume(DetachVolumeRequest) -> DetachVolumeReply in attach;
    get_segments(GetSegmentsRequest) -> GetSegmentsReply in segments;
    allocate_segment(AllocateSegmentRequest) -> Segment in segments;
    get_topology(GetTopologyRequest) -> GetTopologyReply in topology;
    status(StatusRequest) -> StatusReply in status;
}

fn invalid(message: impl Into<String>) -> Status {
    Refusal::Invalid.status(message)
}

fn uuid(what: &str, text: &str) -> Result<Uuid, Status> {
    let parsed = Uuid::parse_str(text).ok().filter(|id| !id.is_nil());
    parsed.ok_or_else(|| invalid(format!("{what} must be a UUID that is not nil, not {text:?}")))
}

/// A reply that the command cannot have given.
fn unexpected(reply: &Reply) -> Status {
    Status::internal(format!("the state machine gave an unexpected reply: {reply:?}"))
}

/// What a process says of its paths, as far as it makes sense: it is shown to people, and kept.
fn path_uses(paths: Vec<pb::PathUse>) -> Vec<PathUse> {
    let named = |p: &pb::PathUse| {
        let name = p.path.as_bytes();
        (1..=PATH_NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
    };
    paths.into_iter().filter(named).take(PATHS_MAX).map(PathUse::from).collect()
}

/// Which session of a volume a request may end: any by force, otherwise one whose lease has run
/// out.
fn displace(node: &Node, name: &str, force: bool) -> Displace {
    if force {
        return Displace::Anybody;
    }
    let held =
        node.read(|m| m.volume_named(name).ok().and_then(|v| v.session.as_ref()).map(|s| s.id));
    let volatile = node.volatile();
    match held {
        Some(id) if !volatile.session_alive(id, node.now(), &node.config.timing) => {
            Displace::Expired(id)
        }
        _ => Displace::Nobody,
    }
}

/// A volume as a message. `segments` is given apart, since replies of commands carry no segment
/// map.
fn volume_message(node: &Node, v: &Volume, segments: usize) -> pb::Volume {
    let now = node.now();
    let alive = |id| node.volatile().session_alive(id, now, &node.config.timing);
    let paths = |id| node.volatile().session_paths(id).iter().cloned().map(Into::into).collect();
    pb::Volume {
        id: v.id.0,
        name: v.name.clone(),
        size_bytes: v.size_bytes,
        layout: Some(pb::VolumeLayout {
            stripe_unit_bytes: v.options.layout.stripe_unit_bytes(),
            stripe_chunks: v.options.layout.stripe_chunks(),
            copysets_per_segment: v.options.copysets_per_segment,
        }),
        epoch: v.epoch.0,
        created_unix_ms: v.created_unix_ms,
        segments: segments as u64,
        session: v.session.as_ref().map(|s| pb::Session {
            id: s.id.0,
            epoch: s.epoch.0,
            client: s.client.clone(),
            alive: alive(s.id),
            paths: paths(s.id),
        }),
    }
}

/// A volume from the reply of a command.
fn changed_volume(node: &Node, v: &Volume) -> pb::Volume {
    let segments = node.read(|m| m.volume(v.id).map_or(0, |there| there.segments.len()));
    volume_message(node, v, segments)
}
