//! A safe, polled binding to libucp (UCX): active messages, put and get over RDMA and shared
//! memory.
//!
//! | file | what it has |
//! |---|---|
//! | `config`, `context` | settings; devices and transports |
//! | `worker` | [`Worker`], polled with a [`Handler`]; arming and sleeping |
//! | `endpoint`, `listener` | connections, by worker address and by socket address |
//! | `message` | what arrives: eager data, kept or not, and announced data |
//! | `operation` | what is in flight, and owns its buffers |
//! | `forgotten` | operations that UCX does not end |
//! | `memory` | registered arenas, memory of peers |
//! | `envelope` | addresses and keys on their way to the peer |
//! | `core` | where UCX's callbacks end |
//! | `error`, `limits`, `alive` | types of errors, limits, counts of what is alive |
//! | `sys` | raw bindings, private |
//!
//! Everything belongs to one thread. Nothing blocks and nothing is a future: the owner calls
//! [`Worker::progress`], which lends it a handler for the time of the call. See `design` for why.
//!
//! Building needs libucx-dev (1.13 or newer) and libclang-dev.

mod alive;
mod config;
mod context;
mod core;
mod endpoint;
mod envelope;
mod error;
mod forgotten;
pub mod limits;
mod listener;
mod memory;
mod message;
mod operation;
mod sys;
mod worker;

pub use alive::{Alive, alive};
pub use config::Config;
pub use context::{Context, version};
pub use endpoint::{Endpoint, EndpointId, Mode};
pub use error::UcxError;
pub use listener::{ConnRequest, Listener};
pub use memory::{Exposed, MemoryRegion, RemoteMemory};
pub use message::{Data, Eager, Kept, Pending};
pub use operation::{Completion, Done, Progress, Sent};
pub use worker::{Handler, Worker};
