//! One shard's part of a device: log, maps, allocator, recovery.

pub mod file;
mod format;
mod io;
mod label;
mod region;
#[cfg(any(test, feature = "sim"))]
pub mod simdisk;

pub use format::{FormatError, FormatOptions, format};
pub use io::{DiskDone, DiskError, DiskOp, OpId, RegionIo};
pub use label::{FORMAT_VERSION, Label, LabelError, Region, read_label, write_identity};
pub use region::RegionLayout;
