//! Gateways that show volumes to ordinary clients.
//!
//! - [`nbd`]: the NBD protocol as a session without I/O: bytes in, volume operations out, results
//!   in, bytes out;
//! - [`NbdServer`]: sockets around such sessions, polled by the loop that also runs the volume's
//!   client;
//! - [`Gateway`]: the loop itself, in a reactor;
//! - [`limits`]: how much a client may ask of a gateway.

mod conn;
pub mod limits;
mod listen;
pub mod nbd;
mod server;
mod service;
mod socket;

pub use listen::{ListenError, NbdListen};
pub use nbd::{Export, ExportId, ExportRequest, Exports};
pub use server::{ConnKey, NbdConfig, NbdServer};
pub use service::{Ask, Gateway, GatewayConfig, ServedVolume, StartError, Tell};
