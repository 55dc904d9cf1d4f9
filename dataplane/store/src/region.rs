//! Where the parts of a shard's region lie: pure arithmetic, computed from the region's length and
//! the length of its log, so that nothing but these two needs to be stored.
//!
//! ```text
//! | superblocks | log ring  | map slots | directories           | data blocks | rest   |
//! | 2 x 4096    | log_bytes | 4096 each | 2 x directory_bytes   | 4096 each   | unused |
//! ```
//!
//! Every part starts at a multiple of 4096 bytes from the region's start.

use ogive_types::BLOCK_BYTES;

/// Shortest log ring: below it, checkpoints would run after every few hundred writes.
pub const LOG_BYTES_MIN: u64 = 1 << 20;
/// Longest log ring: what recovery reads and replays at the most, and the bound of what a directory
/// must hold.
pub const LOG_BYTES_MAX: u64 = 1 << 30;
/// Shortest log that is chosen when none is asked for and there is room.
const LOG_BYTES_DEFAULT_MIN: u64 = 8 << 20;
/// The log takes one part in this many of its region when none is asked for.
const LOG_SHARE: u64 = 32;
/// Fewest data blocks of a region: one map slot's worth. A smaller region would be all overhead.
pub const DATA_BLOCKS_MIN: u32 = 256;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Block entries that one map slot covers.
const BLOCKS_PER_SLOT: u64 = 256;
/// Slots over those that a fully written region needs.
const SLOTS_SPARE: u64 = 64;
/// Directory bytes for what does not grow with the region: copysets, terms, sessions.
const DIRECTORY_BASE_BYTES: u64 = 1 << 20;
/// Directory bytes for each map slot.
const DIRECTORY_SLOT_BYTES: u64 = 32;

/// Parts of one region. From [`RegionLayout::plan`] addresses count from the region's start; after
/// [`RegionLayout::at`] they are byte offsets on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLayout {
    /// Addresses of the two superblocks, 4096 bytes each.
    pub superblock: [u64; 2],
    /// Address of the log ring.
    pub log_start: u64,
    /// Bytes of the log ring.
    pub log_bytes: u64,
    /// Address of the first map slot.
    pub slots_start: u64,
    /// Number of map slots of 4096 bytes.
    pub slots: u32,
    /// Addresses of the two directory areas.
    pub directory: [u64; 2],
    /// Bytes of each directory area.
    pub directory_bytes: u64,
    /// Address of the first data block.
    pub data_start: u64,
    /// Number of data blocks of 4096 bytes.
    pub data_blocks: u32,
}

impl RegionLayout {
    /// The layout of a region of `len_bytes` with a log ring of `log_bytes` (a multiple of 4096, at
    /// least [`LOG_BYTES_MIN`], at most [`LOG_BYTES_MAX`]), with as many data blocks as fit. `None`
    /// when the log's length is not allowed or fewer than [`DATA_BLOCKS_MIN`] blocks fit.
    pub fn plan(len_bytes: u64, log_bytes: u64) -> Option<RegionLayout> {
        if !log_bytes_allowed(log_bytes) {
            return None;
        }
        let fits = |blocks: u32| Self::with_blocks(blocks, log_bytes).end() <= len_bytes;
        if !fits(DATA_BLOCKS_MIN) {
            return None;
        }
        // The end grows with the blocks, so the most that fit are found by halving.
        let (mut fitting, mut above) = (DATA_BLOCKS_MIN, u32::MAX);
        while above - fitting > 1 {
            let middle = fitting + (above - fitting) / 2;
            if fits(middle) {
                fitting = middle;
            } else {
                above = middle;
            }
        }
        Some(Self::with_blocks(fitting, log_bytes))
    }

    /// The same layout for a region that starts at byte `start` of the device.
    pub fn at(self, start: u64) -> RegionLayout {
        RegionLayout {
            superblock: self.superblock.map(|a| a + start),
            log_start: self.log_start + start,
            slots_start: self.slots_start + start,
            directory: self.directory.map(|a| a + start),
            data_start: self.data_start + start,
            ..self
        }
    }

    /// Address of the first byte after the data blocks.
    pub fn end(&self) -> u64 {
        self.data_start + u64::from(self.data_blocks) * BLOCK
    }

    /// Address of map slot `slot`.
    pub fn slot_addr(&self, slot: u32) -> u64 {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        self.slots_start + u64::from(slot) * BLOCK
    }

    /// Address of data block `block`.
    pub fn block_addr(&self, block: u32) -> u64 {
        assert!(block < self.data_blocks, "block {block} of {}", self.data_blocks);
        self.data_start + u64::from(block) * BLOCK
    }

    /// Shortest region with a log ring of `log_bytes`, which must be allowed.
    pub fn len_bytes_min(log_bytes: u64) -> u64 {
        assert!(log_bytes_allowed(log_bytes), "a log of {log_bytes} bytes");
        Self::with_blocks(DATA_BLOCKS_MIN, log_bytes).end()
    }

    /// The log length for a region of `len_bytes` when none is asked for: one part in 32, within 8
    /// MiB and 1 GiB; a region too small for that gets the longest one that fits, down to
    /// [`LOG_BYTES_MIN`].
    pub fn default_log_bytes(len_bytes: u64) -> u64 {
        let share = (len_bytes / LOG_SHARE).clamp(LOG_BYTES_DEFAULT_MIN, LOG_BYTES_MAX);
        let mut log_bytes = share / BLOCK * BLOCK;
        // A log takes three times its length (the directories hold its records too); leave half to
        // the data.
        while log_bytes > LOG_BYTES_MIN && log_bytes * 6 > len_bytes {
            log_bytes = (log_bytes / 2).max(LOG_BYTES_MIN);
        }
        log_bytes
    }

