//! Gives the cluster the key with which tokens are signed.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::error::MetaError;
use crate::model::SigningKey;
use crate::state::Meta;

/// Proposed by every new leader that finds a cluster without a key: one that was just set up, or
/// one that was made before there were tokens. The first key counts; a later proposal changes
/// nothing, so that tokens that were given stay good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSigningKey {
    /// Drawn at random by the leader.
    pub key: SigningKey,
}

impl SetSigningKey {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        meta.cluster()?;
        meta.signing_key.get_or_insert(self.key);
        Ok(Reply::Done)
    }
}
