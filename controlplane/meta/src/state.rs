//! The state and its invariants.

use std::collections::{BTreeMap, BTreeSet};

use ogive_types::{ChunkserverId, ClusterId, CopysetId, SessionId, ShardAddr, VolumeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::{Command, Reply};
use crate::error::MetaError;
use crate::model::{Chunkserver, Cluster, Copyset, Drop, SigningKey, Volume};
use crate::plan::{self, ShardUse};

/// The replicated state of the control plane. Ordered maps only: the same state is the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub(crate) cluster: Option<Cluster>,
    pub(crate) chunkservers: BTreeMap<ChunkserverId, Chunkserver>,
    pub(crate) devices: BTreeMap<Uuid, ChunkserverId>,
    pub(crate) copysets: BTreeMap<CopysetId, Copyset>,
    pub(crate) volumes: BTreeMap<VolumeId, Volume>,
    pub(crate) names: BTreeMap<String, VolumeId>,
    pub(crate) drops: BTreeSet<Drop>,
    /// Segments of all volumes.
    pub(crate) segments: u64,
    /// Grows with every change of copysets and endpoints.
    pub(crate) topology_version: u64,
    /// Last ids given; the next one is one more. Ids are never reused.
    pub(crate) last_chunkserver: u32,
    pub(crate) last_copyset: u32,
    pub(crate) last_volume: u64,
    pub(crate) last_session: u64,
    /// Last of all fields, as an option: a state of before there were tokens is this one without
    /// its last byte.
    pub(crate) signing_key: Option<SigningKey>,
}

impl Meta {
    /// Carries out a command, or refuses it and changes nothing.
    ///
    /// # Errors
    /// A [`MetaError`] that says why; see the file of the command.
    pub fn apply(&mut self, command: Command) -> Result<Reply, MetaError> {
        match command {
            Command::InitCluster(c) => c.apply(self),
            Command::RegisterChunkserver(c) => c.apply(self),
            Command::SetEndpoints(c) => c.apply(self),
            Command::CreateCopysets(c) => c.apply(self),
            Command::CreateVolume(c) => c.apply(self),
            Command::DeleteVolume(c) => c.apply(self),
            Command::ResizeVolume(c) => c.apply(self),
            Command::AttachVolume(c) => c.apply(self),
            Command::DetachVolume(c) => c.apply(self),
            Command::AllocateSegment(c) => c.apply(self),
            Command::FinishDrops(c) => c.apply(self),
            Command::SetSigningKey(c) => c.apply(self),
        }
    }

    /// The cluster.
    ///
    /// # Errors
    /// [`MetaError::NotInitialised`] until the first leader has set it up.
    pub fn cluster(&self) -> Result<&Cluster, MetaError> {
        self.cluster.as_ref().ok_or(MetaError::NotInitialised)
    }

