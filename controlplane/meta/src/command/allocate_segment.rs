//! Gives space to a segment.

use ogive_types::{CopysetId, Epoch, SessionId, VolumeId};
use serde::{Deserialize, Serialize};

use super::Reply;
use crate::error::MetaError;
use crate::limits::SEGMENTS_MAX;
use crate::plan::{CopysetUse, plan_segment};
use crate::state::Meta;

/// Chooses the copysets of a segment, once and for all: later requests get the same answer. Only
/// the newest attachment may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateSegment {
    /// The volume.
    pub volume: VolumeId,
    /// The segment.
    pub number: u32,
    /// The attachment that asks.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Copysets that the leader knows to be in a bad state, in order.
    pub avoid: Vec<CopysetId>,
}

impl AllocateSegment {
    pub(crate) fn apply(self, meta: &mut Meta) -> Result<Reply, MetaError> {
        let volume = meta.volume(self.volume)?;
        if self.epoch != volume.epoch {
            return Err(MetaError::StaleEpoch { had: self.epoch, now: volume.epoch });
        }
        if volume.session.as_ref().map(|s| s.id) != Some(self.session) {
            return Err(MetaError::SessionGone(self.session));
        }
        if self.number >= volume.segment_count() {
            return Err(MetaError::BeyondEnd { volume: self.volume, number: self.number });
        }
        if let Some(there) = volume.segments.get(&self.number) {
            return Ok(Reply::Segment(there.clone()));
        }
        if meta.segments >= SEGMENTS_MAX {
            return Err(MetaError::Limit { what: "segments".into(), limit: SEGMENTS_MAX });
        }
        let chosen = self.choose(meta, volume.options.copysets_per_segment as usize)?;
        for id in &chosen {
            meta.copysets.get_mut(id).expect("the plan names copysets that exist").segments += 1;
        }
        meta.segments += 1;
        let volume = meta.volumes.get_mut(&self.volume).expect("it was found above");
        volume.segments.insert(self.number, chosen.clone());
        Ok(Reply::Segment(chosen))
    }

    fn choose(&self, meta: &Meta, spread: usize) -> Result<Vec<CopysetId>, MetaError> {
        let uses: Vec<CopysetUse> = meta
            .copysets()
            .map(|c| CopysetUse {
                id: c.id,
                segments: c.segments,
                leader: c.members[0],
                avoid: self.avoid.binary_search(&c.id).is_ok(),
            })
            .collect();
        let chosen = plan_segment(&uses, spread);
        if chosen.is_empty() {
            let replicas = meta.cluster()?.replicas;
            return Err(MetaError::NoCopysets { replicas, zones: meta.zone_count() as u32 });
        }
        Ok(chosen)
    }
}
