//! A descriptor that glommio did not open, read through glommio: its only way to wait for one.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use glommio::io::BufferedFile;

/// Reads a descriptor through the executor that it was made in.
pub(crate) struct ForeignFd {
    /// Never dropped: glommio closes files in a later round of the executor, and not at all once
    /// that has ended.
    file: ManuallyDrop<BufferedFile>,
    _owner: OwnedFd,
}

impl ForeignFd {
    pub(crate) fn new(owner: OwnedFd) -> ForeignFd {
        // SAFETY: the descriptor is open as long as `owner` lives, and never closed through the
        // file.
        let file = unsafe { BufferedFile::from_raw_fd(owner.as_raw_fd()) };
        ForeignFd { file: ManuallyDrop::new(file), _owner: owner }
    }

    /// Reads `len` bytes and throws them away. Always suspends the calling task until the executor
    /// has been at its rings and timers, and for as long as there is nothing to read.
    pub(crate) async fn read(&self, len: usize) -> io::Result<()> {
        let read = self.file.read_at(0, len).await;
        read.map(drop).map_err(|e| io::Error::other(format!("a read through glommio failed: {e}")))
    }
}
