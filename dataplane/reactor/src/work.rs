//! What a reactor turns, and how it polls.

use std::os::fd::RawFd;
use std::time::Duration;

use ogive_types::Time;

use crate::disk::Disk;
use crate::limits;

/// The work of one reactor: state machines with the transports, queues and disk that feed them.
/// Made on the reactor's thread and never leaves it.
pub trait Work {
    /// One turn: polls everything, applies what came, submits what must go (one flush per ring and
    /// transport). Never blocks. True if anything happened; the loop then turns again at once.
    fn turn(&mut self, now: Time) -> bool;

    /// When `turn` must be called again even if nothing comes.
    fn next_deadline(&self) -> Time;

    /// Descriptors that are readable whenever `turn` would find something that came from outside:
    /// transports', queues', and [`Disk::wake_fd`] if the disk is not given by [`Work::disk`]. At
    /// most [`limits::WAKE_FDS_MAX`] in the life of the work; each stays open, and the same file,
    /// as long as the work lives.
    fn wake_fds(&self) -> Vec<RawFd>;

    /// Called before each sleep: arms what needs arming (queues, transports). False: something came
    /// meanwhile, do not sleep.
    fn prepare_sleep(&mut self) -> bool;

    /// True once the reactor shall end.
    fn finished(&self) -> bool;

    /// The disk whose ring the loop sleeps on, so that a completion wakes it without a detour and
    /// going to sleep submits what is queued: one system call per sleep. Always the same disk.
    /// Without one the loop uses a ring of its own.
    fn disk(&mut self) -> Option<&mut Disk> {
        None
    }
}

/// When a reactor sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollMode {
    /// Never: lowest latency, one core always at 100 %.
    Busy,
    /// After `spin` without work: as fast as `Busy` under load, idle CPU near zero.
    Adaptive {
        /// How long to poll in vain before sleeping.
        spin: Duration,
    },
    /// As soon as a turn finds nothing.
    Event,
}

impl PollMode {
    /// The adaptive mode that fits `reactors` busy threads on a machine with `cores`. Spinning pays
    /// only where nobody else needs the core: otherwise it delays the very peer that is waited for.
    /// See `design/0002-sleeping.md`.
    pub fn adaptive(cores: usize, reactors: usize) -> PollMode {
        let spin = if reactors < cores { limits::SPIN } else { Duration::ZERO };
        PollMode::Adaptive { spin }
    }
}

/// How to run a reactor.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Names the thread (the kernel keeps 15 bytes) and appears in messages.
    pub name: String,
    /// The core to pin it to; `None` leaves it to the kernel.
    pub core: Option<usize>,
    /// When it sleeps.
    pub mode: PollMode,
}
