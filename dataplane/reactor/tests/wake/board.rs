//! What the reactor under test and its driver share: who has answered how often.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Everything that can wake a reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A value in a queue, from another thread.
    Queue,
    /// A frame, over whichever path the transport took.
    Net,
    /// A read of a file ends.
    File,
    /// A read of a pipe ends, at the very moment that the driver chooses.
    Pipe,
    /// A timer of the work is due.
    Timer,
}

impl Source {
    pub const ALL: [Source; 5] =
        [Source::Queue, Source::Net, Source::File, Source::Pipe, Source::Timer];
}

/// Counters by source, and of the sleeps.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Source::ALL.len()]);

impl Counts {
    pub fn add(&self, source: Source) {
        self.0[source as usize].fetch_add(1, Ordering::Release);
    }

    pub fn get(&self, source: Source) -> u64 {
        self.0[source as usize].load(Ordering::Acquire)
    }
}

/// Written by the reactor's thread.
#[derive(Debug, Default)]
pub struct Board {
    /// What arrived.
    pub answers: Counts,
    /// Times that the reactor went to sleep and came back, as the kernel counted them.
    pub sleeps: AtomicU64,
    /// Its turns.
    pub turns: AtomicU64,
    /// Its thread, as the kernel knows it.
    pub thread: AtomicU64,
    /// Written by the driver: the connection is up.
    pub begun: AtomicBool,
}

impl Board {
    /// Whether the reactor's thread sleeps, as the kernel says. One that spins and only waits for a
    /// core does not.
    pub fn sleeps_now(&self) -> bool {
        let thread = self.thread.load(Ordering::Relaxed);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        // The name may hold spaces and ends with the last parenthesis.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    }
}

/// The calling thread, as the kernel knows it.
pub fn this_thread() -> u64 {
    // SAFETY: takes nothing, and always succeeds.
    unsafe { libc::gettid() as u64 }
}

/// How often the calling thread gave its core away of its own accord.
pub fn voluntary_switches() -> u64 {
    // SAFETY: all zeroes is a valid rusage, and the kernel writes no more than one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage.ru_nvcsw as u64
    }
}
