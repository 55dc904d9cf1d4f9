//! Makes a device an Ogive device.
//!
//! 1. Refuse a device that holds somebody's data, unless forced.
//! 2. Wipe both label copies, so that a format that is cut short leaves no label of what is half
//!    wiped.
//! 3. Write zeroes: over everything, or, quickly, over what the engine reads before it writes. An
//!    engine takes a region whose superblocks are zero for a new one. Zeroes over everything also
//!    make a file's blocks be written once, so that later writes change no metadata of its file
//!    system.
//! 4. Write the label.

mod signature;

use std::ops::Range;
use std::{io, iter};

use ogive_types::{BLOCK_BYTES, ChunkserverId, ClusterId};
use uuid::Uuid;

use crate::io::RegionIo;
use crate::label::{LABEL_BYTES, Label, LabelError, REGIONS_START, Region, SHARDS_MAX};
use crate::label::{read_label, write_label};
use crate::region::{LOG_BYTES_MAX, LOG_BYTES_MIN, RegionLayout};

/// Regions begin and end at multiples of this, as partitions do, so that they fall on the erase
/// units of flash.
const REGION_ALIGN: u64 = 1 << 20;
/// Bytes of zeroes in one write.
const WIPE_BYTES: u64 = 1 << 20;
/// The end of a device, where GPT, ZFS and Linux RAID keep copies that would bring them back.
const TAIL_BYTES: u64 = 1 << 20;

/// Aligned, so that a device takes it without a copy.
#[repr(align(4096))]
struct Zeroes([u8; WIPE_BYTES as usize]);

static ZEROES: Zeroes = Zeroes([0; WIPE_BYTES as usize]);

/// How to format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// Shards, 1 to 64: how many cores will serve the device.
    pub shards: u16,
    /// Bytes that the device writes at once: 512 or 4096.
    pub sector: u32,
    /// Bytes of each shard's log ring, a multiple of 4096 from 1 MiB to 1 GiB; chosen by the size
    /// when `None`.
    pub log_bytes: Option<u64>,
    /// The device's name for good.
    pub uuid: Uuid,
    /// Overwrite what the device holds.
    pub force: bool,
    /// Write zeroes only where they are needed.
    pub quick: bool,
}

/// Why a device was not formatted. Unless it says otherwise the device is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The device is in use by a cluster.
    #[error(
        "the device is chunkserver {chunkserver} of Ogive cluster {cluster}; drain and remove it \
         first, or use --force to destroy its replicas"
    )]
    InCluster {
        /// Its cluster.
        cluster: ClusterId,
        /// Its chunkserver.
        chunkserver: ChunkserverId,
    },
    /// The device is formatted, by this or another version, perhaps damaged.
    #[error("the device is an Ogive device already ({state}); use --force to format it anew")]
    AlreadyFormatted {
        /// What its label says.
        state: String,
    },
    /// Another system's data was recognised.
    #[error("the device holds {what}; use --force to overwrite it")]
    Foreign {
        /// What it is.
        what: &'static str,
    },
    /// The regions do not fit.
    #[error(
        "a device of {has_bytes} bytes is too small for {shards} shard(s): it takes at least \
         {needs_bytes} bytes; use a larger device, fewer shards or a shorter log"
    )]
    TooSmall {
        /// Length of the device.
        has_bytes: u64,
        /// Shards asked for.
        shards: u16,
        /// Shortest device for these shards and this log.
        needs_bytes: u64,
    },
    /// A number of shards out of range.
    #[error("a device has 1 to {SHARDS_MAX} shards, not {0}")]
    BadShards(u16),
    /// A sector size that no label can hold.
    #[error("a sector has 512 or 4096 bytes, not {0}; use a device with one of these")]
    BadSector(u32),
    /// A log length out of range.
    #[error("a log has {LOG_BYTES_MIN} to {LOG_BYTES_MAX} bytes, a multiple of 4096, not {0}")]
    BadLog(u64),
    /// The device failed; it has no label now.
    #[error("the device cannot be formatted: {0}")]
    Io(#[from] io::Error),
}

