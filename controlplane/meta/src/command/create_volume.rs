//! Creates a volume. Its segments get space when they are first written.

use ogive_types::{BLOCK_BYTES, Epoch, VolumeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Reply, without_segments};
use crate::error::MetaError;
use crate::limits::*;
use crate::model::{Volume, VolumeOptions};
use crate::state::Meta;

/// Creates a volume.
///
/// | name | request | result |
/// |---|---|---|
/// | free | | the new volume |
/// | taken | the one that created it | that volume: the first answer was lost |
/// | taken | another | `VolumeExists` |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateVolume {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its layout.
    pub options: VolumeOptions,
    /// Drawn by the client, the same in every attempt.
    pub request: Uuid,
    /// The leader's clock, milliseconds of Unix time.
    pub now_unix_ms: u64,
}

/// Checks a volume name.
///
/// # Errors
/// [`MetaError::BadName`].
pub fn check_name(name: &str) -> Result<(), MetaError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
    let fits = (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len());
    if !fits || !name.bytes().all(allowed) {
        return Err(MetaError::BadName(name.chars().take(64).collect()));
    }
    Ok(())
}

/// Checks a volume size.
///
/// # Errors
/// [`MetaError::BadSize`].
pub fn check_size(bytes: u64) -> Result<(), MetaError> {
    let fits = (VOLUME_BYTES_MIN..=VOLUME_BYTES_MAX).contains(&bytes);
    if !fits || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(MetaError::BadSize(bytes));
    }
    Ok(())
}

impl CreateVolume {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        meta.cluster()?;
        check_name(&self.name)?;
        check_size(self.size_bytes)?;
        let spread = self.options.copysets_per_segment;
        if spread == 0 || spread > COPYSETS_PER_SEGMENT_MAX {
            return Err(MetaError::BadSpread(spread));
        }
        if let Ok(there) = meta.volume_named(&self.name) {
            return if there.created_by == self.request {
                Ok(Reply::Volume(without_segments(there)))
            } else {
                Err(MetaError::VolumeExists(self.name))
            };
        }
        if meta.volumes.len() >= VOLUMES_MAX {
            return Err(MetaError::Limit { what: "volumes".into(), limit: VOLUMES_MAX as u64 });
        }
        meta.last_volume += 1;
        let volume = Volume {
            id: VolumeId(meta.last_volume),
            name: self.name,
            size_bytes: self.size_bytes,
            options: self.options,
            epoch: Epoch(0),
            created_unix_ms: self.now_unix_ms,
            created_by: self.request,
            segments: Default::default(),
            session: None,
        };
        meta.names.insert(volume.name.clone(), volume.id);
        meta.volumes.insert(volume.id, volume.clone());
        Ok(Reply::Volume(volume))
    }
}
