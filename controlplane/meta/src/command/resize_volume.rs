//! Makes a volume larger.

use serde::{Deserialize, Serialize};

use super::create_volume::check_size;
use super::{Reply, without_segments};
use crate::error::MetaError;
use crate::state::Meta;

/// Sets a volume's size, which may be the one it has, but not a smaller one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeVolume {
    /// Its name.
    pub name: String,
    /// Its new size.
    pub size_bytes: u64,
}

impl ResizeVolume {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        let volume = meta.volume_named(&self.name)?;
        check_size(self.size_bytes)?;
        let (id, has, wanted) = (volume.id, volume.size_bytes, self.size_bytes);
        if wanted < has {
            return Err(MetaError::Shrink { name: self.name, has, wanted });
        }
        let volume = meta.volumes.get_mut(&id).expect("it was found above");
        volume.size_bytes = wanted;
        Ok(Reply::Volume(without_segments(volume)))
    }
}
