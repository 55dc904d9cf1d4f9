//! An eventfd: how another thread makes a sleeping reactor look.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// A counter that is readable while it is not zero.
///
/// It is a blocking descriptor, since io_uring does not wait on a non-blocking one: a read would
/// end with EAGAIN. Our own reads say that they will not wait.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        Ok(EventFd(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Makes it readable. A counter at its maximum is readable too, so EAGAIN is success.
    pub(crate) fn signal(&self) {
        loop {
            match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
                Ok(_) | Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(e) => panic!("cannot write an eventfd of our own: {e}"),
            }
        }
    }

    /// Makes it unreadable, and says how often it was signalled since the last drain.
    pub(crate) fn drain(&self) -> u64 {
        let mut count = [0u8; 8];
        loop {
            let into = &mut [IoSliceMut::new(&mut count)];
            match preadv2(&self.0, into, u64::MAX, ReadWriteFlags::NOWAIT) {
                Ok(_) => return u64::from_ne_bytes(count),
                Err(Errno::AGAIN) => return 0,
                Err(Errno::INTR) => {}
                Err(e) => panic!("cannot read an eventfd of our own: {e}"),
            }
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
