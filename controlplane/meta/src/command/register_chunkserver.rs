//! Makes a device part of the cluster, or says which part it is.

use ogive_types::{ChunkserverId, ClusterId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Reply, text};
use crate::error::MetaError;
use crate::limits::CHUNKSERVERS_MAX;
use crate::model::Chunkserver;
use crate::state::Meta;

/// Registers a device by its UUID.
///
/// | device | zone | shards | result |
/// |---|---|---|---|
/// | of another cluster | | | `WrongCluster` |
/// | new | | | a new id |
/// | known | the same, or it holds nothing | those that hold replicas are there | the same id, all else renewed |
/// | known | another, and it holds replicas | | `ZoneChanged` |
/// | known | | one that holds a replica is missing | `ShardsLost` |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterChunkserver {
    /// Cluster in the device's label.
    pub cluster: Option<ClusterId>,
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

impl RegisterChunkserver {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        let ours = meta.cluster()?.id;
        if let Some(theirs) = self.cluster.filter(|&theirs| theirs != ours) {
            return Err(MetaError::WrongCluster { theirs, ours });
        }
        text::check_label("zone", &self.zone)?;
        text::check_label("server", &self.server)?;
        text::check_endpoints(&self.endpoints)?;
        let id = match meta.devices.get(&self.device) {
            Some(&id) => {
                self.check_return(meta, id)?;
                id
            }
            None if meta.chunkservers.len() >= CHUNKSERVERS_MAX => {
                return Err(MetaError::Limit {
                    what: "chunkservers".into(),
                    limit: CHUNKSERVERS_MAX as u64,
                });
            }
            None => {
                meta.last_chunkserver += 1;
                ChunkserverId(meta.last_chunkserver)
            }
        };
        let renewed = Chunkserver {
            id,
            device: self.device,
            zone: self.zone,
            server: self.server,
            endpoints: self.endpoints,
            capacity_bytes: self.capacity_bytes,
        };
        if meta.chunkservers.get(&id) != Some(&renewed) {
            meta.devices.insert(renewed.device, id);
            meta.chunkservers.insert(id, renewed);
            meta.topology_version += 1;
        }
        Ok(Reply::Chunkserver(id))
    }

    fn check_return(&self, meta: &Meta, id: ChunkserverId) -> Result<(), MetaError> {
        let was = meta.chunkserver(id, self.device)?;
        check_shards(meta, id, self.endpoints.len())?;
        let holds = meta.copysets.values().flat_map(|c| &c.members).any(|m| m.server == id);
        if holds && was.zone != self.zone {
            let (had, has) = (was.zone.clone(), self.zone.clone());
            return Err(MetaError::ZoneChanged { server: id, had, has });
        }
        Ok(())
    }
}

/// Refuses a number of shards that leaves out one with replicas.
pub(super) fn check_shards(meta: &Meta, id: ChunkserverId, has: usize) -> Result<(), MetaError> {
    let had = meta.chunkservers.get(&id).map_or(0, |c| c.endpoints.len());
    if has >= had {
        return Ok(());
    }
    let members = meta.copysets.values().flat_map(|c| &c.members);
    if members.filter(|m| m.server == id).any(|m| usize::from(m.shard) >= has) {
        return Err(MetaError::ShardsLost { server: id, had, has });
    }
    Ok(())
}
