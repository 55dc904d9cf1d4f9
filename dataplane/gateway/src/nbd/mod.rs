//! NBD, fixed newstyle, without I/O.
//!
//! The protocol is <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>; names here
//! are those used there.
//!
//! ```text
//!   bytes ──> Session ──> handshake ──> transmission ──> ExportRequest (volume operations)
//!                                            ^                  │
//!   bytes <── OutQueue <── replies ──────────┴── completed <────┘
//! ```

mod export;
mod handshake;
mod out;
pub mod protocol;
mod request;
mod session;
mod transmission;

pub use export::{Export, ExportId, ExportRequest, Exports};
pub use out::OutQueue;
pub use session::{CloseReason, Session, Want};
