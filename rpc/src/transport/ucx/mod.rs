//! Lanes over UCX: shared memory between the processes of one host, RDMA between hosts.
//!
//! | file | what |
//! |---|---|
//! | `open` | whether this host can have a lane, and UCX's settings for it |
//! | `lane` | the connections of one owner over one worker; the trait [`Lane`](super::lane::Lane) |
//! | `conn` | one connection: its endpoint, time-outs, what is under way |
//! | `arrivals` | what UCX calls back with, between two polls |
//! | `leaving` | endpoints that cannot be closed yet |
//! | `offers` | payloads of ours that others read |
//! | `pull` | payloads read out of the memory of another process |
//! | `inbox` | messages into frames, in order |
//! | `wire` | what a message says |
//!
//! Where a payload is copied: the sender gives its buffers to UCX as they are. Up to
//! [`EAGER_BYTES_MAX`](crate::limits::EAGER_BYTES_MAX) UCX copies them into its own memory, which
//! crosses to the peer, and we copy from there into the pooled buffer (counted in `copied_bytes`).
//! Above it they come straight from the one buffer into the other: over RDMA by UCX's rendezvous,
//! over shared memory by one copy of the kernel's. Reasons in `rpc/design/0004-lanes.md`.

mod arrivals;
mod conn;
mod inbox;
mod lane;
mod leaving;
mod offers;
mod open;
pub mod pull;
mod slab;
pub mod wire;

use super::Path;
use super::lane::{Lane, LaneConfig};

/// Starts a lane, or says in a few words why this host or process cannot have it.
pub fn open(path: Path, config: &LaneConfig) -> Result<Box<dyn Lane>, String> {
    open::check(path)?;
    Ok(Box::new(lane::UcxLane::new(path, config)?))
}
