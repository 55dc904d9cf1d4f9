//! Amounts that the checks ask for, with their reasons, and bounds on what a probe reads.

use std::time::Duration;

/// Lockable memory for each glommio executor: it refuses to start with less.
pub const MEMLOCK_PER_EXECUTOR_BYTES: u64 = 512 << 10;

/// Lockable memory for RDMA, where the process may not lock at will: the first arenas of buffers
/// and UCX's own. With less the data plane does not offer RDMA to its peers.
pub const RDMA_MEMLOCK_BYTES: u64 = 64 << 20;

/// Memory in /dev/shm for each executor: UCX 1.13 takes 4.3 MiB for its queue and first buffers,
/// and more while a receiver is behind.
pub const SHM_PER_EXECUTOR_BYTES: u64 = 16 << 20;

/// GIDs of a port that are reported; a table has hundreds of places and mostly two to six entries.
pub const GIDS_MAX: usize = 16;

/// Descriptors of a process before its connections: rings, event descriptors, logs, listeners.
pub const NOFILE_BASE: u64 = 256;

/// Oldest kernel with all that the data plane's ring needs: DEFER_TASKRUN came with 6.1.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// Largest logical block of a device: Ogive's own block.
pub const LOGICAL_BLOCK_MAX_BYTES: u32 = 4096;

/// Bytes of the temporary file that proves O_DIRECT: one block of Ogive.
pub const PROBE_BYTES: usize = 4096;

/// Bytes of the temporary file of a measurement: large enough for random places, quick to fill.
pub const MEASURE_BYTES: u64 = 64 << 20;

/// Longest measurement of one kind of request.
pub const MEASURE_MAX: Duration = Duration::from_secs(10);

/// Longest file of /sys or /proc that is read.
pub const SYSFS_FILE_MAX_BYTES: u64 = 1 << 20;

/// Deepest stack of device-mapper devices that is followed.
pub const DEVICE_STACK_MAX: usize = 8;
