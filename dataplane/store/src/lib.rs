//! One shard's part of a device: log, maps, allocator, recovery.
