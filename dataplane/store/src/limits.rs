//! Limits of this crate, each with its reason.

/// Most bytes of one log batch: a write of this size takes little longer than a sector, and
/// hundreds of records fit.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// A batch takes at most this share of the log ring, 1 / n: what a ring loses at its end is small.
pub const BATCH_SHARE: u64 = 16;
/// Bytes of records that may wait for the log; more are refused as `Busy`, which slows the senders
/// down.
pub const PENDING_BYTES_MAX: usize = 8 << 20;
/// At most this share of the log ring waits, 1 / n. A checkpoint frees the ring only when what
/// waited at its start is persisted; with the half that is used then (`CHECKPOINT_AT`), this must
/// leave room.
pub const PENDING_SHARE: u64 = 8;
/// Map pages that a checkpoint writes at once: enough to keep a disk busy, few enough not to
/// disturb the log.
pub const CHECKPOINT_PAGES_IN_FLIGHT: usize = 16;
/// Map pages that are read at once: enough to keep a disk busy.
pub const PAGE_READS_IN_FLIGHT: usize = 32;
/// How often a map page is read before it counts as damaged, which fails the store: a block that is
/// bad stays bad, a bus or a cable may be better next time.
pub const PAGE_READ_TRIES: u32 = 3;
/// Map pages that wait to be read; beyond, writes are refused as `Busy` until the device catches
/// up.
pub const PAGE_READS_WAITING_MAX: usize = 4096;
/// Pages that stay in memory for whoever was told to come again for them: a few for each delta that
/// a shard sends, and for the repairs of a moment.
pub const PAGES_HELD_MAX: usize = 64;
/// Maps may grow to twice their budget and this much more before writes are refused as `Busy`: the
/// pages that wait for a checkpoint must have room, whatever the budget.
pub const MAP_BYTES_OVER: usize = 256 << 10;
/// Pages that are looked at in one call when some must leave memory.
pub const CLOCK_STEPS_MAX: usize = 64;
/// Slots of map pages that a finished checkpoint frees in one call, so that the call stays short.
pub const SLOTS_FREED_MAX: usize = 16_384;
/// Bytes of log records that may be sealed but not persisted: what a power cut may take.
pub const UNPERSISTED_BYTES_MAX: u64 = 4 << 20;
/// Slots of map pages that recovery reads at once: long enough for any disk's full speed.
pub const SLOTS_READ_AT_ONCE: u32 = 512;
/// Slots without a page that recovery reads over rather than start a new read.
pub const SLOTS_READ_OVER: u32 = 32;
/// At most this share of the log ring is unpersisted, 1 / n.
pub const UNPERSISTED_SHARE: u64 = 8;
/// Bytes of states of replicas that a checkpoint captures in one call.
pub const CAPTURE_BYTES: usize = 256 << 10;
/// Bytes of the directory written with one operation.
pub const DIRECTORY_WRITE_BYTES: usize = 256 << 10;
/// A checkpoint starts when this share of the log ring is in use: 1 / n.
pub const CHECKPOINT_AT: u64 = 2;
/// Reads that wait for buffers; more fail as `Busy`.
pub const READS_WAITING_MAX: usize = 16_384;
/// Chunks that one record drops: keeps records of deltas far below the length of a batch.
pub const DROPPED_CHUNKS_MAX: usize = 1024;
/// Retained entries that are let go at once when blocks run short.
pub const SHED_ENTRIES_MAX: usize = 256;
/// Memory for the buffers of a store that is opened to be looked at.
pub const INSPECT_POOL_BYTES: usize = 32 << 20;
/// Damages that a verification lists; the others are only counted. A device with so many is to be
/// replaced, not studied.
pub const FINDINGS_MAX: usize = 10_000;
/// Records of entries that are not applied take at most this share of the log ring, 1 / n; writes
/// beyond are refused as `Busy`. The directory of a checkpoint holds them, and is longer than the
/// log.
pub const UNAPPLIED_SHARE: u64 = 2;
/// Blocks that are not used again after a failed read; with more of them the device is to be
/// replaced, and memory is not spent on them.
pub const BAD_BLOCKS_MAX: usize = 65_536;
/// Blocks that one repair writes, in one record.
pub const REPAIR_BLOCKS_MAX: usize = 256;
/// Chunks without mapped blocks that one step of a scrub passes by.
pub const SCRUB_CHUNKS_MAX: usize = 64;
/// A store with this share of its blocks in use is nearly full: there is time to act.
pub const NEAR_FULL_PERCENT: u64 = 85;