    fn with_blocks(data_blocks: u32, log_bytes: u64) -> RegionLayout {
        let slots = slots_for(data_blocks);
        // Holds the records of all unapplied entries too, and those are in the log.
        let directory_bytes =
            DIRECTORY_BASE_BYTES + DIRECTORY_SLOT_BYTES * u64::from(slots) + log_bytes;
        let directory_bytes = directory_bytes.next_multiple_of(BLOCK);
        let log_start = 2 * BLOCK;
        let slots_start = log_start + log_bytes;
        let directory = slots_start + u64::from(slots) * BLOCK;
        RegionLayout {
            superblock: [0, BLOCK],
            log_start,
            log_bytes,
            slots_start,
            slots,
            directory: [directory, directory + directory_bytes],
            directory_bytes,
            data_start: directory + 2 * directory_bytes,
            data_blocks,
        }
    }
}

fn log_bytes_allowed(log_bytes: u64) -> bool {
    log_bytes.is_multiple_of(BLOCK) && (LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&log_bytes)
}

/// Two versions of each slot (a checkpoint never overwrites what the last one needs), and twice
/// that because chunks that are written here and there fill their slots badly.
fn slots_for(data_blocks: u32) -> u32 {
    let slots = 2 * 2 * u64::from(data_blocks).div_ceil(BLOCKS_PER_SLOT) + SLOTS_SPARE;
    u32::try_from(slots).expect("a 64th of the blocks, which are counted in 32 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Start and end of each part, in order.
    fn parts(l: &RegionLayout) -> Vec<(u64, u64)> {
        let slots = l.slots_start + u64::from(l.slots) * BLOCK;
        vec![
            (l.superblock[0], l.superblock[0] + BLOCK),
            (l.superblock[1], l.superblock[1] + BLOCK),
            (l.log_start, l.log_start + l.log_bytes),
            (l.slots_start, slots),
            (l.directory[0], l.directory[0] + l.directory_bytes),
            (l.directory[1], l.directory[1] + l.directory_bytes),
            (l.data_start, l.end()),
        ]
    }

    proptest! {
        #[test]
        fn parts_are_aligned_apart_and_inside(
            len in (4u64 << 20)..(1 << 45),
            log_blocks in 256u64..=(1 << 18),
            start in 0u64..(1 << 40),
        ) {
            let (log_bytes, start) = (log_blocks * BLOCK, start / BLOCK * BLOCK);
            let plan = RegionLayout::plan(len, log_bytes);
            prop_assert_eq!(plan.is_some(), len >= RegionLayout::len_bytes_min(log_bytes));
            let Some(plan) = plan else { return Ok(()) };
            let layout = plan.at(start);
            let mut at = start;
            for (from, to) in parts(&layout) {
                prop_assert!(from == at && from % BLOCK == 0 && to > from);
                at = to;
            }
            prop_assert!(at - start <= len);
            let slots = 4 * u64::from(layout.data_blocks).div_ceil(256) + 64;
            prop_assert_eq!(u64::from(layout.slots), slots);
            let directory = (1 << 20) + 32 * layout.slots as u64 + log_bytes;
            prop_assert!(layout.directory_bytes >= directory);
            prop_assert!(layout.directory_bytes < directory + BLOCK);
            // Not one block more would fit, unless they cannot be counted.
            let more = layout.data_blocks.checked_add(1);
            let more = more.map(|n| RegionLayout::with_blocks(n, log_bytes));
            prop_assert!(layout.data_blocks == u32::MAX - 1 || more.is_none_or(|m| m.end() > len));
        }

        #[test]
        fn the_default_log_fits_whenever_any_does(len in 0u64..(1 << 45)) {
            let log_bytes = RegionLayout::default_log_bytes(len);
            prop_assert!(log_bytes_allowed(log_bytes));
            let fits = len >= RegionLayout::len_bytes_min(LOG_BYTES_MIN);
            prop_assert_eq!(RegionLayout::plan(len, log_bytes).is_some(), fits);
        }
    }

    #[test]
    fn a_terabyte_spends_little_on_maps() {
        let layout = RegionLayout::plan(1 << 40, 1 << 30).expect("fits");
        let data = u64::from(layout.data_blocks) * BLOCK;
        assert!(data > (1u64 << 40) / 100 * 97, "{data}");
    }

    #[test]
    fn logs_of_odd_or_extreme_length_are_refused() {
        for log_bytes in [0, LOG_BYTES_MIN - BLOCK, LOG_BYTES_MIN + 1, LOG_BYTES_MAX + BLOCK] {
            assert_eq!(RegionLayout::plan(1 << 40, log_bytes), None);
        }
    }

    #[test]
    fn default_logs_grow_with_the_region() {
        assert_eq!(RegionLayout::default_log_bytes(64 << 20), 8 << 20);
        assert_eq!(RegionLayout::default_log_bytes(1 << 30), 32 << 20);
        assert_eq!(RegionLayout::default_log_bytes(1 << 40), 1 << 30);
        assert!(RegionLayout::default_log_bytes(16 << 20) < 8 << 20);
    }
}
