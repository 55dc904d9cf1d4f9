//! What each role needs of its host.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::limits::{MEMLOCK_PER_EXECUTOR_BYTES, NOFILE_BASE};

/// A kind of Ogive process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Metadata server.
    Mds,
    /// Server of one device.
    Chunkserver,
    /// NBD gateway.
    Gateway,
    /// A whole cluster on one machine.
    Demo,
}

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageUse {
    /// Direct I/O of blocks.
    Blocks,
    /// Ordinary files: metadata, logs.
    Files,
}

/// A path and what must be possible there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageNeed {
    /// A directory, a regular file or a block device; need not exist yet.
    pub path: PathBuf,
    /// What for.
    pub used_for: StorageUse,
    /// Bytes that must be free.
    pub free_bytes: u64,
}

/// What a role needs of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// The role.
    pub role: Role,
    /// Executors (data-plane cores) in one process; 0 for a role without io_uring.
    pub executors: usize,
    /// Memory that one process registers with its rings, besides that of the executors.
    pub registered_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Memory of all its processes in bytes.
    pub memory_bytes: u64,
    /// Its storage.
    pub storage: Vec<StorageNeed>,
    /// Paths beside TCP that this build has.
    pub paths: Paths,
}

/// Paths beside TCP that a build has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Shared memory.
    pub shm: bool,
    /// RDMA.
    pub rdma: bool,
}

impl Requirements {
    /// A metadata server that keeps its log and state in `dir`.
    pub fn mds(dir: &Path) -> Requirements {
        // State of a large cluster is some 100 MB; the log is cut by snapshots.
        let storage = vec![need(dir, StorageUse::Files, 1 << 30)];
        Requirements {
            role: Role::Mds,
            executors: 0,
            registered_bytes: 0,
            open_files: NOFILE_BASE + 1024,
            memory_bytes: 256 << 20,
            storage,
            paths: Paths::default(),
        }
    }

    /// A chunkserver on `device` (a block device or a preallocated file) with so many shards.
    pub fn chunkserver(device: &Path, executors: usize) -> Requirements {
        Requirements {
            role: Role::Chunkserver,
            executors,
            registered_bytes: 0,
            open_files: NOFILE_BASE + 1024 * executors as u64,
            memory_bytes: (executors as u64) * (256 << 20),
            storage: vec![need(device, StorageUse::Blocks, 0)],
            paths: Paths::default(),
        }
    }

    /// An NBD gateway with so many executors.
    pub fn gateway(executors: usize) -> Requirements {
        Requirements {
            role: Role::Gateway,
            executors,
            registered_bytes: 0,
            open_files: NOFILE_BASE + 1024 * executors as u64,
            memory_bytes: (executors as u64) * (128 << 20),
            storage: Vec::new(),
            paths: Paths::default(),
        }
    }

    /// A demo cluster under `dir`: `executors` in its largest process, `free_bytes` on disk.
    pub fn demo(dir: &Path, executors: usize, free_bytes: u64) -> Requirements {
        Requirements {
            role: Role::Demo,
            executors,
            registered_bytes: 0,
            open_files: NOFILE_BASE + 1024,
            memory_bytes: 1 << 30,
            storage: vec![need(dir, StorageUse::Blocks, free_bytes)],
            paths: Paths::default(),
        }
    }

    /// The same for a build with these paths.
    pub fn with_paths(self, paths: Paths) -> Requirements {
        Requirements { paths, ..self }
    }

    /// Lockable memory that one process needs, in bytes. What it registers counts only when it
    /// may not lock memory at will.
    pub fn memlock_bytes(&self, may_lock_all: bool) -> u64 {
        let registered = if may_lock_all { 0 } else { self.registered_bytes };
        MEMLOCK_PER_EXECUTOR_BYTES * self.executors as u64 + registered
    }
}

fn need(path: &Path, used_for: StorageUse, free_bytes: u64) -> StorageNeed {
    StorageNeed { path: path.to_owned(), used_for, free_bytes }
}
