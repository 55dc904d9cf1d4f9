//! What a device says of itself: label, regions, superblocks, checkpoint, log.

use serde::Serialize;
use uuid::Uuid;

use super::log::{LogEnd, Walk};
use super::overlay::Overlay;
use crate::io::RegionIo;
use crate::label::{self, CopyState, Label, LabelError};
use crate::recover::{OpenError, Recovery};
use crate::region::RegionLayout;
use crate::superblock::{SUPERBLOCK_BYTES, Slot, Superblock};

/// A device, as it describes itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceView {
    /// Its length in bytes.
    pub device_bytes: u64,
    /// The two copies of the label: `newest`, `older`, `damaged`, `missing` or `version N`.
    pub label_copies: [String; 2],
    /// The label.
    pub label: LabelView,
    /// Its regions, one for each shard.
    pub regions: Vec<RegionView>,
}

/// What the label says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelView {
    /// Version of the device's format.
    pub version: u32,
    /// Counts the changes of the label.
    pub generation: u64,
    /// Names the device.
    pub uuid: Uuid,
    /// The cluster that it belongs to; none before its first registration.
    pub cluster: Option<String>,
    /// The chunkserver that it is.
    pub chunkserver: Option<u32>,
    /// Bytes that the device writes at once.
    pub sector_bytes: u32,
    /// Its length when it was formatted.
    pub formatted_bytes: u64,
    /// Bytes of all data blocks.
    pub capacity_bytes: u64,
}

/// A shard's region.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegionView {
    /// The shard.
    pub shard: u16,
    /// First byte on the device.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where its parts lie.
    pub parts: Vec<Part>,
    /// The two superblocks.
    pub superblocks: [SlotView; 2],
    /// What the newest superblock says; none when both are unreadable.
    pub checkpoint: Option<CheckpointView>,
    /// The log behind the checkpoint; none without a readable superblock.
    pub log: Option<LogView>,
    /// Why the region cannot be looked at further; none when it can.
    pub problem: Option<String>,
}

/// A part of a region.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// What it is.
    pub what: &'static str,
    /// First byte on the device.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A slot of a superblock.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum SlotView {
    /// Never written.
    Unused,
    /// Not what was written.
    Damaged,
    /// It cannot be read.
    Unreadable {
        /// Why.
        error: String,
    },
    /// Of another version.
    OtherVersion {
        /// Which.
        version: u32,
    },
    /// Of another region: a piece of another device, or of a former format.
    Foreign,
    /// Whole.
    Valid {
        /// The greater one counts.
        generation: u64,
        /// How often the region had been opened.
        mount: u64,
    },
}

/// The newest superblock, and the checkpoint that it names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointView {
    /// Its generation; 0 for a region that was never opened.
    pub generation: u64,
    /// How often the region was opened.
    pub mount: u64,
    /// Position in the log behind which recovery begins.
    pub tail: u64,
    /// Records behind the tail that the checkpoint holds already.
    pub skip: u32,
    /// Everything before this position of the log was on stable storage.
    pub persisted: u64,
    /// The directory area in use; none before the first checkpoint.
    pub directory_area: Option<u8>,
    /// Bytes of the directory.
    pub directory_bytes: u64,
}

/// The log of a region, from the checkpoint on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LogView {
    /// Position of its first byte.
    pub tail: u64,
    /// Position after its last good batch.
    pub head: u64,
    /// Newest mark: everything before it was on stable storage.
    pub persisted: u64,
    /// Bytes of the ring.
    pub ring_bytes: u64,
    /// Batches between tail and head.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// What comes after the head.
    pub end: LogEnd,
}

/// Looks at a device; nothing is written.
///
/// # Errors
/// When it has no readable label.
pub fn inspect(io: &dyn RegionIo) -> Result<DeviceView, LabelError> {
    let label = label::read_label_of_any_length(io)?;
    let copies = label::copy_states(io, &label).map(|state| match state {
        CopyState::Newest => "newest".to_owned(),
        CopyState::Older { generation } => format!("older, generation {generation}"),
        CopyState::Damaged => "damaged".to_owned(),
        CopyState::Missing => "missing".to_owned(),
        CopyState::OtherVersion { version } => format!("version {version}"),
    });
    let shards = 0..label.shards;
    let regions = shards.filter_map(|shard| region(io, &label, shard)).collect();
    Ok(DeviceView { device_bytes: io.len(), label_copies: copies, label: view(&label), regions })
}

