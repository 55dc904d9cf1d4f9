//! Gives a volume to one client.

use ogive_types::{Epoch, SessionId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Displace, Reply, text, without_segments};
use crate::error::MetaError;
use crate::model::Session;
use crate::state::Meta;

/// Attaches a volume for exclusive use. Each attachment has a higher epoch than all before, and the
/// data plane refuses requests of older epochs: whoever was displaced can do no harm, whether it
/// knows or not.
///
/// | held by | displace | result |
/// |---|---|---|
/// | nobody | | a new session, next epoch |
/// | the session of the same request | | that session: the first answer was lost |
/// | another | allows it | a new session, next epoch |
/// | another | does not | `Attached` |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachVolume {
    /// The volume.
    pub name: String,
    /// What people should see as the holder.
    pub client: String,
    /// Drawn by the client, the same in every attempt.
    pub request: Uuid,
    /// Whose attachment it may end.
    pub displace: Displace,
}

impl AttachVolume {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        text::check_client(&self.client)?;
        let volume = meta.volume_named(&self.name)?;
        if let Some(held) = &volume.session {
            if held.request == self.request {
                return Ok(Reply::Attached(held.clone(), without_segments(volume)));
            }
            if !self.displace.allows(held.id) {
                return Err(MetaError::Attached { name: self.name, client: held.client.clone() });
            }
        }
        let id = volume.id;
        meta.last_session += 1;
        let volume = meta.volumes.get_mut(&id).expect("it was found above");
        volume.epoch = Epoch(volume.epoch.0 + 1);
        let session = Session {
            id: SessionId(meta.last_session),
            epoch: volume.epoch,
            client: self.client,
            request: self.request,
        };
        volume.session = Some(session.clone());
        Ok(Reply::Attached(session, without_segments(volume)))
    }
}
