//! Adds the copysets that the leader planned.

use std::collections::BTreeSet;

use ogive_types::{CopysetId, ShardAddr};
use serde::{Deserialize, Serialize};

use super::Reply;
use crate::error::MetaError;
use crate::limits::{COPYSETS_MAX, COPYSETS_PER_COMMAND_MAX};
use crate::model::Copyset;
use crate::plan;
use crate::state::Meta;

/// Adds copysets. Refused as a whole when it was planned on another state or one of them breaks a
/// rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateCopysets {
    /// [`Meta::last_copyset`] when it was planned: two leaders, or one twice, must not carry out
    /// the same plan.
    pub last_copyset: CopysetId,
    /// Members of each, the preferred leader first.
    pub copysets: Vec<Vec<ShardAddr>>,
}

impl CreateCopysets {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        let replicas = meta.cluster()?.replicas as usize;
        if self.last_copyset != meta.last_copyset() {
            return Err(MetaError::StalePlan);
        }
        let total = meta.copysets.len() + self.copysets.len();
        if self.copysets.len() > COPYSETS_PER_COMMAND_MAX || total > COPYSETS_MAX {
            return Err(MetaError::Limit { what: "copysets".into(), limit: COPYSETS_MAX as u64 });
        }
        for members in &self.copysets {
            if members.len() != replicas
                || members.iter().collect::<BTreeSet<_>>().len() != replicas
            {
                let text = format!("it needs {replicas} distinct members, not {members:?}");
                return Err(MetaError::BadCopyset(text));
            }
            plan::fits(members, &meta.chunkservers).map_err(MetaError::BadCopyset)?;
        }
        let mut ids = Vec::with_capacity(self.copysets.len());
        for members in self.copysets {
            meta.last_copyset += 1;
            let id = CopysetId(meta.last_copyset);
            meta.copysets.insert(id, Copyset { id, members, segments: 0 });
            ids.push(id);
        }
        if !ids.is_empty() {
            meta.topology_version += 1;
        }
        Ok(Reply::Copysets(ids))
    }
}

impl Meta {
    /// The newest copyset; a plan names it.
    pub fn last_copyset(&self) -> CopysetId {
        CopysetId(self.last_copyset)
    }
}
