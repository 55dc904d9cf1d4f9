//! What every block of a shard is used for, and whether all of it adds up.

use std::collections::BTreeMap;

use ogive_types::{CopysetId, VolumeId};
use serde::Serialize;

use super::overlay::Overlay;
use super::pool;
use crate::audit::audit;
use crate::io::RegionIo;
use crate::label::Label;
use crate::recover::OpenError;
use crate::store::{Store, StoreOptions};

/// The space of a shard, in blocks of 4 KiB.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpaceView {
    /// The shard.
    pub shard: u16,
    /// All data blocks.
    pub blocks: u64,
    /// Free ones.
    pub blocks_free: u64,
    /// Those that volumes show.
    pub blocks_mapped: u64,
    /// Those of entries that are not applied.
    pub blocks_pending: u64,
    /// Map pages in use.
    pub map_pages: u64,
    /// Most that the region can keep.
    pub map_pages_max: u64,
    /// Replicas and volumes, in their order.
    pub replicas: Vec<ReplicaSpace>,
    /// The first thing that does not add up; none when all does.
    pub contradiction: Option<String>,
}

/// What a volume has in a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaSpace {
    /// The replica's copyset.
    pub copyset: u32,
    /// The volume; none for a replica without data.
    pub volume: Option<u64>,
    /// Chunks with data.
    pub chunks: u64,
    /// Blocks with data.
    pub blocks: u64,
}

/// Opens a shard in memory and accounts for its blocks.
///
/// # Errors
/// When the shard cannot be opened.
pub fn audit_space(io: &dyn RegionIo, label: &Label, shard: u16) -> Result<SpaceView, OpenError> {
    let mut overlay = Overlay::new(io);
    let store = Store::open(&mut overlay, label, shard, pool(), StoreOptions::default())?;
    let stats = store.stats();
    let mut contradiction = audit(&store).err();
    let used = stats.blocks - stats.blocks_free;
    let blocks_pending = used.saturating_sub(stats.blocks_mapped);
    if used < stats.blocks_mapped {
        let mapped = stats.blocks_mapped;
        contradiction.get_or_insert_with(|| format!("{mapped} blocks are mapped, {used} are used"));
    }
    Ok(SpaceView {
        shard,
        blocks: stats.blocks,
        blocks_free: stats.blocks_free,
        blocks_mapped: stats.blocks_mapped,
        blocks_pending,
        map_pages: stats.map_pages,
        map_pages_max: stats.map_pages_max,
        replicas: replicas(&store),
        contradiction,
    })
}

fn replicas(store: &Store) -> Vec<ReplicaSpace> {
    let mut all = Vec::new();
    for (&CopysetId(copyset), replica) in &store.replicas {
        let mut volumes: BTreeMap<VolumeId, (u64, u64)> = BTreeMap::new();
        for chunk in replica.map.chunks_after(None) {
            let blocks = replica.map.pages_in(chunk).map(|(_, page)| u64::from(page.mapped));
            let volume = volumes.entry(chunk.volume).or_default();
            *volume = (volume.0 + 1, volume.1 + blocks.sum::<u64>());
        }
        if volumes.is_empty() {
            all.push(ReplicaSpace { copyset, volume: None, chunks: 0, blocks: 0 });
        }
        all.extend(volumes.into_iter().map(|(volume, (chunks, blocks))| ReplicaSpace {
            copyset,
            volume: Some(volume.0),
            chunks,
            blocks,
        }));
    }
    all
}
