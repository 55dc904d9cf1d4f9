//! The device label: what the device is, whose it is, and where its regions lie.
//!
//! Two copies of 4096 bytes, at byte 0 and byte 4096 of the device. Numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `OGIVEDEV` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32C of the 4096 bytes without these 4 |
//! | 16 | 8 | generation; the copy with the higher one is the newer |
//! | 24 | 16 | device UUID, in its textual byte order |
//! | 40 | 16 | cluster id; 0 before the device belongs to one |
//! | 56 | 4 | chunkserver id; 0 before it has one |
//! | 60 | 4 | sector bytes: 512 or 4096 |
//! | 64 | 8 | device bytes at format; a multiple of 4096 |
//! | 72 | 2 | shards, 1 to 64: entries of the region table |
//! | 74 | 54 | zero |
//! | 128 | 2048 | region table: 64 entries of 32 bytes, zero after the last shard's |
//! | 2176 | 1920 | zero |
//!
//! An entry of the region table:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | first byte of the region on the device; a multiple of 4096, not below 1 MiB |
//! | 8 | 8 | bytes of the region; a multiple of 4096 |
//! | 16 | 8 | bytes of its log ring (see [`RegionLayout`]) |
//! | 24 | 8 | zero |
//!
//! Between the label and the regions (64 KiB to 1 MiB) lies what the chunkserver remembers of its
//! cluster: see `dataplane/chunkserver/src/card.rs`.
//!
//! The first 24 bytes keep their places and meanings in every version, so that any version can tell
//! an intact label of another version from a damaged one, and name it. Copies are replaced one
//! after the other, the stale one first, with a flush between: at any moment at least one is whole.

use std::io;

use ogive_types::{BLOCK_BYTES, ChunkserverId, ClusterId};
use uuid::Uuid;

use crate::io::RegionIo;
use crate::region::RegionLayout;

/// Version of the device format that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Most shards of a device: more cores than one device keeps busy.
pub const SHARDS_MAX: u16 = 64;
/// Bytes of one copy.
pub const LABEL_BYTES: usize = 4096;
/// Where regions may begin: the space before is the labels', and what other systems write there is
/// wiped.
pub const REGIONS_START: u64 = 1 << 20;

const MAGIC: [u8; 8] = *b"OGIVEDEV";
const COPY_ADDRS: [u64; 2] = [0, LABEL_BYTES as u64];
const CRC_AT: usize = 12;
const TABLE_AT: usize = 128;
const ENTRY_BYTES: usize = 32;

const _: () = assert!(TABLE_AT + SHARDS_MAX as usize * ENTRY_BYTES == 2176);
const _: () = assert!(LABEL_BYTES == BLOCK_BYTES);
const _: () = assert!(REGIONS_START >= 2 * LABEL_BYTES as u64);

/// One shard's part of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte on the device.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Bytes of the log ring.
    pub log_bytes: u64,
}

impl Region {
    /// Where its parts lie, as byte offsets on the device; `None` only for lengths that no label
    /// has.
    pub fn layout(&self) -> Option<RegionLayout> {
        Some(RegionLayout::plan(self.len, self.log_bytes)?.at(self.start))
    }
}

/// A device label, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Names the device for good.
    pub uuid: Uuid,
    /// Number of shards, and of regions.
    pub shards: u16,
    /// Bytes that the device writes at once: 512 or 4096.
    pub sector: u32,
    /// Counts the changes of the label.
    pub generation: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) chunkserver: ChunkserverId,
    pub(crate) device_bytes: u64,
    pub(crate) regions: Vec<Region>,
}

/// Why a device has no usable label, or does not get one.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// Neither copy begins with the magic.
    #[error("not an Ogive device; prepare it with `ogive format`")]
    NotOgive,
    /// An intact label of another format version.
    #[error(
        "the device has format version {found}, this build reads version {known}; \
         use a build that reads it"
    )]
    OtherVersion {
        /// The device's version.
        found: u32,
        /// This build's, [`FORMAT_VERSION`].
        known: u32,
    },
    /// The magic is there, but no copy is whole.
    #[error(
        "both copies of the device label are damaged; replace the device, or format it anew with \
         --force and let its replicas be rebuilt from their peers"
    )]
    Damaged,
    /// The device ends before its label says.
    #[error(
        "the device has {has_bytes} bytes but was formatted with {says_bytes}; \
         give it back its full length"
    )]
    DeviceTooSmall {
        /// Length at format.
        says_bytes: u64,
        /// Length now.
        has_bytes: u64,
    },
    /// The device belongs to somebody already.
    #[error(
        "the device is chunkserver {chunkserver} of cluster {cluster} and cannot become \
         another; format it anew to reuse it"
    )]
    IdentitySet {
        /// Its cluster.
        cluster: ClusterId,
        /// Its chunkserver.
        chunkserver: ChunkserverId,
    },
    /// The ids given are zero, which means none.
    #[error("cluster and chunkserver id of a device must not be zero")]
    IdentityZero,
    /// The device cannot be read or written.
    #[error("the device label cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

