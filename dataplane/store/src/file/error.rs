//! Why a device cannot be opened, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a device cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum OpenFileError {
    /// There is nothing at the path.
    #[error(
        "{path} does not exist; check the path, or make a file device with `ogive format --size`"
    )]
    NotFound {
        /// The device.
        path: PathBuf,
    },
    /// A new file was asked for and there is one.
    #[error(
        "{path} exists already and was kept; choose another path, or use --force to replace it"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Locked or mounted.
    #[error("{path} is in use{}; stop what uses it, or choose another device", by_whom(.by))]
    InUse {
        /// The device.
        path: PathBuf,
        /// The process that holds the lock, when it is known.
        by: Option<u32>,
    },
    /// The kernel uses a file as a disk or for swapping.
    #[error("{path} is in use as {what}; end that first, or choose another file")]
    Used {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The process has not the right.
    #[error("{path} may not be opened by this user; give it the right, or run as the owner")]
    Denied {
        /// The device.
        path: PathBuf,
    },
    /// A directory, a pipe or such.
    #[error("{path} is neither a regular file nor a block device; name one of these")]
    WrongKind {
        /// The path.
        path: PathBuf,
    },
    /// The file system cannot bypass the page cache.
    #[error(
        "the file system of {path} does not support O_DIRECT; put the device on \
         ext4, XFS or Btrfs, or use a block device"
    )]
    NoDirect {
        /// The device.
        path: PathBuf,
    },
    /// The device cannot be addressed in 4096-byte units.
    #[error(
        "{path} asks for direct access in units of {bytes} bytes, more than 4096; \
         use another device"
    )]
    SectorTooLarge {
        /// The device.
        path: PathBuf,
        /// What it asks for.
        bytes: u32,
    },
    /// No room for a new file; it was removed.
    #[error(
        "no room for {path}: it takes {size_bytes} bytes and its file system has {free_bytes} \
         left; free some space or choose a smaller size"
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The file system's or the process's limit on file lengths.
    #[error(
        "{path} would have {size_bytes} bytes, more than a file may have here; \
         choose a smaller size"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
    },
    /// Space cannot be allocated in advance.
    #[error(
        "the file system of {path} does not allocate files in advance; \
         put it on ext4, XFS or Btrfs, or use a block device"
    )]
    NoAllocation {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{path} cannot be opened: {error}")]
    Io {
        /// The device.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        error: io::Error,
    },
}

impl OpenFileError {
    pub(super) fn from_io(path: &Path, error: io::Error) -> OpenFileError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => OpenFileError::NotFound { path },
            io::ErrorKind::PermissionDenied => OpenFileError::Denied { path },
            _ => OpenFileError::Io { path, error },
        }
    }
}

fn by_whom(by: &Option<u32>) -> String {
    by.map_or_else(String::new, |pid| format!(" by process {pid}"))
}
