//! Limits of this crate, each with its reason.

use std::time::Duration;

/// Most operations one [`crate::Disk`] keeps in the kernel at a time. Beyond a few hundred no
/// device gets faster, and the ring's memory (and, on old kernels, RLIMIT_MEMLOCK) grows with it.
pub const DISK_DEPTH_MAX: u32 = 1024;

/// Most operations that wait in a [`crate::Disk`] for a place in the kernel. The store reserves
/// before it submits, so this many can only be a leak, which is better found by an assertion than
/// by the kernel's memory killer.
pub const DISK_QUEUE_MAX: usize = 1 << 16;

/// Entries in one vectored write: the kernel's UIO_MAXIOV. Longer lists are written in several
/// steps.
pub const IOVECS_MAX: usize = 1024;

/// Arenas that can be registered with one ring: the kernel's limit on fixed buffers.
pub const REGISTERED_ARENAS_MAX: usize = 1 << 14;

/// How often an operation that the kernel answers with EINTR or EAGAIN is submitted again before it
/// fails. Both are rare and pass; a device that does nothing else is broken.
pub const RETRIES_MAX: u8 = 100;

/// Descriptors that one reactor waits on. A `Work` has one per transport and queue.
pub const WAKE_FDS_MAX: usize = 64;

/// Longest time without a turn, or past its deadline in sleep, before a reactor counts as hung.
pub const HANG_AFTER: Duration = Duration::from_secs(10);

/// The shortest [`HANG_AFTER`] that can be set: less would kill healthy processes on a busy
/// machine.
pub const HANG_AFTER_MIN: Duration = Duration::from_secs(1);

/// The watchdog looks this many times per [`HANG_AFTER`]; each look that comes late clears all
/// suspicion.
pub const WATCHDOG_LOOKS: u32 = 10;

/// Longest the loop keeps the executor to itself while background tasks live. One visit to the
/// executor costs a few microseconds, so this spends under one per cent on them and bounds their
/// delay.
pub const SLICE: Duration = Duration::from_millis(1);

/// Longest a background task may run before its pause point lets the loop in: what a request may
/// have to wait.
pub const BACKGROUND_SLICE: Duration = Duration::from_micros(100);

/// Shares of the background queue; the loop's has 1000. Under load, background work gets about a
/// twentieth.
pub const BACKGROUND_SHARES: usize = 50;

/// Default spin before sleep where every reactor can have a core: about one disk write or round
/// trip.
pub const SPIN: Duration = Duration::from_micros(50);

/// What glommio's rings ask of RLIMIT_MEMLOCK, in bytes.
pub const MEMLOCK_MIN: u64 = 512 * 1024;

/// Preempt timer of the executor, which must never fire: see `design/0002-sleeping.md`.
pub const PREEMPT_TIMER: Duration = Duration::from_secs(3600);

/// Depth of the executor's own rings. The data path does not use them.
pub const EXECUTOR_RING_DEPTH: usize = 16;

/// Longest sleep while background tasks live: the delay of their timers and I/O. Costs 200 wake-ups
/// per second.
pub const BACKGROUND_NAP: Duration = Duration::from_millis(5);