impl Label {
    /// The cluster that the device belongs to; `None` before its first registration.
    pub fn cluster(&self) -> Option<ClusterId> {
        (self.cluster != ClusterId(0)).then_some(self.cluster)
    }

    /// The chunkserver that the device is; `None` before its first registration.
    pub fn chunkserver(&self) -> Option<ChunkserverId> {
        (self.chunkserver != ChunkserverId(0)).then_some(self.chunkserver)
    }

    /// Bytes of all data blocks of all regions.
    pub fn capacity_bytes(&self) -> u64 {
        let blocks = self.regions.iter().filter_map(|r| RegionLayout::plan(r.len, r.log_bytes));
        blocks.map(|l| u64::from(l.data_blocks) * BLOCK_BYTES as u64).sum()
    }

    /// Bytes of the device when it was formatted.
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// The regions, one per shard, in order of the shards and of their addresses.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }
}

/// What one copy holds.
enum Found {
    /// No magic.
    Nothing,
    /// The magic, and bytes that do not belong together.
    Damaged,
    /// An intact label of a version that this build does not know.
    Other { version: u32 },
    /// An intact label.
    Whole(Label),
}

/// Reads the label of a device: the newer of the intact copies.
///
/// # Errors
/// When there is none, when it is of another version, when the device became shorter, or when it
/// cannot be read.
pub fn read_label(io: &dyn RegionIo) -> Result<Label, LabelError> {
    let label = newest(&read_copies(io)?)?;
    if io.len() < label.device_bytes {
        return Err(LabelError::DeviceTooSmall {
            says_bytes: label.device_bytes,
            has_bytes: io.len(),
        });
    }
    Ok(label)
}

/// Like [`read_label`], also for a device that became shorter: it can still be looked at.
pub(crate) fn read_label_of_any_length(io: &dyn RegionIo) -> Result<Label, LabelError> {
    newest(&read_copies(io)?)
}

/// A copy of the label, beside the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyState {
    /// It says what counts.
    Newest,
    /// Whole, and replaced by the other one: a change was cut short between the two.
    Older { generation: u64 },
    /// Not what was written, or unreadable.
    Damaged,
    /// No label at all.
    Missing,
    /// Of another version.
    OtherVersion { version: u32 },
}

/// How the two copies stand to `newest`.
pub(crate) fn copy_states(io: &dyn RegionIo, newest: &Label) -> [CopyState; 2] {
    COPY_ADDRS.map(|addr| match read_copy(io, addr) {
        Ok(Found::Whole(label)) if label == *newest => CopyState::Newest,
        Ok(Found::Whole(label)) => CopyState::Older { generation: label.generation },
        Ok(Found::Other { version }) => CopyState::OtherVersion { version },
        Ok(Found::Nothing) => CopyState::Missing,
        Ok(Found::Damaged) | Err(_) => CopyState::Damaged,
    })
}

/// Makes the device chunkserver `chunkserver` of `cluster`, for good; nothing changes when it is
/// that already.
///
/// # Errors
/// Those of [`read_label`]; when the device is somebody else, when an id is zero, or when the label
/// cannot be written.
pub fn write_identity(
    io: &mut dyn RegionIo,
    cluster: ClusterId,
    chunkserver: ChunkserverId,
) -> Result<Label, LabelError> {
    if cluster == ClusterId(0) || chunkserver == ChunkserverId(0) {
        return Err(LabelError::IdentityZero);
    }
    let mut label = read_label(io)?;
    let set = label.cluster().is_some() || label.chunkserver().is_some();
    if set && (label.cluster, label.chunkserver) != (cluster, chunkserver) {
        return Err(LabelError::IdentitySet {
            cluster: label.cluster,
            chunkserver: label.chunkserver,
        });
    }
    if !set {
        label = Label { cluster, chunkserver, generation: label.generation + 1, ..label };
        write_label(io, &label)?;
    }
    Ok(label)
}

/// Writes both copies. The one that holds the newest label is replaced last, when the other is
/// stable.
pub(crate) fn write_label(io: &mut dyn RegionIo, label: &Label) -> io::Result<()> {
    let bytes = encode(label);
    let generation = |found: &io::Result<Found>| match found {
        Ok(Found::Whole(label)) => Some(label.generation),
        _ => None,
    };
    let [a, b] = COPY_ADDRS.map(|addr| read_copy(io, addr));
    let order = if generation(&b) < generation(&a) { [1, 0] } else { [0, 1] };
    for copy in order {
        io.write_at(COPY_ADDRS[copy], &bytes)?;
        io.flush()?;
    }
    Ok(())
}

/// One unreadable copy counts as damaged: the other may still be whole.
fn read_copies(io: &dyn RegionIo) -> io::Result<[Found; 2]> {
    match COPY_ADDRS.map(|addr| read_copy(io, addr)) {
        [Err(error), Err(_)] => Err(error),
        copies => Ok(copies.map(|copy| copy.unwrap_or(Found::Damaged))),
    }
}

fn read_copy(io: &dyn RegionIo, addr: u64) -> io::Result<Found> {
    if io.len() < addr + LABEL_BYTES as u64 {
        return Ok(Found::Nothing);
    }
    let mut bytes = [0; LABEL_BYTES];
    io.read_at(addr, &mut bytes)?;
    Ok(decode(&bytes))
}

