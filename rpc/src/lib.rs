//! Message-oriented RPC of the data plane: frames, sessions, credits, transports.
//!
//! - [`frame`]: the header and its codec; [`assemble`]: frames with pooled payloads out of a
//!   stream;
//! - [`hello`], [`goodbye`]: what the two ends tell each other first and last; [`token`]: by which
//!   they know each other; [`offer`], [`path_frame`]: how they agree on a path between;
//! - [`requests`], [`inbound`]: requests in flight, their deadlines and credits, as plain state
//!   without I/O;
//! - [`transport`]: the polled trait, and behind it TCP and the faster paths.

pub mod assemble;
pub mod frame;
pub mod goodbye;
pub mod hello;
pub mod inbound;
pub mod limits;
pub mod offer;
pub mod path_frame;
pub mod requests;
mod text;
pub mod token;
pub mod transport;
