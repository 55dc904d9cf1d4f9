//! What a probe found: plain data, no judgement.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that the checks look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Kernel release as `uname -r` prints it.
    pub kernel: String,
    /// What io_uring offers.
    pub uring: Uring,
    /// RLIMIT_MEMLOCK in bytes.
    pub memlock: Limit,
    /// True when the process may lock memory without limit (CAP_IPC_LOCK).
    pub may_lock_all: bool,
    /// RLIMIT_NOFILE.
    pub nofile: Limit,
    /// Processors and memory.
    pub machine: Machine,
    /// Ports in /sys/class/infiniband.
    pub rdma: Vec<RdmaPort>,
    /// The file system under /dev/shm; none when there is none that can be written.
    pub shared_memory: Option<SharedMemory>,
    /// One for each storage path of the requirements, in their order.
    pub storage: Vec<Storage>,
}

/// A resource limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What holds now; none for no limit.
    pub soft: Option<u64>,
    /// What the process may raise it to; none for no limit.
    pub hard: Option<u64>,
}

/// What io_uring offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uring {
    /// Whether a plain ring could be made.
    pub setup: Attempt,
    /// Whether the ring of the data plane could be made (SINGLE_ISSUER, DEFER_TASKRUN).
    pub data_plane_setup: Attempt,
    /// `kernel.io_uring_disabled`; none when the kernel has no such setting.
    pub disabled: Option<u32>,
    /// Operations and features that the data plane uses and this kernel lacks.
    pub missing: Vec<String>,
}

/// Something that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// It worked.
    Works,
    /// The system refused it.
    Refused {
        /// What was being done.
        step: String,
        /// Error number; 0 when the answer came back wrong without one.
        errno: i32,
    },
}

impl Attempt {
    /// True when it worked.
    pub fn works(&self) -> bool {
        *self == Attempt::Works
    }
}

/// Processors and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Logical processors that are online.
    pub cpus_online: usize,
    /// Logical processors that this process may use, by its affinity.
    pub cpus_allowed: usize,
    /// Processors' worth of time that its cgroup grants; none for no bound.
    pub cpu_quota: Option<f64>,
    /// Physical cores.
    pub cores: usize,
    /// NUMA nodes with processors.
    pub numa_nodes: usize,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes of memory that can be had without swapping.
    pub memory_available: u64,
    /// Explicit huge pages: all of them.
    pub hugepages_total: u64,
    /// Explicit huge pages: free ones.
    pub hugepages_free: u64,
    /// Bytes of one explicit huge page.
    pub hugepage_bytes: u64,
}

/// A port of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaPort {
    /// Device, such as `mlx5_0`.
    pub device: String,
    /// Port, counted from 1.
    pub port: u32,
    /// State in the kernel's words, such as `ACTIVE`.
    pub state: String,
    /// `InfiniBand` or `Ethernet`.
    pub link_layer: String,
    /// Rate in the kernel's words.
    pub rate: String,
    /// Its addresses (the table of GIDs without empty entries), at most
    /// [`GIDS_MAX`](crate::limits::GIDS_MAX).
    pub gids: Vec<Gid>,
}

/// An address of an RDMA port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gid {
    /// Its place in the port's table: what `UCX_IB_GID_INDEX` selects.
    pub index: u32,
    /// The address, written as an IPv6 address.
    pub address: String,
    /// `IB/RoCE v1` or `RoCE v2`; empty when the kernel does not say.
    pub kind: String,
}

/// Memory that processes can share by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMemory {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that may still be used.
    pub free_bytes: u64,
}

/// What lies under a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Storage {
    /// The path of the requirement.
    pub path: PathBuf,
    /// Where it was tried: the path, its directory, or the nearest parent that exists.
    pub tried_at: PathBuf,
    /// What the path is.
    pub kind: StorageKind,
    /// Direct I/O: write, fdatasync and read of a temporary file; on a block device only a read.
    pub direct: Attempt,
    /// Smallest alignment for direct I/O in bytes, as the kernel states it.
    pub direct_align: Option<u32>,
    /// Bytes that may still be used; for a block device its size.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Type of the file system; none on a block device, and when it could not be learned.
    pub file_system: Option<String>,
    /// The block devices underneath, the lowest ones; empty when they could not be found.
    pub devices: Vec<Device>,
}

/// What a storage path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageKind {
    /// A directory, or a path that does not exist yet.
    Directory,
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
    /// Something that holds no data.
    Other,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Name in /sys/block.
    pub name: String,
    /// Whether it has a volatile write cache; none when the kernel does not say.
    pub write_cache: Option<WriteCache>,
    /// Bytes of its logical block.
    pub logical_block: Option<u32>,
    /// True for a turning disk.
    pub rotational: Option<bool>,
}

/// What becomes of an acknowledged write when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteCache {
    /// It may be lost unless a flush followed.
    Volatile,
    /// It stays.
    WriteThrough,
}
