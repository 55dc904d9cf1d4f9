//! Message-oriented RPC of the data plane: frames, sessions, credits, transports.
//!
//! - [`frame`]: the header and its codec;
//! - [`hello`]: what the two ends tell each other first;
//! - [`requests`]: requests in flight, their deadlines and credits, as plain state without I/O;
//! - [`transport`]: the polled trait, and TCP behind it.

pub mod frame;
pub mod hello;
pub mod limits;
pub mod requests;
pub mod transport;
