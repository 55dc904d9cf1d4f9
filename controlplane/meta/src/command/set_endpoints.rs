//! Notes where a chunkserver listens now.

use ogive_types::ChunkserverId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::register_chunkserver::check_shards;
use super::{Reply, text};
use crate::error::MetaError;
use crate::state::Meta;

/// Proposed when a heartbeat names other endpoints than the state has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEndpoints {
    /// The chunkserver.
    pub id: ChunkserverId,
    /// Its device, so that a copy of a device is found out.
    pub device: Uuid,
    /// Endpoint of each shard.
    pub endpoints: Vec<String>,
}

impl SetEndpoints {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        meta.chunkserver(self.id, self.device)?;
        text::check_endpoints(&self.endpoints)?;
        check_shards(meta, self.id, self.endpoints.len())?;
        let server = meta.chunkservers.get_mut(&self.id).expect("it was checked above");
        if server.endpoints != self.endpoints {
            server.endpoints = self.endpoints;
            meta.topology_version += 1;
        }
        Ok(Reply::Done)
    }
}
