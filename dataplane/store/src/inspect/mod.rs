//! Looks at a device that nobody serves, without changing it.
//!
//! | file | gives |
//! |---|---|
//! | `device.rs` | [`inspect`]: label, regions, superblocks, checkpoint, extent of the log |
//! | `log.rs` | [`dump_log`]: the batches of a log and their records |
//! | `verify.rs` | [`verify`]: every checksum there is, and what damage concerns |
//! | `space.rs` | [`audit_space`]: what every block is used for |
//! | `overlay.rs` | a device to which writes go no further than memory |
//! | `text.rs` | the same for people |
//!
//! Nothing here decodes anything by itself: superblocks, directories, pages, batches and records
//! are read by the decoders of the engine, and a region is opened by the engine's own recovery,
//! over an [`overlay`] that keeps the writes of a mount in memory. So what is found is what a
//! chunkserver would find at its start.
//!
//! Results are plain values that serialize; a device may hold anything, and nothing in it makes
//! these functions panic.

mod device;
mod log;
mod overlay;
mod space;
mod text;
mod verify;

use crate::limits::INSPECT_POOL_BYTES;

pub use device::{CheckpointView, DeviceView, LabelView, LogView, RegionView, SlotView, inspect};
pub use log::{BatchView, Field, LogEnd, RecordView, dump_log};
pub use space::{ReplicaSpace, SpaceView, audit_space};
pub use verify::{Finding, Place, Progress, Verified, verify};

/// Memory for a store that is opened to be looked at.
fn pool() -> ogive_buf::Pool {
    ogive_buf::Pool::new(INSPECT_POOL_BYTES)
}
