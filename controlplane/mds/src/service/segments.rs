//! Which copysets hold which segments.

use ogive_api::pb;
use ogive_api::types::Health;
use ogive_meta::command::AllocateSegment;
use ogive_meta::{Command, MetaError, Reply};
use ogive_types::{CopysetId, Epoch, SessionId, VolumeId};
use tonic::Status;

use super::unexpected;
use crate::health;
use crate::limits::SEGMENTS_PER_REPLY_MAX;
use crate::node::Node;
use crate::proposer::refusal;

fn segment(number: u32, copysets: &[CopysetId]) -> pb::Segment {
    pb::Segment { number, copysets: copysets.iter().map(|c| c.0).collect() }
}

pub(super) async fn get_segments(
    node: &Node,
    r: pb::GetSegmentsRequest,
) -> Result<pb::GetSegmentsReply, Status> {
    node.pass().await?;
    let looked_at = match r.count {
        0 => SEGMENTS_PER_REPLY_MAX,
        asked => asked.min(SEGMENTS_PER_REPLY_MAX),
    };
    let range = r.from..r.from.saturating_add(looked_at);
    let segments = node.read(|m| {
        let volume = m.volume(VolumeId(r.volume))?;
        // An older attachment must not learn of space that a newer one was given: no shard there
        // has heard of the newer one until it comes, and would let the older one write.
        if r.epoch != 0 && Epoch(r.epoch) != volume.epoch {
            return Err(MetaError::StaleEpoch { had: Epoch(r.epoch), now: volume.epoch });
        }
        Ok(volume.segments.range(range).map(|(n, copysets)| segment(*n, copysets)).collect())
    });
    Ok(pb::GetSegmentsReply { segments: segments.map_err(refusal)?, looked_at })
}

pub(super) async fn allocate_segment(
    node: &Node,
    r: pb::AllocateSegmentRequest,
) -> Result<pb::Segment, Status> {
    node.pass().await?;
    let command = AllocateSegment {
        volume: VolumeId(r.volume),
        number: r.number,
        session: SessionId(r.session),
        epoch: Epoch(r.epoch),
        avoid: unfit(node),
    };
    match node.propose(Command::AllocateSegment(command)).await? {
        Reply::Segment(copysets) => Ok(segment(r.number, &copysets)),
        other => Err(unexpected(&other)),
    }
}

/// Copysets that should get no new data, in order: those that do not work.
fn unfit(node: &Node) -> Vec<CopysetId> {
    let now = node.now();
    let volatile = node.volatile();
    node.read(|m| {
        let judged =
            m.copysets().map(|c| (c.id, health::copyset(c, &volatile, now, &node.config.timing)));
        judged.filter(|(_, v)| v.health == Health::Unavailable).map(|(id, _)| id).collect()
    })
}
