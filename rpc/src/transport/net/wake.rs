//! One descriptor for the sleep on all paths: an epoll over TCP's and the lanes' own descriptors,
//! level-triggered, so that whatever is left unpolled wakes the owner again.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

#[derive(Debug)]
pub(super) struct Wake {
    fd: OwnedFd,
}

impl Wake {
    /// Watches `fds`, which must be open as long as the result.
    pub(super) fn new(fds: impl IntoIterator<Item = RawFd>) -> io::Result<Wake> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        for watched in fds {
            // SAFETY: the transport that owns this owns the paths too, and their descriptors are
            // open as long as they live.
            let borrowed = unsafe { BorrowedFd::borrow_raw(watched) };
            let data = EventData::new_u64(watched as u64);
            epoll::add(&fd, borrowed, data, EventFlags::IN)?;
        }
        Ok(Wake { fd })
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
