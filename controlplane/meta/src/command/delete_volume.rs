//! Deletes a volume, and notes which copysets must drop its data.

use serde::{Deserialize, Serialize};

use super::{Displace, Reply};
use crate::error::MetaError;
use crate::model::Drop;
use crate::state::Meta;

/// Deletes a volume. Its name is free at once; its space is freed as the copysets' leaders report
/// their drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteVolume {
    /// Its name.
    pub name: String,
    /// Whose attachment it may end.
    pub displace: Displace,
}

impl DeleteVolume {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        let volume = meta.volume_named(&self.name)?;
        if let Some(session) = volume.session.as_ref().filter(|s| !self.displace.allows(s.id)) {
            return Err(MetaError::Attached { name: self.name, client: session.client.clone() });
        }
        let id = volume.id;
        let volume = meta.volumes.remove(&id).expect("it was found above");
        meta.names.remove(&volume.name);
        meta.segments -= volume.segments.len() as u64;
        for copyset in volume.segments.into_values().flatten() {
            meta.drops.insert(Drop { copyset, volume: id });
            let used = meta.copysets.get_mut(&copyset).expect("segments are in copysets");
            used.segments -= 1;
        }
        Ok(Reply::Done)
    }
}
