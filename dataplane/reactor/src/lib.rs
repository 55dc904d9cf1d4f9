//! The polling loop: disk ring, transports, timers and polite sleep in a glommio executor.
//!
//! - [`spawn`] starts a reactor: a thread with a glommio executor that turns a [`Work`] and sleeps
//!   when it is idle.
//! - [`Disk`] runs a store's reads, writes and flushes on our own io_uring.
//! - [`queue`] brings values from other threads, and wakes a sleeping reactor.
//! - [`watchdog`] ends the process when a reactor hangs.
//! - [`spawn_background`] runs work of low priority beside the loop.
//!
//! This crate is a shell: it owns clocks, threads and devices, so that what it turns need not.

mod background;
mod clock;
mod disk;
mod foreign;
mod handle;
pub mod limits;
mod pulse;
pub mod queue;
mod ring;
mod run;
mod wake;
pub mod watchdog;
mod work;

pub use background::{pause_point, spawn_background};
pub use clock::now;
pub use disk::Disk;
pub use handle::{ReactorError, ReactorHandle, spawn};
pub use ring::TaskRun;
pub use work::{PollMode, ReactorConfig, Work};
