//! One shard's part of a device: log, maps, allocator, recovery.
//!
//! A device begins with a label ([`Label`]), followed by a region for each shard. In a region lie
//! two superblocks, the log ring, the slots of map pages, two directories, and the data blocks of 4
//! KiB ([`RegionLayout`]).
//!
//! | file | content |
//! |---|---|
//! | `store.rs` | the engine: told what ended, says what to do |
//! | `entries.rs`, `retain.rs` | its entries: appended, applied, kept for followers |
//! | `writer.rs`, `batch.rs`, `record.rs` | the log: group commit, its batches, its records |
//! | `map/`, `paging.rs` | which device block holds what; pages of it that leave memory |
//! | `parked.rs` | reads that wait for such a page |
//! | `space.rs`, `alloc.rs` | which device blocks are free |
//! | `replica.rs` | one copyset's log, map and fences in memory |
//! | `reads.rs`, `delta.rs` | reads; catch-up of replicas |
//! | `scrub.rs`, `repair.rs` | checking what is stored; writing it anew |
//! | `checkpoint.rs`, `directory.rs`, `superblock.rs` | cutting the log |
//! | `recover.rs`, `logscan.rs`, `audit.rs` | opening a region; checking one |
//! | `label.rs`, `region.rs`, `format.rs` | the device as a whole |
//! | `inspect/` | looking at a device that nobody serves |
//! | `io.rs`, `file.rs`, `simdisk.rs` | devices: the contract, a real one, a simulated one |
//!
//! The design and the argument why nothing is lost: `design/0001-one-log.md`.

mod alloc;
mod audit;
mod batch;
mod checkpoint;
mod codec;
mod delta;
mod directory;
mod entries;
pub mod file;
mod format;
#[cfg(test)]
mod golden;
pub mod inspect;
mod io;
mod label;
pub mod limits;
mod logscan;
mod map;
mod paging;
mod parked;
mod reads;
mod record;
mod recover;
mod region;
mod repair;
mod replica;
mod retain;
mod scrub;
#[cfg(any(test, feature = "sim"))]
pub mod simdisk;
mod slab;
mod space;
mod stats;
mod store;
mod superblock;
mod writer;

pub use audit::audit;
pub use delta::{DeltaCursor, DeltaScan};
pub use format::{FormatError, FormatOptions, format};
pub use io::{DiskDone, DiskError, DiskOp, OpId, RegionIo};
pub use label::{FORMAT_VERSION, Label, LabelError, Region, read_label, write_identity};
pub use reads::{Damage, DamagedBlock, ReadError};
pub use recover::OpenError;
pub use region::RegionLayout;
pub use repair::{PeerRead, RepairError};
pub use replica::{HardState, LogEntry, ReplicaState};
pub use scrub::{ScrubCursor, ScrubStep};
pub use stats::{StoreStats, Written};
pub use store::{AppendError, Store, StoreEvent, StoreOptions};