/// Formats the device behind `io` and gives its label. `progress` is told now and then how many
/// bytes of how many have been wiped.
///
/// # Errors
/// When the options do not fit the device, when it holds data and `force` is not set, or when it
/// fails.
pub fn format(
    io: &mut dyn RegionIo,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Label, FormatError> {
    let label = plan(io.len(), options)?;
    if !options.force {
        refuse_used(io)?;
    }
    wipe(io, 0..2 * LABEL_BYTES as u64, &mut |_| ())?;
    io.flush()?;
    let ranges = ranges_to_wipe(&label, io.len(), options.quick);
    let total = ranges.iter().map(|range| range.end - range.start).sum();
    let mut done = 0;
    progress(done, total);
    for range in ranges {
        wipe(io, range, &mut |bytes| {
            done += bytes;
            progress(done, total);
        })?;
    }
    io.flush()?;
    write_label(io, &label)?;
    Ok(label)
}

/// The label of a new device of `len` bytes.
fn plan(len: u64, options: &FormatOptions) -> Result<Label, FormatError> {
    let shards = options.shards;
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(FormatError::BadShards(shards));
    }
    if !matches!(options.sector, 512 | 4096) {
        return Err(FormatError::BadSector(options.sector));
    }
    let device_bytes = len / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let space = device_bytes.saturating_sub(REGIONS_START);
    let region_bytes = space / u64::from(shards) / REGION_ALIGN * REGION_ALIGN;
    let log_bytes = match options.log_bytes {
        Some(bytes) if !log_allowed(bytes) => return Err(FormatError::BadLog(bytes)),
        Some(bytes) => bytes,
        None => RegionLayout::default_log_bytes(region_bytes),
    };
    if RegionLayout::plan(region_bytes, log_bytes).is_none() {
        let region = RegionLayout::len_bytes_min(log_bytes).next_multiple_of(REGION_ALIGN);
        let needs_bytes = REGIONS_START + u64::from(shards) * region;
        return Err(FormatError::TooSmall { has_bytes: len, shards, needs_bytes });
    }
    let start = |n| REGIONS_START + n * region_bytes;
    let regions = (0..u64::from(shards))
        .map(|n| Region { start: start(n), len: region_bytes, log_bytes })
        .collect();
    Ok(Label {
        uuid: options.uuid,
        shards,
        sector: options.sector,
        generation: 1,
        cluster: ClusterId(0),
        chunkserver: ChunkserverId(0),
        device_bytes,
        regions,
    })
}

fn log_allowed(bytes: u64) -> bool {
    (LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(BLOCK_BYTES as u64)
}

fn refuse_used(io: &dyn RegionIo) -> Result<(), FormatError> {
    match read_label(io) {
        Ok(Label { cluster, chunkserver, .. }) if chunkserver != ChunkserverId(0) => {
            Err(FormatError::InCluster { cluster, chunkserver })
        }
        Ok(label) => {
            let state = format!("device {}, in no cluster yet", label.uuid);
            Err(FormatError::AlreadyFormatted { state })
        }
        Err(LabelError::NotOgive) => match signature::find(io)? {
            Some(what) => Err(FormatError::Foreign { what }),
            None => Ok(()),
        },
        Err(LabelError::Io(error)) => Err(error.into()),
        Err(LabelError::OtherVersion { found, .. }) => {
            let state = format!("of format version {found}");
            Err(FormatError::AlreadyFormatted { state })
        }
        Err(LabelError::DeviceTooSmall { says_bytes, .. }) => {
            let state = format!("formatted with {says_bytes} bytes and now shorter");
            Err(FormatError::AlreadyFormatted { state })
        }
        Err(_) => Err(FormatError::AlreadyFormatted { state: "its label is damaged".to_owned() }),
    }
}

/// What to fill with zeroes, in order, apart, inside the device.
fn ranges_to_wipe(label: &Label, len: u64, quick: bool) -> Vec<Range<u64>> {
    if !quick {
        return iter::once(0..len).collect();
    }
    let in_region = |region: &Region| {
        let layout = region.layout().expect("the plan of this label");
        let directories = layout.directory.map(|start| start..start + BLOCK_BYTES as u64);
        let start = region.start..layout.log_start + layout.log_bytes;
        iter::once(start).chain(directories)
    };
    let regions = label.regions.iter().flat_map(in_region);
    let mut ranges: Vec<_> = iter::once(0..REGIONS_START).chain(regions).collect();
    let wiped_to = ranges.last().map_or(0, |range| range.end);
    ranges.push(len.saturating_sub(TAIL_BYTES).max(wiped_to)..len);
    ranges
}

fn wipe(io: &mut dyn RegionIo, range: Range<u64>, wiped: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let bytes = (range.end - at).min(WIPE_BYTES);
        io.write_at(at, &ZEROES.0[..bytes as usize])?;
        wiped(bytes);
        at += bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