    /// Its id; zero until it is set up.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster.as_ref().map(|c| c.id).unwrap_or_default()
    }

    /// The secret that signs tokens.
    ///
    /// # Errors
    /// [`MetaError::NotInitialised`] until the leader has given the cluster one.
    pub fn signing_key(&self) -> Result<&SigningKey, MetaError> {
        self.signing_key.as_ref().ok_or(MetaError::NotInitialised)
    }

    /// A chunkserver, checked to be that device.
    ///
    /// # Errors
    /// [`MetaError::NoChunkserver`], [`MetaError::WrongDevice`].
    pub fn chunkserver(&self, id: ChunkserverId, device: Uuid) -> Result<&Chunkserver, MetaError> {
        let found = self.chunkservers.get(&id).ok_or(MetaError::NoChunkserver(id))?;
        if found.device != device {
            return Err(MetaError::WrongDevice(id));
        }
        Ok(found)
    }

    /// All chunkservers, by id.
    pub fn chunkservers(&self) -> impl Iterator<Item = &Chunkserver> {
        self.chunkservers.values()
    }

    /// All copysets, by id.
    pub fn copysets(&self) -> impl Iterator<Item = &Copyset> {
        self.copysets.values()
    }

    /// The copyset with that id.
    pub fn copyset(&self, id: CopysetId) -> Option<&Copyset> {
        self.copysets.get(&id)
    }

    /// The volume with that id.
    ///
    /// # Errors
    /// [`MetaError::NoVolumeId`].
    pub fn volume(&self, id: VolumeId) -> Result<&Volume, MetaError> {
        self.volumes.get(&id).ok_or(MetaError::NoVolumeId(id))
    }

    /// The volume with that name.
    ///
    /// # Errors
    /// [`MetaError::NoVolume`].
    pub fn volume_named(&self, name: &str) -> Result<&Volume, MetaError> {
        let id = self.names.get(name).ok_or_else(|| MetaError::NoVolume(name.to_owned()))?;
        Ok(self.volumes.get(id).expect("every name has its volume"))
    }

    /// Volumes in order of their names, those after `after`.
    pub fn volumes_after<'a>(&'a self, after: &'a str) -> impl Iterator<Item = &'a Volume> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.names.range::<str, _>((Excluded(after), Unbounded));
        range.map(|(_, id)| self.volumes.get(id).expect("every name has its volume"))
    }

    /// The sessions that hold a volume.
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        self.volumes.values().filter_map(|v| v.session.as_ref()).map(|s| s.id).collect()
    }

    /// Drops not yet reported, by copyset.
    pub fn drops(&self) -> impl Iterator<Item = Drop> {
        self.drops.iter().copied()
    }

    /// Drops not yet reported of one copyset.
    pub fn drops_of(&self, copyset: CopysetId) -> impl Iterator<Item = Drop> {
        let low = Drop { copyset, volume: VolumeId(0) };
        self.drops.range(low..=Drop { copyset, volume: VolumeId(u64::MAX) }).copied()
    }

    /// Version of copysets and endpoints.
    pub fn topology_version(&self) -> u64 {
        self.topology_version
    }

    /// Number of distinct zones that have chunkservers.
    pub fn zone_count(&self) -> usize {
        self.chunkservers.values().map(|c| c.zone.as_str()).collect::<BTreeSet<_>>().len()
    }

    /// What each shard holds and leads, for the planner; only of the chunkservers that `usable`
    /// accepts.
    pub fn shard_uses(&self, usable: impl Fn(ChunkserverId) -> bool) -> Vec<ShardUse> {
        let mut uses: BTreeMap<ShardAddr, ShardUse> = BTreeMap::new();
        for server in self.chunkservers.values().filter(|c| usable(c.id)) {
            for shard in 0..server.endpoints.len() {
                let addr = ShardAddr { server: server.id, shard: shard as u16 };
                uses.insert(addr, ShardUse { addr, zone: server.zone.clone(), holds: 0, leads: 0 });
            }
        }
        for copyset in self.copysets.values() {
            for (rank, member) in copyset.members.iter().enumerate() {
                if let Some(shard) = uses.get_mut(member) {
                    shard.holds += 1;
                    shard.leads += u32::from(rank == 0);
                }
            }
        }
        uses.into_values().collect()
    }

    /// Panics unless the state is one that commands can have made. For tests, and for states read
    /// from a disk.
    pub fn check(&self) {
        assert!(self.cluster.is_some() || self.signing_key.is_none(), "a key of no cluster");
        assert_eq!(self.devices.len(), self.chunkservers.len(), "one device per chunkserver");
        for (&id, server) in &self.chunkservers {
            assert_eq!(server.id, id);
            assert_eq!(self.devices.get(&server.device), Some(&id));
            assert!(id.0 <= self.last_chunkserver);
        }
        for copyset in self.copysets.values() {
            assert!(copyset.id.0 <= self.last_copyset);
            assert!(plan::fits(&copyset.members, &self.chunkservers).is_ok(), "{copyset:?}");
        }
        self.check_volumes();
    }

    fn check_volumes(&self) {
        assert_eq!(self.names.len(), self.volumes.len(), "one name per volume");
        let mut used: BTreeMap<CopysetId, u64> = BTreeMap::new();
        let mut segments = 0;
        for (&id, volume) in &self.volumes {
            assert_eq!(self.names.get(&volume.name), Some(&id));
            assert!(id.0 <= self.last_volume);
            if let Some(session) = &volume.session {
                assert_eq!(
                    session.epoch, volume.epoch,
                    "the newest attachment has the newest epoch"
                );
                assert!(session.id.0 <= self.last_session);
            }
            for (&number, copysets) in &volume.segments {
                assert!(number < volume.segment_count() && !copysets.is_empty());
                assert_eq!(copysets.iter().collect::<BTreeSet<_>>().len(), copysets.len());
                copysets.iter().for_each(|&c| *used.entry(c).or_default() += 1);
                segments += 1;
            }
        }
        assert_eq!(self.segments, segments);
        for copyset in self.copysets.values() {
            assert_eq!(used.remove(&copyset.id).unwrap_or(0), copyset.segments, "{copyset:?}");
        }
        assert!(used.is_empty(), "segments in copysets that do not exist");
        for drop in &self.drops {
            assert!(!self.volumes.contains_key(&drop.volume), "{drop:?} of a volume that lives");
            assert!(self.copysets.contains_key(&drop.copyset));
        }
    }
}
