//! The namespace of volumes.

use ogive_api::pb;
use ogive_meta::command::{CreateVolume, DeleteVolume, ResizeVolume, check_name};
use ogive_meta::limits::COPYSETS_PER_SEGMENT_DEFAULT;
use ogive_meta::{Command, Reply, VolumeOptions};
use ogive_types::Layout;
use tonic::Status;

use super::{changed_volume, displace, invalid, unexpected, uuid, volume_message};
use crate::limits::VOLUMES_PER_PAGE_MAX;
use crate::node::Node;
use crate::proposer::refusal;

pub(super) async fn create_volume(
    node: &Node,
    r: pb::CreateVolumeRequest,
) -> Result<pb::Volume, Status> {
    let options = options(r.layout.unwrap_or_default())?;
    let request = match r.request_id.as_str() {
        // A person with a generic client: no retry will claim the volume.
        "" => uuid::Uuid::new_v4(),
        text => uuid("request_id", text)?,
    };
    let now_unix_ms = node.unix_ms();
    let (name, size_bytes) = (r.name, r.size_bytes);
    let command = CreateVolume { name, size_bytes, options, request, now_unix_ms };
    match node.propose(Command::CreateVolume(command)).await? {
        Reply::Volume(v) => Ok(changed_volume(node, &v)),
        other => Err(unexpected(&other)),
    }
}

fn options(l: pb::VolumeLayout) -> Result<VolumeOptions, Status> {
    let usual = Layout::default();
    let or = |given: u64, usual: u64| if given == 0 { usual } else { given };
    let unit = or(l.stripe_unit_bytes, usual.stripe_unit_bytes());
    let chunks = or(l.stripe_chunks.into(), usual.stripe_chunks().into());
    let layout = u32::try_from(chunks).ok().and_then(|chunks| Layout::new(unit, chunks));
    let layout = layout.ok_or_else(|| {
        invalid(format!(
            "a stripe unit of {unit} bytes over {chunks} chunks is impossible: use powers of \
             two, units from 4 KiB \
             to 16 MiB and up to 64 chunks"
        ))
    })?;
    let spread = or(l.copysets_per_segment.into(), COPYSETS_PER_SEGMENT_DEFAULT.into());
    Ok(VolumeOptions { layout, copysets_per_segment: spread as u32 })
}

pub(super) async fn list_volumes(
    node: &Node,
    r: pb::ListVolumesRequest,
) -> Result<pb::ListVolumesReply, Status> {
    node.pass().await?;
    let limit = match r.limit {
        0 => VOLUMES_PER_PAGE_MAX,
        asked => asked.min(VOLUMES_PER_PAGE_MAX),
    } as usize;
    // Names that start with the prefix lie in one stretch, which begins just behind all smaller
    // ones.
    let found: Vec<_> = node.read(|m| {
        let exact = (r.after < r.prefix).then(|| m.volume_named(&r.prefix).ok()).flatten();
        let after = if r.after < r.prefix { &r.prefix } else { &r.after };
        let rest = m.volumes_after(after).take_while(|v| v.name.starts_with(&r.prefix));
        let all = exact.into_iter().chain(rest).take(limit + 1);
        all.map(|v| (changed(v), v.segments.len())).collect()
    });
    let more = found.len() > limit;
    let volumes = found.iter().take(limit).map(|(v, n)| volume_message(node, v, *n)).collect();
    Ok(pb::ListVolumesReply { volumes, more })
}

/// A volume without its segment map, which may be large.
pub(super) fn changed(v: &ogive_meta::Volume) -> ogive_meta::Volume {
    ogive_meta::Volume {
        name: v.name.clone(),
        session: v.session.clone(),
        segments: Default::default(),
        ..*v
    }
}

pub(super) async fn get_volume(node: &Node, r: pb::GetVolumeRequest) -> Result<pb::Volume, Status> {
    check_name(&r.name).map_err(refusal)?;
    node.pass().await?;
    let found = node.read(|m| m.volume_named(&r.name).map(|v| (changed(v), v.segments.len())));
    let (volume, segments) = found.map_err(refusal)?;
    Ok(volume_message(node, &volume, segments))
}

pub(super) async fn delete_volume(
    node: &Node,
    r: pb::DeleteVolumeRequest,
) -> Result<pb::DeleteVolumeReply, Status> {
    node.pass().await?;
    let displace = displace(node, &r.name, r.force);
    node.propose(Command::DeleteVolume(DeleteVolume { name: r.name, displace })).await?;
    Ok(pb::DeleteVolumeReply {})
}

pub(super) async fn resize_volume(
    node: &Node,
    r: pb::ResizeVolumeRequest,
) -> Result<pb::Volume, Status> {
    let command = ResizeVolume { name: r.name, size_bytes: r.size_bytes };
    match node.propose(Command::ResizeVolume(command)).await? {
        Reply::Volume(v) => Ok(changed_volume(node, &v)),
        other => Err(unexpected(&other)),
    }
}
