//! A work for tests: counts what comes through a queue, with a timer.

#![allow(dead_code, reason = "each test uses a part")]

pub mod random;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ogive_reactor::queue::Receiver;
use ogive_reactor::{PollMode, ReactorConfig, Work};
use ogive_types::Time;

/// What a [`Counter`] saw.
#[derive(Default)]
pub struct Seen {
    /// The last value received.
    pub value: AtomicU64,
    /// Turns.
    pub turns: AtomicU64,
    /// Times that the timer fired.
    pub ticks: AtomicU64,
    /// Times that it went to sleep, or tried.
    pub sleeps: AtomicU64,
}

/// Receives numbers until the senders are gone.
pub struct Counter {
    pub inbox: Receiver<u64>,
    pub seen: Arc<Seen>,
    /// Fires the timer this often, if ever.
    pub every: Option<Duration>,
    pub next: Time,
    /// Blocks for a minute when the timer fires.
    pub blocks: bool,
}

impl Counter {
    pub fn new(inbox: Receiver<u64>, seen: Arc<Seen>, every: Option<Duration>) -> Counter {
        let next = every.map_or(Time::NEVER, |e| ogive_reactor::now() + e);
        Counter { inbox, seen, every, next, blocks: false }
    }

    /// One whose turn blocks.
    pub fn blocking(mut self) -> Counter {
        self.blocks = true;
        self
    }
}

impl Work for Counter {
    fn turn(&mut self, now: Time) -> bool {
        self.seen.turns.fetch_add(1, Ordering::Relaxed);
        let mut any = false;
        while let Some(value) = self.inbox.try_recv() {
            self.seen.value.store(value, Ordering::Release);
            any = true;
        }
        if let Some(every) = self.every.filter(|_| now >= self.next) {
            if self.blocks {
                std::thread::sleep(Duration::from_secs(60));
            }
            self.next = now + every;
            self.seen.ticks.fetch_add(1, Ordering::Release);
            any = true;
        }
        any
    }

    fn next_deadline(&self) -> Time {
        self.next
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        vec![self.inbox.wake_fd()]
    }

    fn prepare_sleep(&mut self) -> bool {
        self.seen.sleeps.fetch_add(1, Ordering::Relaxed);
        self.inbox.prepare_sleep()
    }

    fn finished(&self) -> bool {
        self.inbox.is_finished()
    }
}

/// An unpinned reactor's configuration.
pub fn config(name: &str, mode: PollMode) -> ReactorConfig {
    ReactorConfig { name: name.into(), core: None, mode }
}

/// Waits until `done`, for a minute at most: long enough for any machine, short enough for a hang.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}