/// | copies | verdict |
/// |---|---|
/// | any intact one of a newer version | other version: an upgrade began, the other copy is stale |
/// | any intact one of this version | the one with the highest generation |
/// | any intact one of an older version | other version |
/// | any damaged one | damaged |
/// | none | not an Ogive device |
fn newest(copies: &[Found; 2]) -> Result<Label, LabelError> {
    let others = copies.iter().filter_map(|copy| match copy {
        Found::Other { version } => Some(*version),
        _ => None,
    });
    let other = others.max();
    let wholes = copies.iter().filter_map(|copy| match copy {
        Found::Whole(label) => Some(label),
        _ => None,
    });
    let whole = wholes.max_by_key(|label| label.generation);
    let damaged = copies.iter().any(|copy| matches!(copy, Found::Damaged));
    match (other, whole) {
        (Some(found), whole) if found > FORMAT_VERSION || whole.is_none() => {
            Err(LabelError::OtherVersion { found, known: FORMAT_VERSION })
        }
        (_, Some(label)) => Ok(label.clone()),
        _ if damaged => Err(LabelError::Damaged),
        _ => Err(LabelError::NotOgive),
    }
}

fn encode(label: &Label) -> [u8; LABEL_BYTES] {
    assert!(is_sound(label), "only sound labels are written: {label:?}");
    let mut bytes = [0; LABEL_BYTES];
    put(&mut bytes, 0, &MAGIC);
    put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
    put(&mut bytes, 16, &label.generation.to_le_bytes());
    put(&mut bytes, 24, label.uuid.as_bytes());
    put(&mut bytes, 40, &label.cluster.0.to_le_bytes());
    put(&mut bytes, 56, &label.chunkserver.0.to_le_bytes());
    put(&mut bytes, 60, &label.sector.to_le_bytes());
    put(&mut bytes, 64, &label.device_bytes.to_le_bytes());
    put(&mut bytes, 72, &label.shards.to_le_bytes());
    for (n, region) in label.regions.iter().enumerate() {
        let at = TABLE_AT + n * ENTRY_BYTES;
        put(&mut bytes, at, &region.start.to_le_bytes());
        put(&mut bytes, at + 8, &region.len.to_le_bytes());
        put(&mut bytes, at + 16, &region.log_bytes.to_le_bytes());
    }
    let crc = checksum(&bytes);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; LABEL_BYTES]) -> Found {
    if get::<8>(bytes, 0) != MAGIC {
        return Found::Nothing;
    }
    if u32::from_le_bytes(get(bytes, CRC_AT)) != checksum(bytes) {
        return Found::Damaged;
    }
    let version = u32::from_le_bytes(get(bytes, 8));
    if version != FORMAT_VERSION {
        return Found::Other { version };
    }
    let shards = u16::from_le_bytes(get(bytes, 72));
    let regions = (0..shards.min(SHARDS_MAX)).map(|n| {
        let at = TABLE_AT + usize::from(n) * ENTRY_BYTES;
        let field = |offset| u64::from_le_bytes(get(bytes, at + offset));
        Region { start: field(0), len: field(8), log_bytes: field(16) }
    });
    let label = Label {
        uuid: Uuid::from_bytes(get(bytes, 24)),
        shards,
        sector: u32::from_le_bytes(get(bytes, 60)),
        generation: u64::from_le_bytes(get(bytes, 16)),
        cluster: ClusterId(u128::from_le_bytes(get(bytes, 40))),
        chunkserver: ChunkserverId(u32::from_le_bytes(get(bytes, 56))),
        device_bytes: u64::from_le_bytes(get(bytes, 64)),
        regions: regions.collect(),
    };
    // What must be zero is checked by writing the label again: every sound label has one form.
    if is_sound(&label) && encode(&label) == *bytes { Found::Whole(label) } else { Found::Damaged }
}

/// What the byte table promises, beyond the bytes themselves.
pub(crate) fn is_sound(label: &Label) -> bool {
    let mut free_from = REGIONS_START;
    let regions_sound = label.regions.iter().all(|region| {
        let block = BLOCK_BYTES as u64;
        let aligned = region.start.is_multiple_of(block) && region.len.is_multiple_of(block);
        let Some(end) = region.start.checked_add(region.len) else { return false };
        let inside = region.start >= free_from && end <= label.device_bytes;
        free_from = end;
        aligned && inside && RegionLayout::plan(region.len, region.log_bytes).is_some()
    });
    let counted = usize::from(label.shards) == label.regions.len();
    let owned_fully = label.cluster().is_some() == label.chunkserver().is_some();
    regions_sound
        && counted
        && (1..=SHARDS_MAX).contains(&label.shards)
        && matches!(label.sector, 512 | 4096)
        && label.device_bytes.is_multiple_of(BLOCK_BYTES as u64)
        && owned_fully
}

fn checksum(bytes: &[u8; LABEL_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}

fn put(bytes: &mut [u8; LABEL_BYTES], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

fn get<const N: usize>(bytes: &[u8; LABEL_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes")
}

#[cfg(test)]
mod tests;
