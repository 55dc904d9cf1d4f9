//! Commands, one per file. Each `apply` checks everything first and then changes the state, so that
//! a refusal changes nothing.

mod allocate_segment;
mod attach_volume;
mod create_copysets;
mod create_volume;
mod delete_volume;
mod detach_volume;
mod finish_drops;
mod init_cluster;
mod register_chunkserver;
mod resize_volume;
mod set_endpoints;
mod set_signing_key;
mod text;

use ogive_types::{ChunkserverId, CopysetId, SessionId};
use serde::{Deserialize, Serialize};

pub use allocate_segment::AllocateSegment;
pub use attach_volume::AttachVolume;
pub use create_copysets::CreateCopysets;
pub use create_volume::{CreateVolume, check_name, check_size};
pub use delete_volume::DeleteVolume;
pub use detach_volume::DetachVolume;
pub use finish_drops::FinishDrops;
pub use init_cluster::InitCluster;
pub use register_chunkserver::RegisterChunkserver;
pub use resize_volume::ResizeVolume;
pub use set_endpoints::SetEndpoints;
pub use set_signing_key::SetSigningKey;

use crate::model::{Cluster, Session, Volume};

/// A change to the state. Its encoding is part of the log's format: new commands go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// See [`InitCluster`].
    InitCluster(InitCluster),
    /// See [`RegisterChunkserver`].
    RegisterChunkserver(RegisterChunkserver),
    /// See [`SetEndpoints`].
    SetEndpoints(SetEndpoints),
    /// See [`CreateCopysets`].
    CreateCopysets(CreateCopysets),
    /// See [`CreateVolume`].
    CreateVolume(CreateVolume),
    /// See [`DeleteVolume`].
    DeleteVolume(DeleteVolume),
    /// See [`ResizeVolume`].
    ResizeVolume(ResizeVolume),
    /// See [`AttachVolume`].
    AttachVolume(AttachVolume),
    /// See [`DetachVolume`].
    DetachVolume(DetachVolume),
    /// See [`AllocateSegment`].
    AllocateSegment(AllocateSegment),
    /// See [`FinishDrops`].
    FinishDrops(FinishDrops),
    /// See [`SetSigningKey`].
    SetSigningKey(SetSigningKey),
}

/// What a command that was carried out gives back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The cluster.
    Cluster(Cluster),
    /// The id of a chunkserver.
    Chunkserver(ChunkserverId),
    /// New copysets.
    Copysets(Vec<CopysetId>),
    /// A volume; without its segment map, which may be large.
    Volume(Volume),
    /// A new attachment and its volume, as above.
    Attached(Session, Volume),
    /// Copysets of a segment.
    Segment(Vec<CopysetId>),
}

/// Which session, if any, a command may end. The leader knows whose lease has run out; see
/// `controlplane/mds/design/0001-volatile-leases.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Displace {
    /// None.
    Nobody,
    /// This one, whose lease has run out; if another holds the volume by now, that one stays.
    Expired(SessionId),
    /// Any: the user insists.
    Anybody,
}

impl Displace {
    /// True when `session` may be ended.
    pub fn allows(self, session: SessionId) -> bool {
        match self {
            Displace::Nobody => false,
            Displace::Expired(expired) => expired == session,
            Displace::Anybody => true,
        }
    }
}

/// A volume as replies carry it.
fn without_segments(volume: &Volume) -> Volume {
    Volume {
        segments: Default::default(),
        name: volume.name.clone(),
        session: volume.session.clone(),
        ..*volume
    }
}
