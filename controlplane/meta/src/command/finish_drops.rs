//! Forgets drops that copysets have carried out.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::error::MetaError;
use crate::model::Drop;
use crate::state::Meta;

/// Proposed when a copyset's leader reports that drops are committed there. Ones that are not known
/// any more are no error: they were reported before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishDrops {
    /// The drops.
    pub drops: Vec<Drop>,
}

impl FinishDrops {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        for drop in &self.drops {
            meta.drops.remove(drop);
        }
        Ok(Reply::Done)
    }
}
