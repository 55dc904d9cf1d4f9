//! The epoll descriptor of a transport, level-triggered (see `rpc/design/0001-tcp-polling.md`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::limits::READY_PER_POLL;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Interest {
    pub(super) const READ: Interest = Interest { read: true, write: false };
    pub(super) const WRITE: Interest = Interest { read: false, write: true };
    pub(super) const NONE: Interest = Interest { read: false, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        if self.read {
            flags |= EventFlags::IN;
        }
        if self.write {
            flags |= EventFlags::OUT;
        }
        flags
    }
}

/// A descriptor that is ready. Errors and hang-ups make it ready for both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    /// The peer is gone in both directions, or the socket failed.
    pub(super) dead: bool,
}

pub(super) struct Epoll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Epoll> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Epoll { fd, events: Vec::with_capacity(READY_PER_POLL) })
    }

    pub(super) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, EventData::new_u64(token), interest.flags())?)
    }

    pub(super) fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, fd, EventData::new_u64(token), interest.flags())?)
    }

    pub(super) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Asks the kernel, without waiting, which descriptors are ready; returns how many.
    pub(super) fn look(&mut self) -> usize {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        // EINTR is the only error that a valid descriptor gives; the next poll looks again.
        let _ = epoll::wait(&self.fd, room, Some(&NOW));
        self.events.len()
    }

    /// The `i`th descriptor that `look` found.
    pub(super) fn ready(&self, i: usize) -> Ready {
        let Event { flags, data } = self.events[i];
        let dead = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        Ready {
            token: data.u64(),
            read: dead || flags.contains(EventFlags::IN),
            write: dead || flags.contains(EventFlags::OUT),
            dead,
        }
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
