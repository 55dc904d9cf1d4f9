//! What a store counts.

use ogive_types::MAX_IO_BYTES;

use crate::limits::NEAR_FULL_PERCENT;

/// Counters and sizes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Data blocks of the region.
    pub blocks: u64,
    /// Those that are free.
    pub blocks_free: u64,
    /// Those that hold what a read would return.
    pub blocks_mapped: u64,
    /// Those that are not used again since the device failed to read them. They do not count as
    /// free, and are tried again after a restart.
    pub blocks_retired: u64,
    /// Map pages, each for 1 MiB of a chunk.
    pub map_pages: u64,
    /// Bytes of memory that their mappings take.
    pub map_bytes: u64,
    /// Most map pages that the region can keep.
    pub map_pages_max: u64,
    /// Bytes of the log ring in use.
    pub log_bytes_used: u64,
    /// Bytes of the log ring.
    pub log_bytes: u64,
    /// Checkpoints completed since the store was opened.
    pub checkpoints: u64,
    /// Entries kept in memory.
    pub entries_kept: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// What was written to the device since the store was opened.
    pub written: Written,
}

impl StoreStats {
    /// Bytes of data blocks in use.
    pub fn used_bytes(&self) -> u64 {
        (self.blocks - self.blocks_free) * self.block_bytes
    }

    /// Whether so little is left that it is time to add or to free some. Blocks that are kept for
    /// followers do not count: they are let go of when space runs short.
    pub fn is_near_full(&self) -> bool {
        let usable = self.blocks - self.blocks_retired;
        let above = |used: u64, all: u64| used * 100 >= all * NEAR_FULL_PERCENT;
        above(self.blocks_mapped, usable) || above(self.map_pages, self.map_pages_max)
    }

    /// Whether the longest write finds space.
    pub fn has_room(&self) -> bool {
        self.blocks_free * self.block_bytes >= MAX_IO_BYTES as u64
            && self.map_pages + 1 < self.map_pages_max
    }

    /// Bytes of all data blocks.
    pub fn total_bytes(&self) -> u64 {
        self.blocks * self.block_bytes
    }
}

/// Device writes by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of log batches.
    pub log_bytes: u64,
    /// Log batches.
    pub log_writes: u64,
    /// Bytes of map pages.
    pub map_bytes: u64,
    /// Bytes of directories and superblocks.
    pub directory_bytes: u64,
    /// Flushes.
    pub flushes: u64,
}

impl Written {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.data_bytes + self.log_bytes + self.map_bytes + self.directory_bytes
    }
}