fn view(label: &Label) -> LabelView {
    LabelView {
        version: label::FORMAT_VERSION,
        generation: label.generation,
        uuid: label.uuid,
        cluster: label.cluster().map(|cluster| cluster.to_string()),
        chunkserver: label.chunkserver().map(|id| id.0),
        sector_bytes: label.sector,
        formatted_bytes: label.device_bytes(),
        capacity_bytes: label.capacity_bytes(),
    }
}

fn region(io: &dyn RegionIo, label: &Label, shard: u16) -> Option<RegionView> {
    let region = label.regions().get(usize::from(shard))?;
    let layout = region.layout()?;
    let mut overlay = Overlay::new(io);
    let superblocks = slots(io, &layout, Recovery::region_id(label, shard));
    let mut view = RegionView {
        shard,
        start: region.start,
        bytes: region.len,
        parts: parts(&layout),
        superblocks,
        checkpoint: None,
        log: None,
        problem: None,
    };
    let seen = Recovery::new(&mut overlay, label, shard).and_then(|mut recovery| {
        let newest = recovery.superblock()?;
        view.checkpoint = Some(checkpoint(&newest));
        view.log = Some(log(&mut recovery, &newest)?);
        Ok(())
    });
    view.problem = seen.err().map(|error: OpenError| error.to_string());
    Some(view)
}

/// What the two slots hold.
pub(super) fn slots(io: &dyn RegionIo, layout: &RegionLayout, region: u64) -> [SlotView; 2] {
    layout.superblock.map(|addr| {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        if let Err(error) = io.read_at(addr, &mut bytes) {
            return SlotView::Unreadable { error: error.to_string() };
        }
        match Superblock::decode(&bytes) {
            Slot::Unused => SlotView::Unused,
            Slot::Damaged => SlotView::Damaged,
            Slot::OtherVersion(version) => SlotView::OtherVersion { version },
            Slot::Valid(s) if s.region != region => SlotView::Foreign,
            Slot::Valid(s) => SlotView::Valid { generation: s.generation, mount: s.mount },
        }
    })
}

fn checkpoint(superblock: &Superblock) -> CheckpointView {
    CheckpointView {
        generation: superblock.generation,
        mount: superblock.mount,
        tail: superblock.tail,
        skip: superblock.skip,
        persisted: superblock.persisted,
        directory_area: superblock.directory.map(|d| d.area),
        directory_bytes: superblock.directory.map_or(0, |d| d.bytes),
    }
}

fn log(recovery: &mut Recovery<'_>, superblock: &Superblock) -> Result<LogView, OpenError> {
    let mut walk = Walk::new(recovery, superblock)?;
    let (mut batches, mut records) = (0, 0);
    while let Some((header, _)) = walk.next_batch() {
        batches += 1;
        records += u64::from(header.records);
    }
    Ok(LogView {
        tail: superblock.tail,
        head: walk.at(),
        persisted: walk.mark(),
        ring_bytes: walk.ring_bytes(),
        batches,
        records,
        end: walk.verdict(),
    })
}

fn parts(layout: &RegionLayout) -> Vec<Part> {
    let block = ogive_types::BLOCK_BYTES as u64;
    let part = |what, start, bytes| Part { what, start, bytes };
    vec![
        part("superblocks", layout.superblock[0], 2 * SUPERBLOCK_BYTES as u64),
        part("log", layout.log_start, layout.log_bytes),
        part("map slots", layout.slots_start, u64::from(layout.slots) * block),
        part("directory 0", layout.directory[0], layout.directory_bytes),
        part("directory 1", layout.directory[1], layout.directory_bytes),
        part("data", layout.data_start, u64::from(layout.data_blocks) * block),
    ]
}
