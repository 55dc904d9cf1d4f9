//! Gives the cluster its id.

use ogive_types::ClusterId;
use serde::{Deserialize, Serialize};

use super::{Reply, text};
use crate::error::MetaError;
use crate::limits::REPLICAS_MAX;
use crate::model::Cluster;
use crate::state::Meta;

/// Proposed by every new leader that finds no cluster; the first one counts, later ones are told
/// what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitCluster {
    /// Drawn at random by the leader, not zero.
    pub id: ClusterId,
    /// From the leader's configuration.
    pub name: String,
    /// Replicas of a copyset.
    pub replicas: u32,
}

impl InitCluster {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        if let Some(cluster) = &meta.cluster {
            return Ok(Reply::Cluster(cluster.clone()));
        }
        text::check_label("cluster name", &self.name)?;
        if self.replicas == 0 || self.replicas as usize > REPLICAS_MAX || self.id.0 == 0 {
            return Err(MetaError::BadCopyset(format!("{} replicas", self.replicas)));
        }
        let cluster = Cluster { id: self.id, name: self.name, replicas: self.replicas };
        meta.cluster = Some(cluster.clone());
        Ok(Reply::Cluster(cluster))
    }
}
