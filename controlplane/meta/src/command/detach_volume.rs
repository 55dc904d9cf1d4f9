//! Ends an attachment.

use ogive_types::{SessionId, VolumeId};
use serde::{Deserialize, Serialize};

use super::Reply;
use crate::error::MetaError;
use crate::state::Meta;

/// Ends a session. One that has ended already, with its volume or without, is no error: its holder
/// wants it gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachVolume {
    /// The volume.
    pub volume: VolumeId,
    /// The session.
    pub session: SessionId,
}

impl DetachVolume {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        if let Some(volume) = meta.volumes.get_mut(&self.volume) {
            volume.session = volume.session.take().filter(|s| s.id != self.session);
        }
        Ok(Reply::Done)
    }
}
