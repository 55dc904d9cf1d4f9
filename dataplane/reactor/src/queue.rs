//! Queues into a reactor from other threads: a bounded lock-free queue and an eventfd.
//!
//! A sender pays for the eventfd (a system call) only when the receiver sleeps. The flag `sleeping`
//! carries that:
//!
//! ```text
//! sender                          receiver (prepare_sleep)
//!   1 push the value                a  sleeping = true
//!   2 fence                         b  fence
//!   3 read sleeping                 c  look into the queue
//!   4 if it was true:               d  if something is there: sleeping = false, do not sleep
//!       swap it to false, and write the eventfd if the swap took `true`
//! ```
//!
//! No wake-up is lost: both fences are sequentially consistent, so one comes first. If the sender's
//! does, 1 happens before c and the receiver sees the value. If the receiver's does, a happens
//! before 3 and the sender sees the flag. Of many senders, one takes the flag and writes. The
//! receiver owes itself one drain of the eventfd whenever a sender took the flag; the write may
//! still be on its way then, so it drains before it arms again, and a write later than that costs
//! one needless wake-up, never a missed one.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;

use crate::wake::EventFd;

/// Why a value could not be sent; it is given back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// The queue is at its capacity: the receiver does not keep up. Try again later or shed load.
    #[error("the queue is full; its reactor does not keep up, try again later")]
    Full(T),
    /// The receiver is gone, and so is its reactor.
    #[error("the queue is closed; its reactor has ended")]
    Closed(T),
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// True while the receiver sleeps or is about to, and nobody has woken it yet.
    sleeping: AtomicBool,
    /// True once the receiver is dropped.
    closed: AtomicBool,
    senders: AtomicUsize,
    event: EventFd,
}

impl<T> Shared<T> {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.event.signal();
        }
    }
}

/// The sending end; any thread, cheap to clone.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving end; belongs to one reactor, whose loop polls it.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// `prepare_sleep` armed the flag and nothing was received since.
    armed: bool,
    /// So many senders took the flag whose writes to the eventfd were not drained yet, or are still
    /// to come.
    owed: u64,
}

/// A queue of at most `capacity` values (at least one).
///
/// # Errors
/// When no descriptor can be made for the wake-ups (EMFILE, ENFILE).
pub fn channel<T>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        sleeping: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        senders: AtomicUsize::new(1),
        event: EventFd::new()?,
    });
    let receiver = Receiver { shared: Arc::clone(&shared), armed: false, owed: 0 };
    Ok((Sender { shared }, receiver))
}

impl<T> Sender<T> {
    /// Queues `value` and wakes the receiver if it sleeps. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Full`] and [`SendError::Closed`], with the value.
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed(value));
        }
        self.shared.queue.push(value).map_err(SendError::Full)?;
        self.shared.wake();
        Ok(())
    }

    /// True once the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The oldest value, if any. A load and no system call, except right after a sleep.
    pub fn try_recv(&mut self) -> Option<T> {
        self.disarm();
        self.shared.queue.pop()
    }

    /// True when no sender is left and nothing is queued: nothing will come any more.
    pub fn is_finished(&self) -> bool {
        self.shared.senders.load(Ordering::Acquire) == 0 && self.shared.queue.is_empty()
    }

    /// Arms the wake-up. False: something is there (or the last sender just left), do not sleep.
    pub fn prepare_sleep(&mut self) -> bool {
        self.disarm();
        if self.owed > 0 {
            self.owed -= self.shared.event.drain();
        }
        let had_senders = self.shared.senders.load(Ordering::Acquire) > 0;
        self.shared.sleeping.store(true, Ordering::Relaxed);
        self.armed = true;
        fence(Ordering::SeqCst);
        let left = had_senders && self.shared.senders.load(Ordering::Relaxed) == 0;
        if self.shared.queue.is_empty() && !left {
            return true;
        }
        self.disarm();
        false
    }

    /// Readable once a sender found this end asleep. Stays the same for the life of the receiver.
    pub fn wake_fd(&self) -> RawFd {
        self.shared.event.raw()
    }

    fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            self.owed += u64::from(!self.shared.sleeping.swap(false, Ordering::AcqRel));
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        while self.shared.queue.pop().is_some() {}
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
