//! The client core: turns byte ranges of a volume into requests to copyset leaders, and keeps them
//! in order.
//!
//! [`Client`] is one synchronous state machine. Events and time go in, [`ClientEffect`]s come out;
//! it owns no socket, no clock and no thread, so that the gateway's loop and the simulator run the
//! same code.
//!
//! ```text
//!  submit ──> op ──(range lock)──> stages: edges read, then main ──> parts, one per chunk span
//!                                                                      │
//!     segment known? ── copyset's leader known? ── connection, credit? ┴──> Send
//!        NeedSegment        probe members             Connect                 │
//!                                    ^                                        │
//!                                    └── retry <── lost, refused, late <──────┴──> Completed
//! ```
//!
//! - `api`: what callers hand in and get back;
//! - `split`: which chunks and blocks a byte range means; `chain`: rows of buffers and their
//!   checksums;
//! - `lock`: the order of overlapping writes (see `design/0001-order-and-retries.md`);
//! - `segments`, `route`, `peers`: what is known of segments, leaders and connections;
//! - `op`, `part`: an operation of the caller, and its pieces;
//! - `engine`: the state machine that joins them.

mod api;
mod backoff;
mod chain;
mod engine;
#[cfg(test)]
mod harness;
pub mod limits;
mod lock;
mod op;
mod part;
mod peers;
mod route;
mod segments;
mod slab;
mod split;
#[cfg(test)]
mod tests;
mod timers;

pub use api::{
    ClientEffect, ClientOptions, ClientStats, LostReason, Topology, VolumeError, VolumeOp,
    VolumeOutput, VolumeSpec,
};
pub use engine::Client;
