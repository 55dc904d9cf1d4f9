//! A small NBD client: fixed newstyle, `NBD_OPT_GO`, simple replies, pipelined reads and writes.
//!
//! Our own, because the load generator must never block on one request, must see a lost connection
//! as an event, and must cost little beside what it measures.

mod conn;
mod handshake;
mod uri;
pub(crate) mod wire;

pub(crate) use conn::{Conn, Expect};
pub use handshake::ConnectError;
pub(crate) use handshake::{Export, open};
pub use uri::{Address, NbdUri, UriError};
