//! Copysets, and where their replicas listen.

use ogive_api::convert::{cluster_text, copyset};
use ogive_api::pb;
use ogive_meta::Meta;
use tonic::Status;

use crate::node::Node;

pub(super) async fn get_topology(
    node: &Node,
    r: pb::GetTopologyRequest,
) -> Result<pb::GetTopologyReply, Status> {
    node.pass().await?;
    Ok(node.read(|m| pb::GetTopologyReply {
        cluster_id: cluster_text(m.cluster_id()),
        topology: (m.topology_version() != r.known_version).then(|| topology(m)),
    }))
}

pub(super) fn topology(m: &Meta) -> pb::Topology {
    let endpoints = m.chunkservers().flat_map(|server| {
        server.endpoints.iter().enumerate().map(|(shard, endpoint)| pb::ShardEndpoint {
            shard: Some(pb::ShardAddr { chunkserver: server.id.0, shard: shard as u32 }),
            endpoint: endpoint.clone(),
        })
    });
    pb::Topology {
        version: m.topology_version(),
        copysets: m.copysets().map(|c| copyset(c.id, &c.members)).collect(),
        endpoints: endpoints.collect(),
    }
}
